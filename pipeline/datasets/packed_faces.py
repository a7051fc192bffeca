"""Face crops for training in one file that travels: WebP crops with a margin, and which of their pixels are real."""

import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from glob import glob
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline import Refusal
from pipeline.faces.geometry import CropFrame, UnusableLandmarks, face_to_crop, inside_picture, warp_crop

MIB = 1 << 20
# A sixteenth of the side around a crop, for turned and shifted copies.
MARGIN_SHARE = 16
# WebP qualities that are tried, best first, and how many faces their sizes are first measured on.
QUALITIES = range(98, 69, -1)
MEASURED = 128
PICTURES = (".jpg", ".jpeg", ".png", ".webp")


class PackError(Refusal, ValueError):
    """Faces that cannot be packed, or a file that holds none."""


@dataclass(frozen=True)
class PackedFaces:
    """F face crops, each with a margin of equal width around it."""

    # [F, W, W, 3] uint8 RGB with W = side + 2 margin
    crops: NDArray[np.uint8]
    # [F, W, W], False where the crop shows no pixel of its picture
    inside: NDArray[np.bool_]
    # [F] faces that are validated on, and never trained on
    held_out: NDArray[np.bool_]
    # side of a crop without its margin
    side: int

    @property
    def margin(self) -> int:
        """Pixels around the crop."""
        width: int = self.crops.shape[1]
        return (width - self.side) // 2

    def part(self, held_out: bool) -> "PackedFaces":
        """The faces that are held out, or the others."""
        chosen = self.held_out == held_out
        return replace(
            self, crops=self.crops[chosen], inside=self.inside[chosen], held_out=self.held_out[chosen]
        )

    def centres(self) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Crops [F, S, S, 3] and `inside` [F, S, S] without margin."""
        within = slice(self.margin, self.margin + self.side)
        return self.crops[:, within, within], self.inside[:, within, within]


def crop_faces(patterns: Sequence[str], frame: CropFrame, held_out: Sequence[str] = ()) -> PackedFaces:
    """The faces of local tars, cropped by this frame with a margin.

    Each picture has five `landmarks` (pixels) in a JSON member of its name, or is an aligned crop of the frame's side.
    held_out: tars of the faces to validate on; without, every sixteenth face. Raises PackError where there is none.
    """
    margin = frame.side // MARGIN_SHARE
    parts = [list(_crops(_tars(p), frame, margin)) for p in (patterns, held_out)]
    if not parts[0]:
        raise PackError(f"no faces in {', '.join(patterns)}: expected tars of pictures with landmarks")
    flags = np.array([False] * len(parts[0]) + [True] * len(parts[1]))
    if not parts[1]:
        flags[::16] = True
    crops, inside = zip(*parts[0], *parts[1], strict=True)
    return PackedFaces(np.stack(crops), np.stack(inside), flags, frame.side)


def write_packed(faces: PackedFaces, path: Path, mib: float) -> int:
    """Write the faces to a file of at most `mib` MiB, whole or not at all. Returns the WebP quality that fits.

    Raises PackError when none does.
    """
    budget = int(mib * MIB)
    sample = faces.crops[:: max(len(faces.crops) // MEASURED, 1)]
    for quality in QUALITIES:
        if len(faces.crops) / len(sample) * sum(len(_encoded(c, quality)) for c in sample) > budget:
            continue
        coded = [_encoded(crop, quality) for crop in faces.crops]
        partial = path.with_name(f".{path.name}.partial")
        with partial.open("wb") as file:
            np.savez_compressed(
                file,
                webp=np.frombuffer(b"".join(coded), np.uint8),
                ends=np.cumsum([len(c) for c in coded]),
                inside=np.packbits(faces.inside, axis=None),
                held_out=faces.held_out,
                sides=np.array([faces.side, faces.crops.shape[1]]),
            )
        if partial.stat().st_size <= budget:
            partial.replace(path)
            return quality
        partial.unlink()
    raise PackError(
        f"{len(faces.crops)} faces do not fit into {mib:g} MiB at WebP quality {QUALITIES[-1]}; "
        "give fewer faces or a larger --mib"
    )


def read_packed(paths: Sequence[Path]) -> PackedFaces:
    """The faces of files that `write_packed` wrote, in order. Raises PackError."""
    parts = [_read(path) for path in paths]
    if len({(part.side, part.margin) for part in parts}) > 1:
        sides = ", ".join(f"{path} {part.side} px" for path, part in zip(paths, parts, strict=True))
        raise PackError(f"packed faces must be of one side, got {sides}; pack them again with one preset")
    crops, inside, held_out = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("crops", "inside", "held_out")
    )
    return PackedFaces(crops, inside, held_out, parts[0].side)


def _read(path: Path) -> PackedFaces:
    try:
        with np.load(path, allow_pickle=False) as file:
            content = {name: file[name] for name in ("webp", "ends", "inside", "held_out", "sides")}
    except (OSError, ValueError, KeyError) as error:
        raise PackError(f"{path}: not a file of packed faces ({error}); make one with `pack`") from error
    side, width = (int(n) for n in content["sides"])
    coded = np.split(content["webp"], content["ends"][:-1])
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        crops = np.stack(list(threads.map(_decoded, coded)))
    shape = (len(coded), width, width)
    inside = np.unpackbits(content["inside"], count=int(np.prod(shape))).reshape(shape).astype(bool)
    return PackedFaces(crops, inside, content["held_out"], side)


def _tars(patterns: Sequence[str]) -> list[str]:
    """Local tars by pattern, folder or name. Raises PackError for a pattern that matches none."""
    found = []
    for pattern in patterns:
        names = sorted(glob(os.path.join(pattern, "*.tar") if os.path.isdir(pattern) else pattern))
        if not names:
            raise PackError(f"no tar shards at {pattern}; give local tars, a pattern or a folder")
        found += names
    return found


def _crops(
    tars: Sequence[str], frame: CropFrame, margin: int
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.bool_]]]:
    """Each face's crop with margin, and which of its pixels the picture has; unusable pictures are left out."""
    for name in tars:
        with tarfile.open(name) as tar:
            members = {m.name: m for m in tar.getmembers() if m.isfile()}
            for name_inside, member in members.items():
                stem, suffix = os.path.splitext(name_inside)
                if suffix.lower() not in PICTURES:
                    continue
                picture = _decoded(np.frombuffer(_bytes_of(tar, member), np.uint8))
                about = members.get(f"{stem}.json")
                landmarks = json.loads(_bytes_of(tar, about)).get("landmarks") if about else None
                crop = _crop(picture, landmarks, frame, margin)
                if crop is not None:
                    yield crop


def _crop(
    picture: NDArray[np.uint8], landmarks: Any, frame: CropFrame, margin: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]] | None:
    side, width = frame.side, frame.side + 2 * margin
    if landmarks is None:
        if picture.shape[:2] != (side, side):
            return None
        inside = np.zeros((width, width), bool)
        inside[margin : margin + side, margin : margin + side] = True
        return np.pad(picture, ((margin, margin), (margin, margin), (0, 0)), mode="reflect"), inside
    # the same scale with more around it
    wider = replace(frame, side=width, zoom=frame.zoom * side / width)
    try:
        to_crop = face_to_crop(np.asarray(landmarks, np.float64).reshape(5, 2), wider)
    except (UnusableLandmarks, ValueError):
        return None
    height, across = picture.shape[:2]
    crop = warp_crop(picture, to_crop, width, frame.resampling)
    return crop, inside_picture(to_crop, width, across, height)


def _bytes_of(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None  # a regular file has content
    return file.read()


def _encoded(crop: NDArray[np.uint8], quality: int) -> bytes:
    return bytes(cv2.imencode(".webp", crop[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, quality])[1])


def _decoded(coded: NDArray[np.uint8]) -> NDArray[np.uint8]:
    picture = cv2.imdecode(coded, cv2.IMREAD_COLOR)
    if picture is None:
        raise PackError("a picture cannot be decoded; leave it out of the tars")
    return np.ascontiguousarray(picture[..., ::-1], np.uint8)
