"""Where a picture has holes: in its alpha channel, in a colour, or in a picture of its own beside it."""

from pathlib import PurePosixPath

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.io import store
from pipeline.io.images import ImageError, Picture, decode_rgb
from pipeline.io.units import Address, Unit

Hole = NDArray[np.bool_]
# The choice of --mask in which a network finds the holes; a folder of this name is given as ./scratches.
SCRATCHES = "scratches"
# What a mask's file may be called after the picture's own name or its stem.
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
# Grey level of a mask from which a pixel is a hole.
WHITE = 128


class NoMask(ImageError):
    """A picture without a mask."""


def parse_colour(text: str) -> tuple[int, int, int] | None:
    """`#rrggbb` as numbers; None for anything else."""
    if len(text) != 7 or not text.startswith("#"):
        return None
    try:
        return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)
    except ValueError:
        return None


def find_hole(choice: str, picture: Picture, address: Address, unit: Unit, max_pixels: int) -> Hole:
    """[H, W] of the upright picture, True in its holes. choice: as --mask. Raises NoMask, ImageError or StoreError.

    `alpha`: not fully opaque; `black` and `#rrggbb`: exactly that colour; `sibling:SUFFIX`: the picture NAME + SUFFIX
    beside NAME; anything else: a folder or prefix that holds masks under the pictures' paths. White is the hole.
    """
    if choice == "alpha":
        return _transparent(picture)
    colour = (0, 0, 0) if choice == "black" else parse_colour(choice)
    if colour is not None:
        same: Hole = (picture.rgb == np.array(colour, np.uint8)).all(axis=2)
        return same
    return _from_file(_mask_uri(choice, address, unit), picture, address, max_pixels)


def is_mask(choice: str | None, name: str) -> bool:
    """Whether a picture is by its name the mask of another one."""
    suffix = (choice or "").removeprefix("sibling:")
    return suffix != choice and bool(suffix) and PurePosixPath(name).stem.endswith(suffix)


def _transparent(picture: Picture) -> Hole:
    if picture.alpha is None:
        raise NoMask("no mask", "an alpha channel was wanted for its holes, it has none")
    hole: Hole = picture.upright(picture.alpha) < np.iinfo(picture.alpha.dtype).max
    return hole


def _mask_uri(choice: str, address: Address, unit: Unit) -> str:
    if unit.kind != "folder":
        raise NoMask(
            "no mask",
            f"masks beside pictures are for folders; in a {unit.kind} shard use alpha, a colour or scratches",
        )
    stem, found = beside(choice, address)
    if found is None:
        raise NoMask("no mask", f"a mask was wanted at {stem} with the suffix of a picture, there is none")
    return found


def beside(choice: str, address: Address) -> tuple[str, str | None]:
    """Where the picture that belongs to another one is wanted, without its suffix, and where it is, if it is.

    choice: `sibling:SUFFIX` or a folder, as `find_hole`.
    """
    name = PurePosixPath(address.member)
    if choice.startswith("sibling:"):
        stem = f"{address.uri[: len(address.uri) - len(name.suffix)]}{choice.removeprefix('sibling:')}"
    else:
        stem = store.join(choice, str(name.with_suffix("")))
    places = [f"{stem}{suffix}" for suffix in dict.fromkeys((name.suffix.lower(), *SUFFIXES))]
    return stem, next((uri for uri in places if store.exists(uri)), None)


def _from_file(uri: str, picture: Picture, address: Address, max_pixels: int) -> Hole:
    mask = decode_rgb(store.read_bytes(uri), max_pixels)
    if mask.shape != picture.rgb.shape:
        (height, width), (h, w) = picture.rgb.shape[:2], mask.shape[:2]
        raise NoMask(
            "mask of another size",
            f"a mask of {width}x{height} was wanted for {address.member}, {uri} has {w}x{h}",
        )
    hole: Hole = mask.max(axis=2) >= WHITE
    return hole


# Neighbourhood from which a hole is filled for those who can not look through it: detectors, and most estimators.
FILL_RADIUS = 3.0


def fill(picture: NDArray[np.uint8], hole: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """[H, W, 3] with its hole, [H, W], filled from around it (Telea, 2004): enough to find a face by."""
    if not hole.any():
        return picture
    return cv2.inpaint(picture, hole.astype(np.uint8), FILL_RADIUS, cv2.INPAINT_TELEA).astype(
        np.uint8, copy=False
    )
