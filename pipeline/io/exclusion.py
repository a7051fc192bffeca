"""What a person excludes from an input, by patterns of paths."""

from collections.abc import Sequence
from fnmatch import fnmatchcase


def is_excluded(patterns: Sequence[str], path: str) -> bool:
    """Whether one of the patterns fits a path below the input; a folder's ends with a slash.

    `*`, `?` and `[abc]` stand for letters of one name, `**` for any number of folders, and at the end for everything
    below one. A pattern without a slash fits names in every folder; one with a slash the path from the input on; one
    that ends with a slash folders only. What lies below a folder that fits is the caller's to leave out.
    """
    return any(_fits(pattern, path) for pattern in patterns)


def _fits(pattern: str, path: str) -> bool:
    names, is_folder = path.removesuffix("/").split("/"), path.endswith("/")
    if pattern.endswith("/") and not is_folder:
        return False
    wanted = pattern.rstrip("/")
    if "/" not in wanted:
        return fnmatchcase(names[-1], wanted)
    parts = wanted.removeprefix("/").split("/")
    # a folder all of whose content is excluded need not be looked into
    return _match(parts, names) or (is_folder and parts[-1] == "**" and _match(parts, [*names, ""]))


def _match(parts: Sequence[str], names: Sequence[str]) -> bool:
    if not parts or parts == ["**"]:
        return bool(parts) == bool(names)
    if parts[0] == "**":
        return any(_match(parts[1:], names[place:]) for place in range(len(names) + 1))
    return bool(names) and fnmatchcase(names[0], parts[0]) and _match(parts[1:], names[1:])
