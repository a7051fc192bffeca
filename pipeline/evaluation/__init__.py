"""Test sets, sweeps, scores, calibration of presets, the paper's figures, speed."""
