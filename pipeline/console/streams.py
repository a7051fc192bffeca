"""The standard streams of a job."""

import io
import sys


def escape_unencodable() -> None:
    """Make stdout and stderr write characters outside their encoding as escapes (\\u2192) instead of raising.

    In a container or under cron the encoding is often ASCII; file names and messages have other characters.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # another type in a notebook, or when redirected
            stream.reconfigure(errors="backslashreplace")
