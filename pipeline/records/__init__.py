"""Columns of a row, marker, totals, fingerprint: each stored format is written and read by one owner."""
