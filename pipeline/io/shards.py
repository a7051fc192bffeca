"""Find the shards of an input and cut them into units.

The cut depends on the shard's content and --unit-images alone. Tar shards are read header by header; nothing
but headers is read. Where a tar is damaged one more image ends the list, so that the loss is recorded.
"""

import hashlib
import posixpath
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import PurePosixPath
from typing import BinaryIO, NamedTuple

from pipeline import Refusal
from pipeline.io import store
from pipeline.io.errors import message
from pipeline.io.exclusion import is_excluded
from pipeline.io.images import is_image_name
from pipeline.io.names import APPLE_DOUBLE, is_hidden
from pipeline.io.tar import DamagedTar, Member, iter_members, member_at, unpacked_path
from pipeline.io.units import Address, Kind, Unit

SUFFIXES: dict[str, Kind] = {".tar": "tar", ".parquet": "parquet"}
# Names and first bytes of tars that can not be read in place.
COMPRESSED = (".tgz", ".tbz2", ".txz", *(f".tar.{kind}" for kind in ("gz", "bz2", "xz", "zst", "lz4", "z")))
MAGIC = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18")
# Rows of nulls take no space in a file, their addresses do.
MOST_ROWS = 4_000_000
# Folders that can not be looked into are named one by one up to here.
MOST_WARNINGS = 5

# A run is cut into so many units at least, each of at most so many images: enough to keep cores busy and show movement.
FEWEST_UNITS, MOST_IN_UNIT = 16, 64
# What an image of a shard is taken to have, before anything of it is read.
TYPICAL_BYTES = 256 << 10

# The kind of an input, and its files sorted by path
Listing = tuple[Kind, list[store.Entry]]
# Letters of a shard's name; what is made of it gets a few more, and file systems take 255 bytes.
LONGEST_NAME = 120
# Images of a unit, and the bytes of the tar that hold them.
Cut = tuple[tuple[Address, ...], tuple[int, int]]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class InputError(Refusal, ValueError):
    """An input from which no plan can be made; the command exits with code 2."""


@dataclass(frozen=True)
class Shard:
    """One tar or Parquet file, or one virtual shard of a folder of images."""

    name: str
    kind: Kind
    # the files it is made of: one for tar and Parquet, one per image for a folder
    files: tuple[store.Entry, ...]

    @property
    def version(self) -> str:
        """Changes when any of the files does."""
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(f"{file.path}\0{file.size}\0{file.version}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()[:16]


def list_input(
    uri: str, kind: str, exclude: Sequence[str] = (), say: Callable[[str], None] = _say
) -> tuple[Kind, list[store.Entry]]:
    """The input's kind and its files, sorted by path. Raises InputError when it holds nothing to restore.

    exclude: patterns of what is left out, as pipeline/io/exclusion.py takes them. say: is given a line for each of the
    first folders that can not be looked into, and how many more there are; the rest of the input is listed.
    """
    refused: list[store.StoreError] = []
    listed = store.list_files(uri, lambda path: is_excluded(exclude, path), refused.append)
    _say_refused(refused, say)
    entries = sorted((replace(e, path=path_below(e.path)) for e in listed), key=lambda e: e.path)
    by_kind: dict[Kind, list[store.Entry]] = {"folder": [], "tar": [], "parquet": []}
    for entry in entries:
        suffix = PurePosixPath(entry.path).suffix.lower()
        if suffix in SUFFIXES or entry.path.lower().endswith(COMPRESSED):
            by_kind[SUFFIXES.get(suffix, "tar")].append(entry)
        elif is_image_name(entry.path) and not is_hidden(posixpath.dirname(entry.path)):
            by_kind["folder"].append(entry)
    present = [k for k, found in by_kind.items() if found]
    if kind != "auto":
        present = [k for k in present if k == kind]
    if not present:
        wanted = "image files, .tar or .parquet shards" if kind == "auto" else f"an input of kind {kind}"
        beside = f" beside what --exclude {' --exclude '.join(exclude)} leaves out" if exclude else ""
        raise InputError(
            f"{wanted} wanted, but {uri} holds {len(entries)} files{beside} and none of them is one"
        )
    if len(present) > 1:
        counts = ", ".join(f"{len(by_kind[k])} of kind {k}" for k in present)
        raise InputError(f"{uri} holds {counts}; choose one with --kind")
    compressed = [e for e in by_kind[present[0]] if e.path.lower().endswith(COMPRESSED)]
    if compressed:
        raise InputError(_unpack_first(compressed[0].uri))
    return present[0], by_kind[present[0]]


def fitting_unit(kind: Kind, entries: Sequence[store.Entry]) -> int:
    """Most images of a unit, by the size of an input alone."""
    images = len(entries) if kind == "folder" else sum(e.size for e in entries) // TYPICAL_BYTES
    return min(max(images // FEWEST_UNITS, 1), MOST_IN_UNIT)


def _say_refused(refused: Sequence[store.StoreError], say: Callable[[str], None]) -> None:
    for error in refused[:MOST_WARNINGS]:
        say(f"warning: {error}; its pictures are left out, --exclude leaves it out without a warning")
    if (more := len(refused) - MOST_WARNINGS) > 0:
        say(f"warning: {more} more folders or files could not be listed and are left out")


def path_below(path: str) -> str:
    """The path under which a file of the input is recorded and delivered: its own, where that is a path.

    Keys of S3 may have parts that no path has (none between two slashes, `.`, `..`). They are replaced by a name made
    from the key up to there, so that `a//b.jpg` and `a/b.jpg` are two pictures.
    """
    parts = path.split("/")
    for place, part in enumerate(parts):
        if part in ("", ".", ".."):
            before = "/".join(path.split("/")[: place + 1]) + "/"
            parts[place] = f"_{hashlib.sha256(before.encode(errors='surrogateescape')).hexdigest()[:8]}"
    return "/".join(parts)


def _unpack_first(uri: str) -> str:
    return (
        f"{uri} is compressed, plain tar shards are wanted, because they are read in place; unpack it to .tar"
    )


def make_shards(
    kind: Kind, entries: list[store.Entry], shard_images: int, planned: Iterable[Shard] = ()
) -> list[Shard]:
    """Shards of the entries that no planned shard holds yet, after the planned ones.

    A folder's images are grouped by sorted path; images added later form further shards, so that the cut of
    what was planned before never moves.
    """
    before = list(planned)
    known = {file.path for shard in before for file in shard.files}
    new = [e for e in entries if e.path not in known]
    if kind == "folder":
        groups = [tuple(new[i : i + shard_images]) for i in range(0, len(new), shard_images)]
        return before + [Shard(f"images-{len(before) + i:05d}", kind, g) for i, g in enumerate(groups)]
    return before + [Shard(shard_name(e.path), kind, (e,)) for e in new]


def shard_name(path: str) -> str:
    """A file-name-safe name that is unique for the shard's path."""
    suffix = PurePosixPath(path).suffix
    stem = path[: -len(suffix)].replace("/", "--")
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in stem)
    if safe == stem and "--" not in path and suffix == suffix.lower() and len(safe) <= LONGEST_NAME:
        return safe
    return f"{safe[:80]}-{hashlib.sha256(path.encode(errors='surrogateescape')).hexdigest()[:8]}"


def cut_units(shard: Shard, unit_images: int, image_column: str) -> list[Unit]:
    """The shard's units, in order. Raises InputError when the shard cannot be read as what it is."""
    if shard.kind == "folder":
        return _cut_folder(shard, unit_images)
    if shard.kind == "tar":
        return _cut_tar(shard, unit_images)
    return _cut_parquet(shard, unit_images, image_column)


def _numbered(shard: Shard, cuts: list[Cut], source: str) -> list[Unit]:
    last = len(cuts) - 1
    return [
        Unit(shard.name, shard.kind, part, part == last, images, source, span)
        for part, (images, span) in enumerate(cuts)
    ]


def _cut_folder(shard: Shard, unit_images: int) -> list[Unit]:
    return cut_pictures(shard, [Address(e.path, e.uri, 0, e.size) for e in shard.files], unit_images)


def cut_pictures(shard: Shard, images: Sequence[Address], unit_images: int) -> list[Unit]:
    """Units of pictures that are delivered one by one, wherever they lie."""
    cuts = [tuple(images[i : i + unit_images]) for i in range(0, len(images), unit_images)]
    return _numbered(shard, [(c, (0, 0)) for c in cuts], source="")


def _cut_parquet(shard: Shard, unit_images: int, image_column: str) -> list[Unit]:
    import pyarrow.parquet as pq

    file = shard.files[0]
    try:
        with store.open_read(file.uri) as source:
            parquet = pq.ParquetFile(source)
            columns, rows = parquet.schema_arrow.names, parquet.metadata.num_rows
    except store.StoreError:
        raise
    except Exception as error:  # pyarrow's errors share no ancestor
        raise InputError(f"{file.uri} is no readable Parquet file: {message(error)}") from error
    if columns.count(image_column) != 1:
        has = "no column" if image_column not in columns else "more than one column"
        raise InputError(
            f"{file.uri} has {has} {image_column!r} (it has {columns}); name it with --image-column"
        )
    if not 0 <= rows <= MOST_ROWS:
        raise InputError(f"{file.uri} has {rows} rows, at most {MOST_ROWS} are taken in one file; split it")
    images = [Address(str(row), file.uri, row, 0) for row in range(rows)]
    cuts = [tuple(images[i : i + unit_images]) for i in range(0, rows, unit_images)] or [()]
    return _numbered(shard, [(c, (0, 0)) for c in cuts], file.uri)


class _Place(NamedTuple):
    """One member of a tar, as far as it decides about the cut."""

    # its sample's, and where its header begins
    key: str
    begin: int
    # where it is a picture
    image: Address | None
    # of a hard link that is not planned as a picture: where its target's header begins; -1 for all others
    target: int = -1


def _cut_tar(shard: Shard, unit_images: int) -> list[Unit]:
    """Units of whole samples: an image and its sidecars (same name up to the first dot) stay together."""
    file = shard.files[0]
    cuts: list[Cut] = []
    images: list[Address] = []
    links: list[tuple[int, int]] = []
    begin = 0
    with store.open_read(file.uri) as source:
        if source.read(8).startswith(MAGIC):
            raise InputError(_unpack_first(file.uri))
        for _, group in groupby(_members(source, file), key=lambda m: m.key):
            sample = list(group)
            found = [place.image for place in sample if place.image is not None]
            links += [(place.begin, place.target) for place in sample if place.target >= 0]
            if images and len(images) + len(found) > unit_images:
                cuts.append((tuple(images), (begin, sample[0].begin)))
                images, begin = [], sample[0].begin
            images += found
    cuts.append((tuple(images), (begin, file.size)))
    return [_with_links(unit, links) for unit in _numbered(shard, cuts, file.uri)]


def _with_links(unit: Unit, links: Sequence[tuple[int, int]]) -> Unit:
    """The unit with those of its hard links whose targets lie before it."""
    begin, end = unit.span
    return replace(unit, links=tuple(pair for pair in links if pair[1] < begin <= pair[0] < end))


def _members(source: BinaryIO, file: store.Entry) -> Iterator[_Place]:
    """What each member is; the place where the tar is damaged counts as one more image."""
    # where the header begins of what was unpacked last to each path
    there: dict[str, int] = {}
    try:
        for member in iter_members(source, 0, file.size):
            target = _target(source, file.size, there, member)
            there[unpacked_path(member.info.name)] = (target or member).begin
            yield _place(file, member, target)
    except DamagedTar as error:
        if not error.offset:
            raise InputError(f"{file.uri} is no readable tar file: {error}") from error
        name, place = f"(damaged at byte {error.offset}: {error})", error.offset
        yield _Place(name, place, Address(name, file.uri, place, 0, "damaged shard"))


def _target(source: BinaryIO, size: int, there: dict[str, int], member: Member) -> Member | None:
    """The member that a hard link links to; None for all others, and where there is none before it."""
    if not member.is_hard_link:
        return None
    begin = there.get(unpacked_path(member.info.linkname))
    return None if begin is None else member_at(source, begin, size)


def _place(file: store.Entry, member: Member, target: Member | None) -> _Place:
    """What a member is. A hard link to a plain file is a picture as that one is, if its name says so."""
    name, is_image = member.info.name, is_image_name(member.info.name) and not is_hidden(member.info.name)
    # attributes that macOS keeps beside a file stay with it
    folder, last = posixpath.split(name)
    key = sample_key(posixpath.join(folder, last.removeprefix(APPLE_DOUBLE)))
    if is_image and target is not None and not target.refused:
        image = Address(name, file.uri, target.info.offset_data, target.info.size, link=member.begin)
        return _Place(key, member.begin, image)
    length = 0 if member.refused else member.info.size
    address = Address(name, file.uri, member.info.offset_data, length, member.refused)
    return _Place(key, member.begin, address if is_image else None, -1 if target is None else target.begin)


def sample_key(name: str) -> str:
    """The WebDataset key of a member: its path up to the first dot of the file name."""
    path = PurePosixPath(name)
    return str(path.parent / path.name.split(".", 1)[0])
