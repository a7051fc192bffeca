"""What is planned and done; the lease of the driver; status; reading an output."""
