"""One file of a listing, and which files a listing leaves out."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

# Files that this process has listed, local ones and objects; it only grows.
files_listed: Counter[str] = Counter()
# The file by which the right to write is checked, hidden by its dot; the same name every time, so that rights without
# delete leave one empty object at most.
PROBE = ".write-check"
# A part of a path that starts with a dot; `.` and `..` in a key are no names.
_HIDDEN = re.compile(r"(?:^|/)\.(?!\.?(?:/|$))")


@dataclass(frozen=True)
class Entry:
    """One file of a listing."""

    uri: str
    # relative to the listed root, '/' between its parts
    path: str
    # bytes
    size: int
    # changes with the content: the ETag of an object, "size-mtime_ns" of a local file
    version: str


def remote_entry(uri: str, info: dict[str, Any], relative: str) -> Entry:
    """The entry of a remote file, from its file system's info."""
    version = (
        info.get("ETag") or info.get("etag") or f"{info['size']}-{info.get('mtime', info.get('created'))}"
    )
    return Entry(uri, relative, int(info["size"]), str(version).strip('"'))


def entries_below(folder: str, root: str, infos: dict[str, dict[str, Any]]) -> Iterator[Entry]:
    """The visible files among `infos`, by name. folder: their URI, root: their names, each up to the path below."""
    for name, info in infos.items():
        relative = name[len(root) :]
        # a name that ends with a slash is how some consoles mark a folder
        if info["type"] == "file" and relative and not name.endswith("/") and not _HIDDEN.search(relative):
            yield remote_entry(f"{folder}{relative}", info, relative)


def with_folders(path: str) -> Iterator[str]:
    """A path's folders, outermost first and each with a slash at its end, and the path."""
    yield from (path[: place + 1] for place, sign in enumerate(path) if sign == "/")
    yield path
