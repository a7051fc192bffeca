"""Options, progress, the terminal, exit codes."""
