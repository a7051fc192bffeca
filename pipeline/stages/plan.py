"""Find the shards of an input and cut them into units.

The cut depends on the shard's content and --unit-images alone. Tar shards are walked header by header; nothing
but headers is read. Where a tar is damaged the walk ends with one more image, so that the loss is recorded.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import PurePosixPath
from typing import BinaryIO

from pipeline import store
from pipeline.images import is_image_name
from pipeline.records import Address, Kind, Unit
from pipeline.stages.failure import message
from pipeline.stages.tar import DamagedTar, walk

SUFFIXES: dict[str, Kind] = {".tar": "tar", ".parquet": "parquet"}
# Names and first bytes of tars that can not be read in place.
COMPRESSED = (".tgz", ".tbz2", ".txz", *(f".tar.{kind}" for kind in ("gz", "bz2", "xz", "zst", "lz4", "z")))
MAGIC = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18")
# Rows of nulls take no room in a file, their addresses do.
MOST_ROWS = 4_000_000

# Images of a unit, and the bytes of the tar that hold them.
Cut = tuple[tuple[Address, ...], tuple[int, int]]


class InputError(ValueError):
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


def list_input(uri: str, kind: str) -> tuple[Kind, list[store.Entry]]:
    """The input's kind and its files, sorted by path. Raises InputError when it holds nothing to restore."""
    entries = store.list_files(uri)
    by_kind: dict[Kind, list[store.Entry]] = {"folder": [], "tar": [], "parquet": []}
    for entry in entries:
        suffix = PurePosixPath(entry.path).suffix.lower()
        if suffix in SUFFIXES or entry.path.lower().endswith(COMPRESSED):
            by_kind[SUFFIXES.get(suffix, "tar")].append(entry)
        elif is_image_name(entry.path):
            by_kind["folder"].append(entry)
    present = [k for k, found in by_kind.items() if found]
    if kind != "auto":
        present = [k for k in present if k == kind]
    if not present:
        wanted = "image files, .tar or .parquet shards" if kind == "auto" else f"an input of kind {kind}"
        raise InputError(f"{wanted} wanted, but {uri} holds {len(entries)} files and none of them is one")
    if len(present) > 1:
        counts = ", ".join(f"{len(by_kind[k])} of kind {k}" for k in present)
        raise InputError(f"{uri} holds {counts}; choose one with --kind")
    compressed = [e for e in by_kind[present[0]] if e.path.lower().endswith(COMPRESSED)]
    if compressed:
        raise InputError(_unpack_first(compressed[0].uri))
    return present[0], by_kind[present[0]]


def _unpack_first(uri: str) -> str:
    return (
        f"{uri} is compressed, plain tar shards are wanted, because they are read in place; unpack it to .tar"
    )


def make_shards(
    kind: Kind, entries: list[store.Entry], shard_images: int, planned: Iterable[Shard] = ()
) -> list[Shard]:
    """Shards of the entries that no planned shard holds yet, after the planned ones.

    A folder's images are grouped by sorted path; images that came later form further shards, so that the cut of
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
    stem = path[: -len(PurePosixPath(path).suffix)].replace("/", "--")
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in stem)
    if safe == stem and "--" not in PurePosixPath(path).stem:
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


def _cut_tar(shard: Shard, unit_images: int) -> list[Unit]:
    """Units of whole samples: an image and its sidecars (same name up to the first dot) stay together."""
    file = shard.files[0]
    cuts: list[Cut] = []
    images: list[Address] = []
    begin = 0
    with store.open_read(file.uri) as source:
        if source.read(8).startswith(MAGIC):
            raise InputError(_unpack_first(file.uri))
        for _, group in groupby(_members(source, file), key=lambda m: m[0]):
            sample = list(group)
            found = [address for _, _, address in sample if address is not None]
            if images and len(images) + len(found) > unit_images:
                cuts.append((tuple(images), (begin, sample[0][1])))
                images, begin = [], sample[0][1]
            images += found
    cuts.append((tuple(images), (begin, file.size)))
    return _numbered(shard, cuts, file.uri)


def _members(source: BinaryIO, file: store.Entry) -> Iterator[tuple[str, int, Address | None]]:
    """Of each member its sample, where it begins, and its address where it is an image."""
    try:
        for member in walk(source, 0, file.size):
            name, length = member.info.name, 0 if member.refused else member.info.size
            address = Address(name, file.uri, member.info.offset_data, length, member.refused)
            yield sample_key(name), member.begin, address if is_image_name(name) else None
    except DamagedTar as error:
        if not error.offset:
            raise InputError(f"{file.uri} is no readable tar file: {error}") from error
        name, place = f"(damaged at byte {error.offset}: {error})", error.offset
        yield name, place, Address(name, file.uri, place, 0, "damaged shard")


def sample_key(name: str) -> str:
    """The WebDataset key of a member: its path up to the first dot of the file name."""
    path = PurePosixPath(name)
    return str(path.parent / path.name.split(".", 1)[0])
