"""The server of a run's review page: shows it, and takes verdicts into the output."""
