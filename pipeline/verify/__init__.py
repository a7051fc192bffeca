"""Audit an output, and restore a sample of it again."""
