"""Names that come from elsewhere: as people read them, as files and databases take them, and which are passed by."""

import re

# The folder in which macOS puts what other systems' archives have no place for.
MAC_FOLDER = "__MACOSX"
# Begins the name of an AppleDouble file: what macOS keeps beside the file whose name follows.
APPLE_DOUBLE = "._"
_SPELLED = re.compile(r"\\u(dc[89a-f][0-9a-f])")


def spelled(name: str) -> str:
    """The name as Parquet, JSON, HTML and MLflow take it: bytes that are no UTF-8 are spelled out, as \\udce9."""
    return name.encode(errors="backslashreplace").decode()


def unspelled(text: str) -> str:
    """The name of which `spelled` made this: the bytes that were no UTF-8 are back."""
    return _SPELLED.sub(lambda found: chr(int(found[1], 16)), text)


def is_hidden(path: str) -> bool:
    """Whether a file is none of the pictures: its name, or that of a folder above it, begins with a dot.

    So are those in __MACOSX, and so everything is whose name begins with ._: it holds attributes, whatever its suffix.
    """
    return any(p == MAC_FOLDER or (p.startswith(".") and p not in (".", "..")) for p in path.split("/"))
