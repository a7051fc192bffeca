"""Metrics of restored faces, as values that add."""
