"""The standard streams of a job."""

import io
import sys


def accept_every_letter() -> None:
    """Let stdout and stderr spell out, as \\u2192, what their encoding does not have, instead of raising.

    In a container or under cron it is often ASCII; names of files and our own lines have letters beyond it.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # in a notebook, or redirected, they are others
            stream.reconfigure(errors="backslashreplace")
