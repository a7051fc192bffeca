"""What is measured of a face, as values that add."""
