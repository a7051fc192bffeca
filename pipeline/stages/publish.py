"""Write what a unit delivers, then its marker: whole pictures or shards, records, samples, and last the mark.

Names depend on the unit alone and contents on the unit and the settings alone, so that writing twice is harmless. Of
several that finish the same unit, one makes its marker, and the others pass that one on. Every write is fenced: a
worker whose run does not own the output any more writes nothing (pipeline/io/fence.py).
"""

import hashlib
import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.diffusion.task import BLIND, Task
from pipeline.faces.geometry import CropFrame
from pipeline.io import layout, store
from pipeline.io.delivered import UNREADABLE
from pipeline.io.errors import message, outline
from pipeline.io.face_list import NO_FACES, FaceList
from pipeline.io.fence import Fenced, RunFence
from pipeline.io.images import Into, Picture, SkippedImage
from pipeline.io.masks import Hole
from pipeline.io.readers import read_unit
from pipeline.io.s3 import LARGEST_CLAIM
from pipeline.io.tar_parts import Replacement
from pipeline.io.units import Address, Unit
from pipeline.records.marker import Marker, Output
from pipeline.records.rows import (
    KEPT,
    LEFT_TEXTS,
    FaceRecord,
    ImageRecord,
    Row,
    crop_sides,
    load_faces,
    load_features,
    load_images,
    unpack,
    with_crops,
)
from pipeline.records.run_file import RunFile
from pipeline.records.verdicts import BadVerdicts, digest
from pipeline.stages.background import Background, NotEnhanced
from pipeline.stages.holes import holes_of
from pipeline.stages.isolate import call_apart
from pipeline.stages.label import Labelled, LabelPictures
from pipeline.stages.names import check_name, check_unconverted
from pipeline.stages.paste import paste_faces, paste_on_enhanced
from pipeline.stages.record import make_marker, record_table
from pipeline.stages.sample import choose_samples, sample_strip
from pipeline.stages.shard import parquet_shard, tar_shard
from pipeline.stages.shown import Shown, crop_files, spread_maps, tried_crops
from pipeline.stages.verdicts import Carried, UnitVerdicts, load_verdicts

# Why a face is left whose very pixels are wanted, whatever its neighbours become.
UNTOUCHED = frozenset({"named", "rejected"})
# Reasons of images that are not delivered, because there is nothing to deliver or no place for it.
NOT_DELIVERED = frozenset({"unreadable", "too many bytes", "name refused", "damaged shard"})


class Pasted(NamedTuple):
    """What is delivered for an image."""

    address: Address
    # None: there is nothing to deliver
    data: bytes | None
    # the label of a file that carries none
    sidecar: bytes | None = None
    # its name where it is delivered as another kind; None where that is its own
    name: str | None = None


@dataclass(frozen=True)
class Publish:
    """Row with `restored` → tiny row with `unit` and `marker`, or `undelivered`: why nothing could be written."""

    output: str
    frame: CropFrame
    image_column: str
    aligned: bool
    keep_detail: float | None
    max_pixels: int
    save_faces: bool
    # columns of the records that are the same for every row: eta, seed, model_sha256
    settings: dict[str, int | float | str]
    # what the faces are restored on, for the marker: results are equal bit for bit on one device type
    device: str = ""
    # add the change of each crop to the picture, instead of laying the crop over it
    pastes_change: bool = False
    # paste each picture in a process of its own: the unit has killed workers
    careful: bool = False
    task: Task = BLIND
    # where pictures have holes, as --mask
    mask: str | None = None
    # columns of the records that were measured besides
    measured: tuple[str, ...] = ()
    # enhances pictures around their faces, those without any, too
    background: Background | None = None
    # write pictures of the faces for the review page
    review: bool = True
    # whose regions keep their pixels, whether a face is found there or not
    never: FaceList = NO_FACES
    # what says in a picture that it was restored; None: nothing does
    label: LabelPictures | None = None
    # what pictures become that can not be written back, as --convert
    into: Into = "none"

    def __call__(self, row: Row) -> Row:
        if row.get("restored") is None:
            return row  # not begun
        unit = Unit.from_json(row["work"])
        try:
            earlier = self._marker(unit)
            verdicts = UnitVerdicts.from_json(row.get("verdicts"))
            if unit.attempts > 1 and digest(load_verdicts(self.output, unit.name)) != verdicts.digest:
                return {
                    "unit": unit.name,
                    "undelivered": "verdicts on its faces were given since it was begun",
                }
            done = earlier is not None and earlier.verdicts == verdicts.digest
            if earlier is not None and done and earlier.attempts >= unit.attempts:
                marker = earlier  # somebody was first
            else:
                marker = self._finish(unit, row, earlier, verdicts)
        except (store.StoreError, BadVerdicts) as error:  # the unit is not done; the next start does it again
            return {"unit": unit.name, "undelivered": message(error)}
        return {"unit": unit.name, "marker": marker.to_json()}

    def _marker(self, unit: Unit) -> Marker | None:
        """The unit's marker, where it has one of its own run that can be read."""
        uri = store.join(self.output, unit.marker_path)
        if not store.exists(uri):
            return None
        with suppress(ValueError, KeyError, TypeError, AttributeError):
            marker = Marker.from_json(store.read_bytes(uri))
            if marker.run == unit.run and isinstance(marker.attempts, int):
                return marker
        return None

    def _finish(self, unit: Unit, row: Row, earlier: Marker | None, verdicts: UnitVerdicts) -> Marker:
        """Deliver the unit and make its marker, in the place of that of an earlier attempt; the marker that counts."""
        began = time.monotonic()
        records, faces = load_images(row), load_faces(row)
        sides = crop_sides(faces, self.frame.side)
        before, after = (unpack(row[c], sides) for c in ("crops", "restored"))
        carried = self._carried(unit, records, earlier)
        shown = Shown(self.frame, records, faces, choose_samples(before), self.max_pixels, self.review)
        kept = {} if carried is None or unit.kind == "folder" else self._carried_pictures(unit, carried)
        pasted = self.pasted(unit, records, faces, before, after, shown.take, kept)
        outputs = self._deliver(unit, records, pasted, earlier.sha256 if earlier else {})
        if shown.samples:
            outputs.append(self._write(unit, unit.sample_path, sample_strip(shown.samples)))
        tried = tried_crops(faces, row.get("rungs") or b"", self.frame.side)
        spreads = spread_maps(faces, row, self.frame.side)
        extras = chain(
            crop_files(unit, faces, before, after, spreads, self.save_faces),
            shown.files(unit, faces, before, after, tried, spreads),
        )
        outputs += [self._write(unit, path, data) for path, data in extras]
        sums = json.loads(row["sums"]) | {"seconds_paste": time.monotonic() - began}
        environment = json.loads(row.get("environment") or "{}")
        features = load_features(row)
        if carried is not None:
            outputs += carried.outputs(unit, {output.path for output in outputs})
            features = carried.with_features(faces, features)
            faces = carried.with_faces(records, faces, verdicts)
            sums, environment = carried.with_sums(sums), carried.with_environment(environment)
        table = record_table(unit, records, faces, self.settings, self.measured, features)
        outputs.append(self._write(unit, unit.records_path, table))
        said = (verdicts.digest, verdicts.digest_by_place)
        marker = make_marker(
            unit, records, faces, sums, outputs, self.measured, self.device, environment, said
        )
        return self._mark(unit, marker, earlier)

    def _mark(self, unit: Unit, marker: Marker, earlier: Marker | None) -> Marker:
        """Write the unit's marker in the place of that of an earlier attempt; the marker that counts."""
        owned = RunFence(self.output, unit.run, RunFile.identity)
        for left in (earlier.sha256.keys() if earlier else set()) - marker.sha256.keys():
            owned.delete(left)
        if not owned.holds():
            raise Fenced(f"unit {unit.name} is not marked as done: the output belongs to another run since")
        uri, body = store.join(self.output, unit.marker_path), marker.to_json().encode()
        # a marker of thousands of crops may be more than one put can claim
        if len(body) > LARGEST_CLAIM or not store.create_bytes(uri, body):
            theirs = self._marker(unit)
            is_ours = theirs is not None and theirs.verdicts == marker.verdicts
            if theirs is not None and is_ours and theirs.attempts >= unit.attempts:
                return theirs
            owned.write(unit.marker_path, body)
        return marker

    def _carried(self, unit: Unit, records: Sequence[ImageRecord], earlier: Marker | None) -> Carried | None:
        """What stays as the unit delivered it before; None where nothing does. Raises StoreError."""
        places = [place for place, record in enumerate(records) if record.carried]
        if not places:
            return None
        if earlier is None:
            raise store.StoreError(f"{unit.name}: the marker of what it delivered before is gone")
        return Carried.read(self.output, unit, places, earlier, self.measured)

    def _carried_pictures(self, unit: Unit, carried: Carried) -> dict[int, Replacement]:
        """The pictures of a shard that stay as they were delivered, by place. Raises StoreError."""
        try:
            found = carried.pictures(self.output, unit, self.image_column)
            return {place: Replacement(data, carried.images[place].delivered) for place, data in found}
        except UNREADABLE as error:
            raise store.StoreError(f"{unit.shard_path} changed while its unit was done again") from error

    def pasted(
        self,
        unit: Unit,
        records: list[ImageRecord],
        faces: list[FaceRecord],
        before: Sequence[NDArray[np.uint8]],
        after: Sequence[NDArray[np.uint8]],
        show: Callable[[int, bytes, bytes], None] | None = None,
        carried: Mapping[int, Replacement] | None = None,
    ) -> Iterator[Pasted]:
        """What is delivered for each image, settling its record.

        show: is given the place of each picture with faces, its bytes, and those that are delivered. carried: what was
        delivered before for pictures of a shard that stay.
        """
        wanted_images = tuple(a for a, r in zip(unit.images, records, strict=True) if not r.carried)
        read = read_unit(replace(unit, images=wanted_images), self.image_column, self.max_pixels)
        for i, there in enumerate(unit.images):
            record = records[i]
            if record.carried:
                stays = (carried or {}).get(i, Replacement(None))
                yield Pasted(there, stays.data, name=stays.name)
                continue
            address, data = next(read)
            mine = [(f, before[j], after[j]) for j, f in enumerate(with_crops(faces)) if f.image == i]
            kept = [f for f in faces if f.image == i and not f.has_crop]
            if isinstance(data, store.StoreError):
                if record.outcome is None:
                    record.settle("failed", "unreadable", "paste", message(data), outline(data))
                yield Pasted(address, None)
                continue
            find = None
            if self.mask:
                find = partial(_find_holes, self.mask, address, replace(unit, images=()), self.max_pixels)
            wanted = record.outcome is None or (self.background is not None and record.without_restoration)
            done = Labelled(data)
            if wanted:
                beside = unit.kind == "folder" and layout.has_sidecar(address.member)
                free = partial(check_name, unit, address)
                done = self._paste_one(record, data, mine, kept, find, beside, free)
            if show is not None and mine:
                show(i, data, done.data)
            yield Pasted(address, done.data, done.sidecar, record.delivered)

    def _paste_one(
        self,
        record: ImageRecord,
        data: bytes,
        faces: list[tuple[FaceRecord, NDArray[np.uint8], NDArray[np.uint8]]],
        kept: list[FaceRecord],
        find: Callable[[Picture], Hole] | None,
        beside: bool,
        check_name: Callable[[str], None],
    ) -> Labelled:
        """The restored picture with its label; where that fails, the original bytes and a record that says so.

        One without faces to restore keeps its outcome. check_name: raises SkippedImage where the name that a converted
        picture would have is that of another.
        """
        broken = [f for f, _, _ in faces if f.error]
        gained = [face for face in faces if not face[0].kept]
        if faces and not gained and not broken and record.outcome is None:
            first = faces[0][0]
            reason = LEFT_TEXTS[first.left_for] if first.left_for and first.left_for != "sharp" else KEPT
            record.settle("skipped", reason, "restore", first.kept)
            if self.background is None:
                return Labelled(data)
        if broken:
            record.settle("failed", "face failed", "restore", broken[0].error, broken[0].traceback)
        elif hashlib.sha256(data).hexdigest() != record.sha256:
            record.settle(
                "failed", "changed", "paste", f"{record.member} changed while it was being restored"
            )
        else:
            try:
                # a face that is left stays as it was below a neighbour's change, too
                pasted = faces if self.pastes_change else gained
                kept = kept if self.pastes_change else [*kept, *(f for f, *_ in faces if f.kept)]
                boxes = [f.box for f in (*kept, *(f for f, *_ in faces)) if f.left_for in UNTOUCHED]
                boxes += [list(region) for region in self.never.regions(record.member)]
                untouched = [(box, self.frame.side) for box in boxes]
                how = (self.keep_detail, self.aligned, self.max_pixels, self.pastes_change, self.task, find)
                paste = partial(paste_faces, data, pasted, *how, untouched, self.into)
                if self.background:
                    around = (kept, self.frame.side, self.keep_detail, self.max_pixels, self.background)
                    paste = partial(
                        paste_on_enhanced, data, pasted, *around, self.pastes_change, untouched, self.into
                    )
                restored = call_apart(paste) if self.careful else paste()
                name = record.member + restored.suffix if restored.suffix else None
                if name is not None:
                    check_name(name)
                done = self._labelled(data, restored.data, record, [*kept, *(f for f, *_ in faces)], beside)
            except SkippedImage as error:
                record.settle("skipped", error.reason, "paste", f"{record.member}: {message(error)}")
            except NotEnhanced as error:
                said = f"{record.member}: {message(error)}"
                record.settle("failed", error.reason, "background", said, outline(error))
            except Exception as error:  # one picture's encoder must not take its neighbours along
                said = f"{record.member}: {message(error)}"
                record.settle("failed", type(error).__name__, "paste", said, outline(error))
            else:
                if record.outcome is None:
                    record.settle("restored")
                record.recoded, record.label, record.delivered = restored.recoded, done.where, name
                return done
        return Labelled(data)

    def _labelled(
        self, came: bytes, data: bytes, record: ImageRecord, faces: list[FaceRecord], beside: bool
    ) -> Labelled:
        """What became of a picture with its label, where it is to have one."""
        if self.label is None or data == came:
            return Labelled(data)
        around = store.name_of(self.background.published.file) if self.background else ""
        return self.label(data, record.sha256, faces, around, beside)

    def _deliver(
        self, unit: Unit, records: list[ImageRecord], pasted: Iterator[Pasted], earlier: Collection[str]
    ) -> list[Output]:
        """Write the unit's pictures, one by one or as a shard. earlier: what it delivered before."""
        if unit.kind == "folder":
            pairs = zip(records, pasted, strict=True)
            return [o for record, one in pairs for o in self._picture(unit, record, one, earlier)]
        new = [Replacement(one.data, one.name) for one in pasted]
        try:
            if unit.kind == "tar":
                shard = tar_shard(unit, new, self.max_pixels)
            else:
                shard = parquet_shard(unit, records, new, self.image_column)
        except store.StoreError as error:
            for record in records:
                record.settle("failed", "unreadable", "paste", message(error), outline(error))
            return []
        return [self._write(unit, unit.shard_path, shard)]

    def _picture(
        self, unit: Unit, record: ImageRecord, pasted: Pasted, earlier: Collection[str]
    ) -> list[Output]:
        """One picture of a folder, under its own name; a name that can not be written is its failure."""
        address, data, sidecar, name = pasted
        if data is None:  # or it stays as it was delivered before
            return []
        try:
            # an object store takes such names as they are, and then the picture would lie elsewhere
            if not address.is_path:
                raise store.NameRefused(f"a path below the input was wanted, its name is {address.member!r}")
            path = layout.image_path(name or address.member)
            if self.into != "none" and name is None and path not in earlier:
                check_unconverted(self.output, address, data)
            written = [self._write(unit, path, data)]
        except store.NameRefused as error:
            record.settle("failed", "name refused", "paste", message(error), outline(error))
            return []
        if sidecar is not None:
            written.append(self._write(unit, layout.sidecar_path(address.member), sidecar))
        return written

    def _write(self, unit: Unit, path: str, data: bytes) -> Output:
        RunFence(self.output, unit.run, RunFile.identity).write(path, data)
        return Output(path, hashlib.sha256(data).hexdigest(), len(data))


def _find_holes(choice: str, address: Address, unit: Unit, max_pixels: int, picture: Picture) -> Hole:
    """`holes_of` a picture that comes last."""
    return holes_of(choice, picture, address, unit, max_pixels)
