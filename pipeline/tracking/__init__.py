"""What a job reports to MLflow, and the only import of it."""
