"""Two runs over the same pictures, compared face by face."""
