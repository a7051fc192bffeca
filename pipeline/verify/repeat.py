"""Restore delivered pictures again from their originals, in other batches, and compare with the run's output.

The stages of the run are used, in this process: read & align, one engine, paste. Half of the pictures pass through the
engine one by one, the others several at a time.
"""

import io
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.io import images, layout, store
from pipeline.io.delivered import UNREADABLE, delivered_name, delivered_picture
from pipeline.io.prefetch import ahead
from pipeline.io.readers import read_unit
from pipeline.io.tables import read_table
from pipeline.ledger.findings import Finding, redoable
from pipeline.records.marker import environment_text
from pipeline.records.rows import ImageRecord, Row, crop_sides, load_faces, load_images, unpack
from pipeline.stages.align import ReadAndAlign
from pipeline.stages.publish import Publish
from pipeline.stages.record import ADDED_LATER, record_table, storable
from pipeline.verify.unit import Candidate

# In the run's environment (networks/environment.py) the bytes must be equal. On another processor, or with other
# libraries, rounding differs: the root mean square of the difference, over the pixels changed by restoration, may reach
# this many of 255 levels. Measured on a CPU with the small presets: other float32 kernels give up to 0.1, networks in
# bfloat16 up to 1.2, another seed 5 and more.
TOLERANCE = 2.0
# Pictures restored concurrently in the second half.
MIXED = 4

Same = Literal["bits", "tolerance", "no"]


@dataclass(frozen=True)
class Compared:
    """One picture restored again."""

    unit: str
    member: str
    same: Same
    # root mean square difference in levels over the pixels changed by restoration; None where nothing was compared
    difference: float | None
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Repeat:
    """Restores candidates again. `restore` is a RestoreFaces, which is thread-safe."""

    read: ReadAndAlign
    restore: Callable[[Row], Row]
    publish: Publish
    # device type of `restore`: cpu, cuda; and what else the bits depend on (networks/environment.py)
    device: str
    environment: Mapping[str, str] = field(default_factory=dict)

    def compare_all(self, candidates: Sequence[Candidate]) -> Iterator[Compared]:
        """Every candidate compared: the first half one by one, the rest concurrently."""
        lock = threading.Lock()
        half = len(candidates) // 2
        for candidate in candidates[:half]:
            yield self.compare(candidate, lock)
        with ThreadPoolExecutor(MIXED) as pool:
            yield from ahead(pool, (partial(self.compare, c, lock) for c in candidates[half:]), MIXED)

    def compare(self, candidate: Candidate, lock: threading.Lock) -> Compared:
        """The candidate restored again and compared. The lock guards reading: detectors are not thread-safe."""
        unit = candidate.unit
        member = storable(unit.images[0].member)
        with lock:
            said = candidate.verdicts.to_json()
            row = self.read({"unit": unit.name, "work": unit.to_json(), "verdicts": said})
        gone = _input_changed(candidate, load_images(row)[0])
        if gone:
            return Compared(unit.name, member, "no", None, (gone,))
        row = self.restore(row)
        records, faces = load_images(row), load_faces(row)
        sides = crop_sides(faces, self.publish.frame.side)
        before, after = (unpack(row[c], sides) for c in ("crops", "restored"))
        [one] = self.publish.pasted(unit, records, faces, before, after)
        again = one.data
        try:
            delivered = delivered_picture(
                self.publish.output,
                unit,
                candidate.place,
                self.publish.image_column,
                candidate.rows[0],
            )
        except (store.StoreError, LookupError, *UNREADABLE) as error:
            return self._differs(candidate, f"the delivered picture cannot be read ({error})", None)
        if again is None or records[0].outcome != "restored":
            what = f"restored again, its outcome is {records[0].outcome} ({records[0].error})"
            return self._differs(candidate, what, None)
        if again != delivered:
            return self._compare_pixels(candidate, again, delivered)
        table = io.BytesIO(record_table(unit, records, faces, self.publish.settings))
        other = self._other_columns(candidate, table)
        if other:
            what = f"restored again, its picture is the same, but its records differ in {', '.join(other)}"
            return self._differs(candidate, what, 0.0)
        return Compared(unit.name, member, "bits", 0.0)

    def _expects_bits(self, candidate: Candidate) -> bool:
        """Whether the run restored it in this environment; of earlier versions the device type alone is known."""
        if candidate.environment:
            return candidate.environment == self.environment
        return candidate.device in ("", self.device)

    def _other_columns(self, candidate: Candidate, table: io.BytesIO) -> list[str]:
        """The columns of the image's records that differ; none are compared in another environment."""
        rows = read_table(table.getvalue()).to_pylist()
        if not self._expects_bits(candidate):
            return []
        if len(rows) != len(candidate.rows):
            return ["number of faces"]
        pairs = list(zip(candidate.rows, rows, strict=True))
        names = [name for name in rows[0] if name in candidate.rows[0] or name not in ADDED_LATER]
        return [name for name in names if any(a.get(name) != b[name] for a, b in pairs)]

    def _compare_pixels(self, candidate: Candidate, again: bytes, delivered: bytes) -> Compared:
        """The comparison of pictures whose bytes differ."""
        [(_, source)] = read_unit(candidate.unit, self.publish.image_column)
        limit = self.publish.max_pixels
        try:
            if isinstance(source, store.StoreError):
                raise source
            pixels = [images.decode_rgb(data, limit) for data in (again, delivered, source)]
            distance = rms(*pixels)
        except (store.StoreError, ValueError) as error:
            return self._differs(candidate, f"it cannot be compared with its original ({error})", None)
        if not self._expects_bits(candidate) and distance <= TOLERANCE:
            return Compared(
                candidate.unit.name, storable(candidate.unit.images[0].member), "tolerance", distance
            )
        there = environment_text(candidate.environment) or candidate.device
        expected = (
            "expected the same bytes"
            if self._expects_bits(candidate)
            else f"expected at most {TOLERANCE:g} of 255 levels, as it was restored on {there}"
        )
        here = environment_text(self.environment) or self.device
        what = f"{expected}, restored again on {here} it differs by {distance:.2f} levels (root mean square)"
        if distance <= TOLERANCE and not candidate.environment:
            what += "; another processor model may be the cause"
        return self._differs(candidate, what, distance)

    def _differs(self, candidate: Candidate, what: str, distance: float | None) -> Compared:
        unit, member = candidate.unit, candidate.unit.images[0].member
        name = delivered_name(member, candidate.rows[0])
        where = layout.image_path(name) if unit.kind == "folder" else f"{unit.shard_path}: {name}"
        finding = redoable("repeat", where, what, unit.marker_path)
        return Compared(unit.name, storable(member), "no", distance, (finding,))


def _input_changed(candidate: Candidate, record: ImageRecord) -> Finding | None:
    """The finding of an original that differs from the one that the run restored."""
    unit, address, wanted = candidate.unit, candidate.unit.images[0], candidate.rows[0]["sha256"]
    where = address.uri if unit.kind == "folder" else f"{address.uri}: {address.member}"
    elsewhere = "put it back, or restore the new one into another --output"
    if not record.sha256:
        found = f"it cannot be read ({record.error}); put it back, or run from the folder the restore was run from"
    elif record.sha256 != wanted:
        found = f"found {record.sha256[:16]}; {elsewhere}"
    # data appended to a file is not read
    elif unit.kind == "folder" and (size := store.stat(address.uri).size) != address.length:
        found = f"it has grown from {address.length} to {size} bytes; {elsewhere}"
    else:
        return None
    return Finding("input", where, f"{where}: expected the original with sha256 {wanted[:16]}, {found}")


def rms(again: NDArray[np.uint8], delivered: NDArray[np.uint8], original: NDArray[np.uint8]) -> float:
    """Root mean square of `again - delivered` over the pixels where either differs from the original, in levels.

    All are [H, W, 3] uint8. Over all pixels where the original has another size. Raises ValueError when the sizes of
    the first two differ.
    """
    if again.shape != delivered.shape:
        raise ValueError(
            f"its size is {delivered.shape[1]}x{delivered.shape[0]}, not {again.shape[1]}x{again.shape[0]}"
        )
    changed = np.ones(again.shape[:2], bool)
    if original.shape == again.shape:
        changed = ((again != original) | (delivered != original)).any(axis=2)
    if not changed.any():
        return 0.0
    difference = again[changed].astype(np.float64) - delivered[changed]
    return float(np.sqrt(np.square(difference).mean()))
