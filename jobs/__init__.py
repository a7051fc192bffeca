"""One file a command: arguments → config → one call → exit code."""
