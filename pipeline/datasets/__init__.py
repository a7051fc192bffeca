"""Data for training, evaluation and the demo: degradations, inpainting masks, face shards, the demo archive."""
