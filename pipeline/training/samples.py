"""Aligned faces from tar shards, as samples numbered from 0 without end.

Sample i of a run depends on (seed, i) and the shards alone: which face, how it is degraded, its noise and its
timestep. A run that is stopped and continued therefore sees the very samples it would have seen.
"""

import logging
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from pipeline import images, store
from pipeline.training.degradation import degrade, draw_degradation
from pipeline.training.masks import draw_hole

log = logging.getLogger(__name__)

# How many faces in a row may be unreadable before the shards are taken to be broken.
UNREADABLE = 16


class SampleError(ValueError):
    """Shards that hold no usable faces."""


@dataclass(frozen=True)
class FaceAddress:
    """Where one aligned face lies: bytes [offset, offset + length) of a tar shard."""

    shard: str
    offset: int
    length: int

    def read(self) -> bytes:
        """The face's encoded bytes."""
        return store.read_range(self.shard, self.offset, self.length)


def find_shards(uri: str) -> list[str]:
    """The tar shards of a folder, of a pattern (`FOLDER/train-*.tar`), or the one named. Raises SampleError."""
    parent, _, last = uri.rpartition("/")
    if any(c in last for c in "*?["):
        pattern, root = last, parent or "."
    else:
        pattern, root = "*.tar", uri
    try:
        entries = store.list_files(root)
    except (store.StoreError, FileNotFoundError) as error:
        raise SampleError(f"tar shards of aligned faces wanted, but {error}") from error
    shards = [e.uri for e in entries if fnmatchcase(e.path.rpartition("/")[2], pattern)]
    if not shards:
        raise SampleError(f"no tar shards found at {uri}; make them with `python -m jobs.align`")
    return shards


def list_faces(shards: Sequence[str]) -> list[FaceAddress]:
    """The image members of tar shards, in the order they lie there. Raises SampleError when there are none."""
    faces = []
    for uri in shards:
        try:
            with store.open_read(uri) as file, tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    if member.isfile() and images.is_image_name(member.name):
                        faces.append(FaceAddress(uri, member.offset_data, member.size))
        except tarfile.TarError as error:
            raise SampleError(f"{uri} is not a plain tar shard ({error}); make it with jobs.align") from error
    if not faces:
        raise SampleError(
            f"no images found in {len(shards)} shards; give tar shards of aligned faces (jobs.align)"
        )
    return faces


def check_side(faces: Sequence[FaceAddress], side: int) -> None:
    """Look at the first face of every shard. Raises SampleError when it is not side x side."""
    firsts = {face.shard: face for face in reversed(faces)}
    for face in firsts.values():
        wanted_side(images.decode_rgb(face.read()), side, face.shard)


def wanted_side(picture: NDArray[np.uint8], side: int, shard: str) -> NDArray[np.uint8]:
    """The picture itself. Raises SampleError when it is not side x side."""
    height, width = picture.shape[:2]
    if (height, width) != (side, side):
        raise SampleError(
            f"{shard} holds a {width}x{height} face where {side}x{side} was wanted; "
            f"align it with `python -m jobs.align --side {side}`"
        )
    return picture


# A clean face and random numbers → the estimator's input, [C, S, S] float32 in [0, 1], and the face it is to find.
Spoil = Callable[[NDArray[np.uint8], np.random.Generator], tuple[Tensor, NDArray[np.uint8]]]


def degrade_face(face: NDArray[np.uint8], rng: np.random.Generator) -> tuple[Tensor, NDArray[np.uint8]]:
    """The synthetic degradation of blind restoration: three channels."""
    low, target = degrade(face, draw_degradation(rng), rng)
    return to_tensor(low), target


def make_hole(face: NDArray[np.uint8], rng: np.random.Generator) -> tuple[Tensor, NDArray[np.uint8]]:
    """A hole to be filled: the face with 0 in it, and as a fourth channel where it is."""
    hole = torch.from_numpy(draw_hole(face.shape[0], rng)).float()[None]
    return torch.cat([to_tensor(face) * (1 - hole), hole]), face


class FaceSamples(Dataset[dict[str, Tensor]]):
    """Sample i: `hq`, [3, S, S] float32 in [0, 1], and `lq`, what `spoil` makes of it; `index`: i itself."""

    def __init__(
        self, faces: Sequence[FaceAddress], side: int, seed: int, spoil: Spoil | None, flip: bool
    ) -> None:
        self._faces = faces
        self._side = side
        self._seed = seed
        self._spoil = spoil
        self._flip = flip
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([self._seed, 1, i])
        picture = self._picture(i)
        if self._flip and rng.random() < 0.5:
            picture = np.ascontiguousarray(picture[:, ::-1])
        sample = {"index": torch.tensor(i)}
        if self._spoil is not None:
            sample["lq"], picture = self._spoil(picture, rng)
        sample["hq"] = to_tensor(picture)
        return sample

    def _picture(self, i: int) -> NDArray[np.uint8]:
        """The face of sample i, or the next readable one of its epoch: one bad file must not end a long run."""
        epoch, place = divmod(i, len(self._faces))
        if self._order[0] != epoch:
            self._order = (epoch, np.random.default_rng([self._seed, 0, epoch]).permutation(len(self._faces)))
        for k in range(min(UNREADABLE, len(self._faces))):
            face = self._faces[self._order[1][(place + k) % len(self._faces)]]
            try:
                return wanted_side(images.decode_rgb(face.read()), self._side, face.shard)
            except images.ImageError as error:
                log.warning(
                    "%s, bytes %d+%d: %s; taking the next face", face.shard, face.offset, face.length, error
                )
        raise SampleError(
            f"{UNREADABLE} faces in a row of {face.shard} are unreadable; make it anew with jobs.align"
        )


class StepSampler(Sampler[list[int]]):
    """The sample numbers of each training step for one of `world` workers, from step `first` on."""

    def __init__(self, first: int, last: int, batch: int, rank: int, world: int) -> None:
        if batch % world:
            raise ValueError(
                f"the batch must be a multiple of the number of workers, got {batch} for {world} workers"
            )
        self._first, self._last, self._batch, self._rank, self._world = first, last, batch, rank, world

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self._first, self._last):
            yield list(range(step * self._batch + self._rank, (step + 1) * self._batch, self._world))

    def __len__(self) -> int:
        return self._last - self._first


def stack(samples: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Samples → one batch: [B, ...] of every entry."""
    return {name: torch.stack([s[name] for s in samples]) for name in samples[0]}


def to_tensor(picture: NDArray[np.uint8]) -> Tensor:
    """[H, W, 3] uint8 → [3, H, W] float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1))).float() / 255


def to_picture(face: Tensor) -> NDArray[np.uint8]:
    """[3, H, W] float in [0, 1] → [H, W, 3] uint8, rounded."""
    scaled = face.detach().float().clamp(0, 1).mul(255).round().to("cpu", torch.uint8)
    return np.ascontiguousarray(scaled.permute(1, 2, 0).numpy())
