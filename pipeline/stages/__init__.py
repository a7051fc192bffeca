"""What a unit goes through: load, align, restore, background, paste, publish, record."""
