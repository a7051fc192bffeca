"""Files, S3, images, JPEG, tar, shards, readers, weights files."""
