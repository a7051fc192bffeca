"""The join of two runs face by face, and the statistics of all measurements over the pairs.

A face is identified by the sha256 of its picture and its index in it, wherever the picture is stored. Rows are
partitioned into temporary files by the first digits of the digest, so that memory holds one part at a time. Digests are
random, so that the first pairs in their order are a fair sample.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.compare.paired import Numbers, PairedSums
from pipeline.compare.runs import READERS, Compared, Refused
from pipeline.io import layout, store
from pipeline.io.prefetch import ahead
from pipeline.records.rows import OUTCOMES

# approximate rows per part; maximum number of parts; rows buffered before a write
PART_ROWS, MOST_PARTS, PENDING_ROWS = 200_000, 256, 50_000
# pairs kept for plots, and for each column those that increased and decreased most
SAMPLE, EXTREMES = 20_000, 64
# boxes with an IoU below this are different faces
SAME_BOX = 0.3
# numeric columns that are not measurements: positions, sizes, and settings of the run
NOT_MEASURED = frozenset({"face", "width", "height", "side", "attempts", "eta", "seed"})
NEEDED = ("kind", "sha256", "face", "outcome", "kept", "error", "box")
# above the number of faces of any picture
FACES = 1 << 20

Rows = NDArray[np.void]


def columns_of(compared: Compared) -> list[str]:
    """The measured columns of a run's first and last record tables."""
    import pyarrow as pa

    kinds = (pa.types.is_floating, pa.types.is_integer)
    ends = [read_unit_table(compared, compared.units[i]).schema for i in (0, -1)]
    named = [f.name for schema in ends for f in schema if any(is_a(f.type) for is_a in kinds)]
    return [n for n in dict.fromkeys(named) if n not in NOT_MEASURED]


def read_unit_table(compared: Compared, unit: str, columns: Sequence[str] | None = None) -> Any:
    """A unit's records as a pyarrow Table, with those of the columns that exist. Raises Refused or StoreError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    uri = store.join(compared.run.output, layout.records_path(unit))
    try:
        file = pq.ParquetFile(pa.BufferReader(store.read_bytes(uri)), pre_buffer=False)
        missing = set(NEEDED) - set(file.schema_arrow.names)
        if missing:
            raise ValueError(f"missing columns {', '.join(sorted(missing))}")
        chosen = None if columns is None else [c for c in columns if c in file.schema_arrow.names]
        return file.read(columns=chosen, use_threads=False)
    except (ValueError, OSError) as error:  # pyarrow's errors are among them
        raise Refused(f"{uri}: expected a record table, it cannot be read ({error})") from error


def read_record(compared: Compared, file: int) -> list[dict[str, Any]]:
    """All rows of the records of unit number `file`."""
    rows: list[dict[str, Any]] = read_unit_table(compared, compared.units[file]).to_pylist()
    return rows


def row_type(columns: int) -> np.dtype[np.void]:
    """The dtype of a row of a record table; an image's row has face -1, and no box or values."""
    return np.dtype(
        [
            ("sha256", "S64"),
            ("face", np.int64),
            # position: number of the unit, and of the row in its table
            ("file", np.int64),
            ("row", np.int64),
            # index in OUTCOMES, -1 for an unknown one
            ("outcome", np.int64),
            # a restored face of a restored picture
            ("restored", np.bool_),
            ("box", np.float64, (4,)),
            ("values", np.float64, (columns,)),
        ]
    )


def read_rows(compared: Compared, names: Sequence[str]) -> Iterator[Rows]:
    """The rows of every finished unit, unit by unit."""

    def read(file: int) -> Rows:
        return _as_rows(read_unit_table(compared, compared.units[file], [*NEEDED, *names]), file, names)

    with ThreadPoolExecutor(READERS) as pool:
        yield from ahead(pool, (partial(read, f) for f in range(len(compared.units))), 2 * READERS)


def _as_rows(table: Any, file: int, names: Sequence[str]) -> Rows:
    import pyarrow as pa

    rows = np.zeros(table.num_rows, row_type(len(names)))
    column = {name: table.column(name) for name in table.schema.names}
    rows["sha256"] = [(s or "").encode(errors="replace") for s in column["sha256"].to_pylist()]
    rows["face"] = [-1 if f is None else f for f in column["face"].to_pylist()]
    rows["file"], rows["row"] = file, np.arange(len(rows))
    places = {name: place for place, name in enumerate(OUTCOMES)}
    rows["outcome"] = [places.get(o, -1) for o in column["outcome"].to_pylist()]
    whole = [not kept and not error for kept, error in _zipped(column, "kept", "error")]
    rows["restored"] = np.array(whole, bool) & (rows["face"] >= 0) & (rows["outcome"] == 0)
    rows["box"] = [b if b and len(b) == 4 else [np.nan] * 4 for b in column["box"].to_pylist()]
    rows["values"] = np.nan
    for place, name in enumerate(names):
        if name in column:
            rows["values"][:, place] = column[name].cast(pa.float64()).to_numpy()
    return rows


def _zipped(column: dict[str, Any], *names: str) -> Iterator[tuple[Any, ...]]:
    return zip(*(column[n].to_pylist() for n in names), strict=True)


class Parts:
    """The rows of one run on disk, partitioned by digest range."""

    def __init__(self, folder: Path, count: int, kind: np.dtype[np.void]) -> None:
        self._folder, self._count, self._kind = folder, count, kind
        self._pending: list[Rows] = []
        self._rows = 0
        # images without a digest, because they could not be read
        self.unread = 0

    def add(self, rows: Rows) -> None:
        known = rows["sha256"] != b""
        self.unread += int((~known & (rows["face"] < 0)).sum())
        self._pending.append(rows[known])
        self._rows += len(rows)
        if self._rows >= PENDING_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write the buffered rows."""
        if not self._pending:
            return
        rows = np.concatenate(self._pending)
        part = _first_digits(rows["sha256"]) * self._count >> 16
        for number in np.unique(part):
            with (self._folder / str(number)).open("ab") as file:
                rows[part == number].tofile(file)
        self._pending, self._rows = [], 0

    def read(self, number: int) -> Rows:
        """One part, in the order in which rows were added."""
        path = self._folder / str(number)
        return np.fromfile(path, self._kind) if path.exists() else np.zeros(0, self._kind)


def _first_digits(digests: NDArray[np.bytes_]) -> NDArray[np.int64]:
    """The first four hexadecimal digits as numbers below 65536; any other character counts as 0."""
    value = np.zeros(256, np.int64)
    for digit in b"0123456789abcdef":
        value[digit] = int(chr(digit), 16)
    letters = np.ascontiguousarray(digests).view(np.uint8).reshape(len(digests), 64)[:, :4]
    digits: NDArray[np.int64] = value[letters] @ np.array([4096, 256, 16, 1])
    return digits


@dataclass
class Tally:
    """Numbers of images and faces that were compared, and that could not be."""

    images: int = 0
    faces: int = 0
    # pictures in one run only, and repeated copies of a picture within a run
    images_only: list[int] = field(default_factory=lambda: [0, 0])
    copies: list[int] = field(default_factory=lambda: [0, 0])
    unread: list[int] = field(default_factory=lambda: [0, 0])
    # faces of shared pictures that only one run detected; that only one run restored
    faces_only: list[int] = field(default_factory=lambda: [0, 0])
    restored_only: list[int] = field(default_factory=lambda: [0, 0])
    # faces of the same index with different boxes
    other_faces: int = 0


@dataclass
class Comparison:
    """The sums over all pairs, and a selection of the pairs."""

    names: list[str]
    # of B; the sums are grouped by shard
    shards: list[str]
    tally: Tally
    # of each column, over faces; of each outcome, over images, with 1 for the outcome and 0 for others
    sums: list[PairedSums]
    outcomes: list[PairedSums]
    # images by outcome in A and in B
    moves: NDArray[np.int64]
    # pairs of `pair_type`: the first by digest; by column those that increased and decreased most
    sample: Rows
    rose: list[Rows]
    fell: list[Rows]


def pair_type(columns: int) -> np.dtype[np.void]:
    """The dtype of a face restored by both runs: positions of its two rows, and its values."""
    places = [(f"{what}_{run}", np.int64) for run in "ab" for what in ("file", "row")]
    return np.dtype([*places, ("a", np.float64, (columns,)), ("b", np.float64, (columns,))])


def compare(a: Compared, b: Compared, names: Sequence[str]) -> Comparison:
    """Compare two runs. Raises Refused when they share no image, and as `read_rows`."""
    count = min(max(1, (a.rows + b.rows) // PART_ROWS), MOST_PARTS)
    shards = sorted(set(b.shards))
    numbers = {name: number for number, name in enumerate(shards)}
    shard_of = np.array([numbers[s] for s in b.shards], np.int64)
    with TemporaryDirectory(prefix="difface-compare-") as folder:
        both = [_spill(run, Path(folder, side), count, names) for run, side in ((a, "a"), (b, "b"))]
        joining = _Joining(list(names), shards, shard_of)
        joining.found.tally.unread = [parts.unread for parts in both]
        for number in range(count):
            joining.add(*(parts.read(number) for parts in both))
    tally = joining.found.tally
    if not tally.images:
        raise Refused(
            f"expected runs over the same pictures, the {tally.images_only[0]} of {a.run.output} and the "
            f"{tally.images_only[1]} of {b.run.output} have none in common; compare runs over one archive"
        )
    return joining.found


def _spill(compared: Compared, folder: Path, count: int, names: Sequence[str]) -> Parts:
    folder.mkdir()
    parts = Parts(folder, count, row_type(len(names)))
    for rows in read_rows(compared, names):
        parts.add(rows)
    parts.flush()
    return parts


class _Joining:
    """Builds the comparison, part by part."""

    def __init__(self, names: list[str], shards: list[str], shard_of: NDArray[np.int64]) -> None:
        self._shard_of = shard_of
        no_pairs = np.zeros(0, pair_type(len(names)))
        self.found = Comparison(
            names,
            shards,
            Tally(),
            [PairedSums(len(shards)) for _ in names],
            [PairedSums(len(shards)) for _ in OUTCOMES],
            np.zeros((len(OUTCOMES), len(OUTCOMES)), np.int64),
            no_pairs,
            [no_pairs] * len(names),
            [no_pairs] * len(names),
        )

    def add(self, a: Rows, b: Rows) -> None:
        """Join one part of each run."""
        _, codes = np.unique(np.concatenate([a["sha256"], b["sha256"]]), return_inverse=True)
        image_a, image_b = codes[: len(a)].astype(np.int64), codes[len(a) :].astype(np.int64)
        faces_a, faces_b = a["face"] >= 0, b["face"] >= 0
        shared = self._add_images(a[~faces_a], b[~faces_b], image_a[~faces_a], image_b[~faces_b])
        in_a, in_b = faces_a & np.isin(image_a, shared), faces_b & np.isin(image_b, shared)
        self._add_faces(a[in_a], b[in_b], image_a[in_a], image_b[in_b])

    def _add_images(
        self, a: Rows, b: Rows, image_a: NDArray[np.int64], image_b: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Add the rows of images. Returns the numbers of those in both runs."""
        found, tally = self.found, self.found.tally
        only_a, first_a = np.unique(image_a, return_index=True)
        only_b, first_b = np.unique(image_b, return_index=True)
        shared, at_a, at_b = np.intersect1d(only_a, only_b, assume_unique=True, return_indices=True)
        for run, (every, once) in enumerate(((image_a, only_a), (image_b, only_b))):
            tally.images_only[run] += len(once) - len(shared)
            tally.copies[run] += len(every) - len(once)
        tally.images += len(shared)
        mine, theirs = a[first_a[at_a]], b[first_b[at_b]]
        shard = self._shard_of[theirs["file"]]
        for place in range(len(OUTCOMES)):
            has_a, has_b = ((rows["outcome"] == place).astype(np.float64) for rows in (mine, theirs))
            found.outcomes[place].add(has_a, has_b, shared, shard)
        known = (mine["outcome"] >= 0) & (theirs["outcome"] >= 0)
        np.add.at(found.moves, (mine["outcome"][known], theirs["outcome"][known]), 1)
        return shared

    def _add_faces(self, a: Rows, b: Rows, image_a: NDArray[np.int64], image_b: NDArray[np.int64]) -> None:
        """Add the rows of faces in shared pictures."""
        found, tally = self.found, self.found.tally
        every_a, first_a = np.unique(image_a * FACES + a["face"], return_index=True)
        every_b, first_b = np.unique(image_b * FACES + b["face"], return_index=True)
        key, at_a, at_b = np.intersect1d(every_a, every_b, assume_unique=True, return_indices=True)
        for run, every in enumerate((every_a, every_b)):
            tally.faces_only[run] += len(every) - len(key)
        mine, theirs = a[first_a[at_a]], b[first_b[at_b]]
        same = ~(overlap(mine["box"], theirs["box"]) < SAME_BOX)
        tally.other_faces += int((~same).sum())
        for run, (one, other) in enumerate(((mine, theirs), (theirs, mine))):
            tally.restored_only[run] += int((same & one["restored"] & ~other["restored"]).sum())
        both = same & mine["restored"] & theirs["restored"]
        mine, theirs, image = mine[both], theirs[both], key[both] // FACES
        tally.faces += len(mine)
        shard = self._shard_of[theirs["file"]]
        for place in range(len(found.names)):
            found.sums[place].add(mine["values"][:, place], theirs["values"][:, place], image, shard)
        self._choose(_pairs(mine, theirs))

    def _choose(self, pairs: Rows) -> None:
        """Update the pairs selected for display."""
        found = self.found
        if len(found.sample) < SAMPLE:
            found.sample = np.concatenate([found.sample, pairs[: SAMPLE - len(found.sample)]])
        for place in range(len(found.names)):
            for kept, sign in ((found.rose, 1), (found.fell, -1)):
                kept[place] = _most(np.concatenate([kept[place], _most(pairs, place, sign)]), place, sign)


def _pairs(a: Rows, b: Rows) -> Rows:
    pairs = np.zeros(len(a), pair_type(a["values"].shape[1]))
    for run, rows in (("a", a), ("b", b)):
        pairs[f"file_{run}"], pairs[f"row_{run}"], pairs[run] = rows["file"], rows["row"], rows["values"]
    return pairs


def _most(pairs: Rows, place: int, sign: int) -> Rows:
    """The pairs whose value changed most in the direction of `sign`, largest change first."""
    change = sign * (pairs["b"][:, place] - pairs["a"][:, place])
    order = np.argsort(-np.where(change > 0, change, -np.inf), kind="stable")[:EXTREMES]
    chosen: Rows = pairs[order[change[order] > 0]]
    return chosen


def overlap(a: Numbers, b: Numbers) -> Numbers:
    """[N] IoU of boxes, [N, 4] each as x0, y0, x1, y1; NaN for an unknown box."""
    low, high = np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:])
    common = np.prod(np.maximum(high - low, 0), axis=1)
    areas = [np.prod(np.maximum(box[:, 2:] - box[:, :2], 0), axis=1) for box in (a, b)]
    union = np.maximum(areas[0] + areas[1] - common, 1e-9)
    # np.maximum passes NaN on
    shared: Numbers = common / union
    return shared
