"""The catalogue of presets and weights: list, fetch, mirror, check."""
