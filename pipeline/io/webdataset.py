"""Names of the members of tars that are written here: each picture is one sample to a WebDataset reader.

Such a reader takes the path up to the first dot of the file name as a sample's key, and all members with the same key
as one sample.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

from pipeline.io.images import is_image_name
from pipeline.io.names import escape_surrogates

# Where a format's usual suffix is another than its name.
SUFFIXES = {"JPEG": ".jpg", "TIFF": ".tif"}
# Most bytes of one name in a file system.
MOST_BYTES = 255
# Hexadecimal digits that are added to keys that would be shared; the next number where that is not enough.
DIGITS = (8, 16, 64)


def suffix_of(picture_format: str) -> str:
    """The suffix of a format by Pillow's name of it, with its dot."""
    return SUFFIXES.get(picture_format, f".{picture_format.lower()}")


def webdataset_names(
    names: Sequence[str], suffixes: Sequence[str] | None = None, default: str = ""
) -> list[str]:
    """A member name for each picture; no two share a WebDataset key, and none leads out of its folder.

    names: paths of the pictures. suffixes: of each with its dot, for names that have none of a picture's; None gives
    every picture the suffix `default`. A name stays as it is where it can: dots before the suffix become underscores,
    and what would share a key gets digits of its own name's sha256, `IMG_1-0a1b2c3d.jpg`.
    """
    given = [default] * len(names) if suffixes is None else suffixes
    split = [_split(name, suffix, suffixes is not None) for name, suffix in zip(names, given, strict=True)]
    keys = [_key(folder, stem, suffix) for folder, stem, suffix in split]
    digests = _digests(names)
    for length in DIGITS:
        shared = {key for key, count in Counter(keys).items() if count > 1}
        if not shared:
            break
        for i, key in enumerate(keys):
            if key in shared:
                folder, stem, suffix = split[i]
                keys[i] = _key(folder, stem, suffix, f"-{digests[i][:length]}")
    return [key + suffix for key, (_, _, suffix) in zip(keys, split, strict=True)]


def _split(name: str, suffix: str, keep: bool) -> tuple[str, str, str]:
    """Folder, stem without dots, and suffix. keep: the name's own suffix, where it is a picture's."""
    parts = [_plain(part) for part in name.split("/") if part not in ("", ".")]
    last = parts.pop() if parts else ""
    if is_image_name(last):
        own = PurePosixPath(last).suffix
        last, suffix = last.removesuffix(own), own if keep else suffix
    folders = ["_" if part == ".." else part for part in parts]
    return "/".join(folders), last.replace(".", "_") or "_", suffix


def _plain(part: str) -> str:
    """A part of a path in letters that every reader takes; patterns of some stop at the end of a line."""
    return "".join(c if c.isprintable() else "_" for c in escape_surrogates(part))


def _key(folder: str, stem: str, suffix: str, tail: str = "") -> str:
    longest = MOST_BYTES - len((tail + suffix).encode())
    stem = stem.encode()[:longest].decode(errors="ignore")
    return f"{folder}/{stem}{tail}" if folder else f"{stem}{tail}"


def _digests(names: Sequence[str]) -> list[str]:
    """The sha256 of each name; of several of one name the later ones also have their number."""
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        repeat = f"\0{seen[name]}" if seen[name] else ""
        seen[name] += 1
        found.append(hashlib.sha256(f"{name}{repeat}".encode(errors="surrogateescape")).hexdigest())
    return found
