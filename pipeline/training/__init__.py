"""Training of estimator and prior, alignment of training faces, export of presets."""
