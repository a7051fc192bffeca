"""Names of files that come from elsewhere: how they are stored as text, and which are skipped."""

import re

# The folder in which macOS puts what other systems' archives have no place for.
MAC_FOLDER = "__MACOSX"
# Begins the name of an AppleDouble file: what macOS keeps beside the file whose name follows.
APPLE_DOUBLE = "._"
_ESCAPED = re.compile(r"\\u(dc[89a-f][0-9a-f])")


def escape_surrogates(name: str) -> str:
    """The name as valid Unicode for Parquet, JSON, HTML and MLflow: bytes that are no UTF-8 are escaped, as \\udce9."""
    return name.encode(errors="backslashreplace").decode()


def unescape_surrogates(text: str) -> str:
    """The inverse of `escape_surrogates`."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text)


def is_hidden(path: str) -> bool:
    """Whether a file is skipped: its name, or that of a folder above it, begins with a dot, or it lies in __MACOSX."""
    return any(p == MAC_FOLDER or (p.startswith(".") and p not in (".", "..")) for p in path.split("/"))
