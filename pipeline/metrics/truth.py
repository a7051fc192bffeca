"""Ground-truth pictures for restored ones, and the crops of their faces."""

from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from pipeline.faces.geometry import CropFrame, warp_crop
from pipeline.io import images, store
from pipeline.io.images import ImageError
from pipeline.io.masks import beside
from pipeline.io.readers import read_unit
from pipeline.io.tar import DamagedTar, iter_members
from pipeline.io.units import Address, Unit
from pipeline.records.rows import FaceRecord, ImageRecord

Picture = NDArray[np.uint8]

# Members read after a tar unit's last one: the last picture's ground truth may lie there.
MEMBERS_AFTER = 8


def read_truths(
    choice: str, unit: Unit, wanted: Collection[int], max_pixels: int
) -> Iterator[tuple[int, Picture]]:
    """Index and [H, W, 3] uint8 RGB of the ground truth of each wanted image that has a readable one.

    choice: as --truth. `sibling:SUFFIX`: the picture NAME + SUFFIX beside NAME, in a tar a member of the same folder
    (after it where a unit ends between them); `column:NAME`: of the same row of a Parquet shard; anything else: a
    folder or prefix with the ground truth under the pictures' names.
    """
    for place, data in _bytes_of(choice, unit, wanted, max_pixels):
        # an unreadable one counts as missing and fails no picture
        with suppress(ImageError, store.StoreError):
            yield place, images.decode_rgb(data, max_pixels)


def _bytes_of(
    choice: str, unit: Unit, wanted: Collection[int], max_pixels: int
) -> Iterator[tuple[int, bytes]]:
    if choice.startswith("column:"):
        if unit.kind == "parquet":
            for place, (_, data) in enumerate(read_unit(unit, choice.removeprefix("column:"), max_pixels)):
                if place in wanted and isinstance(data, bytes):
                    yield place, data
        return
    in_tar = unit.kind == "tar" and choice.startswith("sibling:")
    members = _members(unit) if in_tar else {}
    for place in sorted(wanted):
        address = unit.images[place]
        with suppress(store.StoreError):
            if in_tar:
                found = members.get(f"{_stem(address.member)}{choice.removeprefix('sibling:')}")
                if found is not None:
                    yield place, store.read_range(found.uri, found.offset, found.length)
            elif unit.kind != "parquet" and (uri := beside(choice, address)[1]) is not None:
                yield place, store.read_bytes(uri)


def _members(unit: Unit) -> dict[str, Address]:
    """The pictures of a tar unit, and the first members after it, by their names without suffixes."""
    following: list[Address] = []
    with suppress(DamagedTar, store.StoreError), store.open_read(unit.source) as source:
        size = store.stat(unit.source).size
        for _, member in zip(range(MEMBERS_AFTER), iter_members(source, unit.span[1], size), strict=False):
            if not member.refused:
                info = member.info
                following.append(Address(info.name, unit.source, info.offset_data, info.size))
    return {_stem(a.member): a for a in [*following, *unit.images] if not a.refused}


def _stem(member: str) -> str:
    return str(PurePosixPath(member).with_suffix(""))


def truth_crop(
    truth: Picture, image: ImageRecord, face: FaceRecord, frame: CropFrame, whole: bool
) -> Picture | None:
    """The face's [S, S, 3] crop of the ground truth, which may be larger or smaller than the restored picture.

    whole: the picture is the crop. None where the aspect ratios differ.
    """
    height, width = truth.shape[:2]
    side = frame.side
    if whole:
        if height != width:
            return None
        return truth if width == side else images.resize(truth, side)
    ratio = width / image.width
    if abs(image.height * ratio - height) > max(ratio, 1):
        return None
    to_crop = np.array(face.affine).reshape(2, 3)
    if ratio != 1:
        # a truth's pixel centre x lies at (x + 0.5) / ratio - 0.5 of the picture
        shift = 0.5 / ratio - 0.5
        to_picture = np.array([[1 / ratio, 0, shift], [0, 1 / ratio, shift], [0, 0, 1]])
        to_crop = to_crop @ to_picture
    return warp_crop(truth, to_crop, side, frame.resampling)
