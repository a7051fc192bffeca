"""Read an output again and check it; restore a sample of it again."""
