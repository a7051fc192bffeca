"""The mathematics of DifFace and the engine; knows no Ray, no files, no MLflow."""
