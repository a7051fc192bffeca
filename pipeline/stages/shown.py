"""Faces of a unit for people to look at, cut out of its pictures while these are pasted."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from pipeline.faces.geometry import CropFrame
from pipeline.io.images import decode_rgb, encode_png
from pipeline.io.units import Unit
from pipeline.records.rows import FaceRecord, ImageRecord, Row, crop_sides, unpack, unpack_maps, with_crops
from pipeline.reporting.text import printable
from pipeline.stages.ladder import NON_FINITE
from pipeline.stages.sample import Sample, cut_sample
from pipeline.stages.tiles import panels_name, review_panels, review_tile, tile_name

Pixels = NDArray[np.uint8]


class Shown:
    """Collects some faces for the contact sheet and, where there is a review, all of them for its page."""

    def __init__(
        self,
        frame: CropFrame,
        records: Sequence[ImageRecord],
        faces: Sequence[FaceRecord],
        chosen: Sequence[int],
        max_pixels: int,
        review: bool,
    ) -> None:
        """chosen: indices of those for the contact sheet, among the faces that have crops."""
        self._names = [printable(r.member).rsplit("/", 1)[-1] for r in records]
        self._faces = with_crops(faces)
        self._frame, self._chosen, self._max_pixels, self._review = frame, set(chosen), max_pixels, review
        self.samples: list[Sample] = []
        # by the face's index among those that have crops
        self._tiles: dict[int, bytes] = {}

    def take(self, place: int, before: bytes, delivered: bytes) -> None:
        """Cut the faces of this picture out of its bytes and of those that are delivered."""
        wanted = [
            (i, face)
            for i, face in enumerate(self._faces)
            if face.image == place and (self._review or i in self._chosen)
        ]
        if not wanted:
            return
        with suppress(ValueError, OSError):  # what can not be decoded again is not shown
            there = decode_rgb(before, self._max_pixels)
            # what is delivered may be larger than what is taken in
            after = there if delivered == before else decode_rgb(delivered, 16 * self._max_pixels)
            for i, face in wanted:
                if i in self._chosen:
                    self.samples.append(cut_sample(there, after, face, self._frame, self._names[place]))
                if self._review and not face.error:
                    self._tiles[i] = review_tile(there, after, face, self._frame)

    def files(
        self,
        unit: Unit,
        faces: Sequence[FaceRecord],
        came: Sequence[Pixels],
        restored: Sequence[Pixels],
        tried: Mapping[int, Sequence[Pixels]],
        spreads: Mapping[int, Pixels],
    ) -> Iterator[tuple[str, bytes]]:
        """Path and bytes of each picture for the review page.

        came, restored: [S, S, 3] each, the crops. By a face's index among these: tried: what several treatments made of
        it; spreads: [S, S], how far its samples differ.
        """
        if not self._review:
            return
        for i, face in enumerate(with_crops(faces)):
            if i in self._tiles:
                yield f"{unit.tiles_folder}/{tile_name(face.image, face.face)}", self._tiles[i]
                if i in tried or i in spreads:
                    panels = [came[i], *tried.get(i, [restored[i]])]
                    panels += [np.repeat(spreads[i][..., None], 3, axis=2)] if i in spreads else []
                    path = f"{unit.tiles_folder}/{panels_name(face.image, face.face)}"
                    yield path, review_panels(panels)


def crop_files(
    unit: Unit,
    faces: Sequence[FaceRecord],
    before: Sequence[Pixels],
    after: Sequence[Pixels],
    spreads: Mapping[int, Pixels],
    save_faces: bool,
) -> Iterator[tuple[str, bytes]]:
    """Path and bytes of the aligned crops, when they are wanted, and of how far the samples of each face differ."""
    for i, face in enumerate(with_crops(faces)):
        stem = f"{unit.faces_folder}/{face.image:04d}-{face.face:02d}"
        if save_faces:
            yield f"{stem}-before.png", encode_png(before[i])
            yield f"{stem}-after.png", encode_png(after[i])
        if i in spreads:
            yield f"{stem}-spread.png", encode_png(spreads[i])


def spread_maps(faces: Sequence[FaceRecord], row: Row, side: int) -> dict[int, Pixels]:
    """The map of each face that has several samples, [S, S], by its index among the faces that have crops.

    side: the preset's.
    """
    if not row.get("spreads"):
        return {}
    every = zip(with_crops(faces), unpack_maps(row["spreads"], crop_sides(faces, side)), strict=True)
    return {i: spread for i, (face, spread) in enumerate(every) if face.spread is not None}


def tried_crops(faces: Sequence[FaceRecord], data: bytes, side: int) -> dict[int, list[Pixels]]:
    """What several treatments made of a face, [S, S, 3] each, by its index among the faces that have crops.

    data: of all such faces in their order, as `pack` makes it. side: the preset's.
    """
    counts = [sum(tried.get("failed") != NON_FINITE for tried in face.tried) for face in with_crops(faces)]
    owners = [i for i, count in enumerate(counts) if count > 1 for _ in range(count)]
    sides = crop_sides(faces, side)
    found: dict[int, list[Pixels]] = {}
    for i, crop in zip(owners, unpack(data, [sides[i] for i in owners]), strict=True):
        found.setdefault(i, []).append(crop)
    return found
