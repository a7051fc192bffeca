"""Shards of aligned faces: the address of each face, and checks of its side."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline import Refusal
from pipeline.io import images, store
from pipeline.io.readers import REFUSED
from pipeline.io.shards import InputError, cut_units, make_shards

# Unreadable faces in a row after which the shards are considered broken.
UNREADABLE = 16
# Training reads single faces: a shard is one unit.
WHOLE = 1 << 40
# Advice in error messages where there are no faces: for aligned faces, and for photographs.
ALIGN = "make them with `python -m jobs.align`"
PHOTOGRAPHS = "give tars of photographs, or a folder of them"


class SampleError(Refusal, ValueError):
    """Shards without usable faces."""


@dataclass(frozen=True)
class FaceAddress:
    """Address of one aligned face: bytes [offset, offset + length) of a tar shard, or a whole file."""

    shard: str
    offset: int
    length: int
    # its name in the shard; empty for a file
    member: str = ""

    @property
    def name(self) -> str:
        """Shard and member, for messages."""
        return f"{self.shard}: {self.member}" if self.member else self.shard

    def picture(self) -> NDArray[np.uint8]:
        """[H, W, 3] uint8 RGB. Raises SampleError for bytes that are no picture, StoreError."""
        try:
            return images.decode_rgb(self.read())
        except images.ImageError as error:
            raise SampleError(f"{self.shard}: a face cannot be read: {error}; leave it out") from error

    def read(self) -> bytes:
        """The face's encoded bytes. Raises store.StoreError, which is no fault of the face."""
        return store.read_range(self.shard, self.offset, self.length)


@dataclass(frozen=True)
class Found:
    """The contents of some shards."""

    faces: list[FaceAddress] = field(default_factory=list)
    # name → reason of each member that cannot be a face
    left_out: dict[str, str] = field(default_factory=dict)


def find_faces(uri: str, instead: str = ALIGN) -> Found:
    """The faces in the tar shards of a folder or pattern, or in its image files where it has no shards.

    instead: advice in the message of the SampleError that is raised where there are none.
    """
    return faces_in(_entries(uri, instead), instead)


def find_shards(uri: str) -> list[str]:
    """URIs of the tar shards, or image files, that `find_faces` reads. Raises SampleError."""
    return [entry.uri for entry in _entries(uri)]


def list_faces(shards: Sequence[str]) -> list[FaceAddress]:
    """The faces of these tars and image files, in stored order. Raises SampleError when there are none."""
    return faces_in([store.stat(uri) for uri in shards]).faces


def faces_in(entries: Sequence[store.Entry], instead: str = ALIGN) -> Found:
    """The faces of tars and image files, in order; only headers are read. Raises SampleError when there are none."""
    found = Found()
    for entry in entries:
        if not _is_tar(entry):
            found.faces.append(FaceAddress(entry.uri, 0, entry.size))
            continue
        try:
            (unit,) = cut_units(make_shards("tar", [entry], WHOLE)[0], WHOLE, "")
        except InputError as error:
            raise SampleError(f"{error}; {instead}") from error
        for place in unit.images:
            face = FaceAddress(place.uri, place.offset, place.length, place.member)
            if place.refused:
                found.left_out[face.name] = REFUSED[place.refused][1]
            else:
                found.faces.append(face)
    if not found.faces:
        raise SampleError(f"no images found in {len(entries)} shards; {instead}")
    return found


def _entries(uri: str, instead: str = ALIGN) -> list[store.Entry]:
    parent, _, last = uri.rpartition("/")
    pattern, root = (last, parent or ".") if any(c in last for c in "*?[") else ("*", uri)
    try:
        listed = store.list_files(root)
    except (store.StoreError, FileNotFoundError) as error:
        raise SampleError(str(error)) from error
    named = [e for e in listed if fnmatchcase(e.path.rpartition("/")[2], pattern)]
    tars, pictures = [e for e in named if _is_tar(e)], [e for e in named if images.is_image_name(e.path)]
    if not tars and not pictures:
        raise SampleError(f"no tars and no pictures found at {uri}; {instead}")
    return tars or pictures


def _is_tar(entry: store.Entry) -> bool:
    return entry.path.lower().endswith(".tar")


def check_side(faces: Sequence[FaceAddress], side: int) -> None:
    """Check the first readable face of every shard, or folder. Raises SampleError when it is not side x side."""
    looked: dict[str, int] = {}
    for face in faces:
        shard = face.shard if face.member else face.shard.rpartition("/")[0]
        if looked.setdefault(shard, 0) < UNREADABLE:
            try:
                picture = images.decode_rgb(face.read())
            except images.ImageError:
                looked[shard] += 1
                continue
            require_side(picture, side, face.shard)
            looked[shard] = UNREADABLE


def require_side(picture: NDArray[np.uint8], side: int, shard: str) -> NDArray[np.uint8]:
    """The picture, unchanged. Raises SampleError when it is not side x side."""
    height, width = picture.shape[:2]
    if (height, width) != (side, side):
        raise SampleError(
            f"{shard}: expected faces of {side}x{side}, got {width}x{height}; "
            f"align it with `python -m jobs.align --side {side}`"
        )
    return picture


def to_tensor(picture: NDArray[np.uint8]) -> Tensor:
    """[H, W, 3] uint8 → [3, H, W] float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1))).float() / 255


def to_picture(face: Tensor) -> NDArray[np.uint8]:
    """[3, H, W] float in [0, 1] → [H, W, 3] uint8, rounded."""
    scaled = face.detach().float().clamp(0, 1).mul(255).round().to("cpu", torch.uint8)
    return np.ascontiguousarray(scaled.permute(1, 2, 0).numpy())


def spread(faces: Sequence[FaceAddress], limit: int) -> list[FaceAddress]:
    """At most `limit` of the faces, evenly spaced; 0 takes all."""
    count = min(limit or len(faces), len(faces))
    return [faces[i] for i in np.linspace(0, len(faces) - 1, count).astype(int)]
