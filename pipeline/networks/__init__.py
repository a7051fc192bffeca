"""Architectures, presets, checkpoints, inference form, costs."""
