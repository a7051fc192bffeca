"""The two trainings, alignment of training faces, export of presets."""
