"""Faces as two runs restored them, cut out of what the runs delivered."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.compare.pairs import Rows, read_record
from pipeline.compare.runs import Compared, Refused
from pipeline.faces.geometry import Resampling, enlarge_crop, warp_crop
from pipeline.io import images, layout, store
from pipeline.io.delivered import UNREADABLE, delivered_picture, is_held
from pipeline.io.readers import load_units, read_unit
from pipeline.io.units import Unit
from pipeline.ledger.output import BROKEN

Pixels = NDArray[np.uint8]
What = Literal["before", "after"]
# of the crops of a run whose file does not say
UNKNOWN_SIDE = 256
# what reading a picture that may be anything, and anywhere, raises
LOST = (*BROKEN, *UNREADABLE, LookupError, images.ImageError, Refused)


@dataclass(frozen=True)
class Face:
    """One face as two runs have it: crops of each run's side, None where there is none to be had."""

    member: str
    number: int
    before: Pixels | None
    a: Pixels | None
    b: Pixels | None
    # the pair it was made of
    pair: Any

    @property
    def distance(self) -> float:
        """Mean absolute difference of the two restorations, 0..255; NaN where one is missing."""
        if self.a is None or self.b is None:
            return float("nan")
        side = min(len(self.a), len(self.b))
        a, b = (images.resize(c, side) if len(c) > side else c for c in (self.a, self.b))
        return float(np.abs(a.astype(np.int16) - b).mean())


class Cutter:
    """Cuts faces of one run. Keeps the last records, plan and picture, as faces of one picture come together.

    saved: take the crops of --save-faces, which are the network's own; else cut the delivered picture, in which they
    are pasted.
    """

    def __init__(self, compared: Compared, saved: bool) -> None:
        self._compared, self._saved = compared, saved
        self._side = compared.side or UNKNOWN_SIDE
        crop = compared.run.repeat.get("preset", {}).get("crop") or {}
        self._resampling: Resampling = crop.get("resampling", "linear")
        # how many times larger pictures are delivered
        self._times = int((compared.setting("background") or {}).get("upscale", 1))
        self._record: tuple[int, list[dict[str, Any]]] = (-1, [])
        self._plan: tuple[str, list[Unit]] = ("", [])
        self._picture: tuple[object, Pixels | None] = (None, None)

    def record(self, file: int, row: int) -> dict[str, Any]:
        """The record of a face."""
        return self._rows(file)[row]

    def cut(self, file: int, row: int, what: What) -> Pixels | None:
        """[S, S, 3] uint8 RGB; None where the picture is gone, changed or damaged."""
        try:
            face, place = self._rows(file)[row], self._place(file, row)
            if self._saved:
                folder = layout.faces_folder(self._compared.units[file])
                path = f"{folder}/{place:04d}-{face['face']:02d}-{what}.png"
                return images.decode_rgb(store.read_bytes(store.join(self._compared.run.output, path)))
            picture = self._whole(file, place, what)
        except LOST:
            return None
        if picture is None:
            return None
        times, side = self._times if what == "after" else 1, face.get("side") or self._side
        if picture.shape[:2] != (face["height"] * times, face["width"] * times):
            # a face that was to be enlarged is delivered as it came out of the chain
            return images.resize(picture, side)
        to_crop = np.array(face["affine"]).reshape(2, 3)
        return warp_crop(picture, enlarge_crop(to_crop, times), side, self._resampling)

    def _rows(self, file: int) -> list[dict[str, Any]]:
        if self._record[0] != file:
            self._record = file, read_record(self._compared, file)
        return self._record[1]

    def _place(self, file: int, row: int) -> int:
        """Number of the row's image in its unit."""
        return [r["kind"] for r in self._rows(file)[: row + 1]].count("image") - 1

    def _whole(self, file: int, place: int, what: What) -> Pixels | None:
        """The picture that a face lies in."""
        key = (file, place, what)
        if self._picture[0] != key:
            self._picture = key, None
            self._picture = key, self._read(file, place, what)
        return self._picture[1]

    def _read(self, file: int, place: int, what: What) -> Pixels | None:
        run, unit = self._compared.run, self._unit(file)
        single = replace(unit, images=(unit.images[place],))
        records = [r for r in self._rows(file) if r["kind"] == "image"]
        if what == "after":
            held = zip(unit.images[:place], records, strict=False)
            number = sum(is_held(address, record) for address, record in held)
            data: Any = delivered_picture(run.output, single, number, run.image_column, records[place])
            most = run.max_pixels * self._times**2
        else:
            most = run.max_pixels
            [(_, data)] = read_unit(single, run.image_column, run.max_pixels)
            if isinstance(data, store.StoreError):
                raise data
            if hashlib.sha256(data).hexdigest() != records[place]["sha256"]:
                return None
        return images.decode_rgb(data, most)

    def _unit(self, file: int) -> Unit:
        name, shard = self._compared.units[file], self._compared.shards[file]
        if self._plan[0] != shard:
            self._plan = shard, load_units(store.join(self._compared.run.output, layout.plan_path(shard)))
        return next(u for u in self._plan[1] if u.name == name)


def cut_faces(a: Compared, b: Compared, pairs: Rows | Sequence[Any]) -> list[Face]:
    """The faces of these pairs. The picture as it came is A's where A still has it, else B's."""
    saved = both_saved(a, b)
    cut_a, cut_b = Cutter(a, saved), Cutter(b, saved)
    faces = []
    for pair in pairs:
        at_a = int(pair["file_a"]), int(pair["row_a"])
        at_b = int(pair["file_b"]), int(pair["row_b"])
        record = cut_b.record(*at_b)
        before = cut_a.cut(*at_a, "before")
        if before is None:
            before = cut_b.cut(*at_b, "before")
        after = cut_a.cut(*at_a, "after"), cut_b.cut(*at_b, "after")
        faces.append(Face(str(record["member"]), int(record["face"]), before, *after, pair))
    return faces


def both_saved(a: Compared, b: Compared) -> bool:
    """Whether both runs kept their crops; crops and cuts of pictures do not compare."""
    return bool(a.setting("save_faces") and b.setting("save_faces"))
