"""Put a picture's restored faces back into the picture it came from."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.diffusion.task import BLIND, Task
from pipeline.faces.canvas import Box, Canvas
from pipeline.faces.geometry import around_box, enlarge_crop
from pipeline.faces.pasting import (
    Edge,
    Pixels,
    add_change,
    change_inside,
    detail_weight,
    leave_untouched,
    paste_face,
    place_crop,
    put_back,
)
from pipeline.io import images
from pipeline.io.masks import Hole
from pipeline.records.rows import FaceRecord
from pipeline.stages.background import Background

Crop = NDArray[np.uint8]
# A 2x3 similarity from the picture to a crop.
Affine = NDArray[np.float64]
# x0, y0, x1, y1 of what keeps the picture's own pixels, and the side of a crop around it that fades them in.
Untouched = tuple[Sequence[float], int]
# Share of the picture's own detail under a face whose task says it: a hole has none, and the luma is all of it.
KEPT_DETAIL = {"inpaint": 0.0, "colourise": 1.0}
# Rows of a picture that are worked on at once as floating point numbers.
ROWS_AT_ONCE = 64


def paste_faces(
    data: bytes,
    faces: Sequence[tuple[FaceRecord, Crop, Crop]],
    keep_detail: float | None,
    aligned: bool,
    max_pixels: int,
    pastes_change: bool = False,
    task: Task = BLIND,
    find: Callable[[images.Picture], Hole] | None = None,
    untouched: Sequence[Untouched] = (),
    into: images.Into = "none",
) -> images.Encoded:
    """The picture's bytes with its faces restored, of the same kind, orientation and metadata.

    faces: each with its crop before and after, [S, S, 3] uint8. The smallest are pasted last, so that a face in
    front of a larger one is not cut by it. pastes_change: the change of each crop is added to the picture, instead of
    the crop being laid over it. find: finds the holes, outside of which nothing changes. untouched: keeps the picture's
    own pixels there, whatever its neighbours become. into: as --convert. A picture that gets colours, or another
    size, is encoded again.
    Raises ImageError, OSError and MemoryError.
    """
    original = images.decode(data, max_pixels, into)
    if task.name == "upscale":
        return images.Encoded(images.encode_anew(original, faces[0][2]), None, original.suffix)
    hole = find(original) if find is not None else None
    keep = KEPT_DETAIL.get(task.name, keep_detail)
    places: list[tuple[Any, int]] = [(f.affine, len(b)) for f, b, _ in faces]
    own = [(around_box(box, side), side) for box, side in untouched]
    edited = Canvas(original.rgb, _boxes(original.rgb.shape, [*places, *own]))
    # a hole's edge is its own; other faces fade into the picture
    edge: Edge = "none" if aligned else "feathered" if hole is None else "sharp"
    for face, before, after in faces:
        to_crop = np.array(face.affine).reshape(2, 3)
        if pastes_change:
            _paste_change(edited, original.rgb, before, after, to_crop, face.strength, edge)
        else:
            _paste_face(edited, before, after, to_crop, keep, face.strength, edge)
    for to_crop, side in own:
        _own_pixels(leave_untouched, edited, original.rgb, to_crop, side)
    if task.name == "colourise":
        coloured = _with_luma_of(original.rgb, edited)
        return images.Encoded(images.encode_anew(original, coloured), None, original.suffix)
    if hole is not None:
        edited.undo(~hole)
        original = _opaque(original, hole & _reached(original.rgb.shape[:2], faces))
    return images.encode(original, edited)


def paste_on_enhanced(
    data: bytes,
    faces: Sequence[tuple[FaceRecord, Crop, Crop]],
    kept: Sequence[FaceRecord],
    side: int,
    keep_detail: float | None,
    max_pixels: int,
    background: Background,
    pastes_change: bool = False,
    untouched: Sequence[Untouched] = (),
    into: images.Into = "none",
) -> images.Encoded:
    """The picture's bytes enhanced whole, but for its faces, and those restored; of the same kind and metadata.

    faces: as for `paste_faces`. kept: faces that stay as they are. Neither goes through the network: under both lie the
    picture's own pixels, so that the share of the restoration that is pasted mixes with these. side: the preset's.
    """
    original = images.decode(data, max_pixels, into)
    enhanced = background(original.rgb)
    original = images.enlarged(original, background.upscale)
    placed = [
        (enlarge_crop(np.array(face.affine).reshape(2, 3), background.upscale), face.side or side)
        for face in (*(f for f, _, _ in faces), *kept)
    ]
    own = [enlarge_crop(around_box(box, side), background.upscale) for box, _ in untouched]
    places = [*placed, *((c, side) for c in own)]
    edited = Canvas(enhanced, _boxes(enhanced.shape, places), replaced=True)
    for to_crop, of_face in placed:
        _own_pixels(put_back, edited, original.rgb, to_crop, of_face)
    for (face, before, after), (to_crop, _) in zip(faces, placed, strict=False):
        if pastes_change:
            _paste_change(edited, original.rgb, before, after, to_crop, face.strength)
            continue
        # what the picture knows beyond the crop is not more for being enlarged
        keep = detail_weight(face.scale) if keep_detail is None else keep_detail
        _paste_face(edited, before, after, to_crop, keep, face.strength)
    for to_crop in own:
        _own_pixels(leave_untouched, edited, original.rgb, to_crop, side)
    return images.encode(original, edited)


def _paste_face(
    edited: Canvas,
    before: Crop,
    after: Crop,
    to_crop: Affine,
    keep: float | None,
    strength: float,
    edge: Edge = "feathered",
) -> None:
    """`paste_face` on a canvas."""

    def paste(pixels: Pixels, _: Box, there: Affine) -> None:
        paste_face(pixels, before, after, there, keep, strength, edge)

    edited.paste(to_crop, len(before), paste)


def _paste_change(
    edited: Canvas,
    rgb: Crop,
    before: Crop,
    after: Crop,
    to_crop: Affine,
    strength: float,
    edge: Edge = "feathered",
) -> None:
    """`paste_change` on a canvas."""
    change = change_inside(before, after, to_crop, rgb.shape)
    if change is None:
        return

    def paste(pixels: Pixels, box: Box, there: Affine) -> None:
        add_change(pixels, rgb[box], change, there, strength, edge)

    edited.paste(to_crop, len(before), paste)


def _own_pixels(put: Callable[..., None], edited: Canvas, rgb: Crop, to_crop: Affine, side: int) -> None:
    """`put_back` or `leave_untouched` on a canvas."""

    def paste(pixels: Pixels, box: Box, there: Affine) -> None:
        put(pixels, rgb[box], there, side)

    edited.paste(to_crop, side, paste)


def _boxes(size: tuple[int, ...], crops: Sequence[tuple[Any, int]]) -> Iterator[Box]:
    """The boxes of a picture that crops can reach, each given by its 2x3 similarity and its side."""
    for affine, side in crops:
        placing = place_crop(np.array(affine).reshape(2, 3), side, size[1], size[0])
        if placing is not None:
            yield placing.box


def _with_luma_of(rgb: NDArray[np.uint8], edited: Canvas) -> NDArray[np.uint8]:
    """[H, W, 3] uint8, the colours of `edited` with the luma of `rgb`, which is known of every pixel."""
    done = rgb.copy()
    for top in range(0, len(rgb), ROWS_AT_ONCE):
        rows = slice(top, min(top + ROWS_AT_ONCE, len(rgb)))
        part = edited.part(rows, slice(0, rgb.shape[1]))
        if part is not None:
            part += ((rgb[rows] - part) @ images.LUMA)[..., None]
            done[rows] = np.rint(part).clip(0, 255)
    return done


def _reached(size: tuple[int, ...], faces: Sequence[tuple[FaceRecord, Crop, Crop]]) -> Hole:
    """[H, W], True where a crop covers the picture."""
    reached = np.zeros(size, bool)
    for face, crop, _ in faces:
        to_picture = cv2.invertAffineTransform(np.array(face.affine).reshape(2, 3))
        covered = cv2.warpAffine(np.ones(crop.shape[:2], np.float32), to_picture, size[::-1])
        reached |= covered > 0.5
    return reached


def _opaque(picture: images.Picture, filled: Hole) -> images.Picture:
    """The picture with what was filled no longer transparent."""
    if picture.alpha is None:
        return picture
    if picture.format in ("AVIF", "HEIC"):
        raise images.SkippedImage(
            f"unsupported {picture.format}", "its transparency can not be written back; save it as PNG"
        )
    alpha = picture.alpha.copy()
    alpha[picture.as_stored(filled)] = np.iinfo(alpha.dtype).max
    return replace(picture, alpha=alpha)
