"""Aligned faces from tar shards or image files, as samples numbered from 0 without end.

Sample i of a run depends on (seed, i) and the shards alone: which face, how it is degraded, its noise and its
timestep. A run that is stopped and continued therefore sees the very samples it would have seen.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from pipeline.io import images, store
from pipeline.io.readers import REFUSED
from pipeline.io.shards import InputError, cut_units, make_shards
from pipeline.training.degradation import degrade, draw_degradation
from pipeline.training.masks import draw_hole

# How many faces in a row may be unreadable before the shards are taken to be broken.
UNREADABLE = 16
# A training reads single faces: its shards are cut into no units.
WHOLE = 1 << 40
# What to do where there are no faces; photographs are for others than trainings.
ALIGN = "make them with `python -m jobs.align`"
PHOTOGRAPHS = "give tars of photographs, or a folder of them"


class SampleError(ValueError):
    """Shards that hold no usable faces."""


@dataclass(frozen=True)
class FaceAddress:
    """Where one aligned face lies: bytes [offset, offset + length) of a tar shard, or a whole file."""

    shard: str
    offset: int
    length: int
    # its name in the shard; empty for a file
    member: str = ""

    @property
    def name(self) -> str:
        """What people know it by."""
        return f"{self.shard}: {self.member}" if self.member else self.shard

    def read(self) -> bytes:
        """The face's encoded bytes. Raises store.StoreError, which says nothing against the face."""
        return store.read_range(self.shard, self.offset, self.length)


@dataclass(frozen=True)
class Found:
    """What lies in some shards."""

    faces: list[FaceAddress] = field(default_factory=list)
    # members that can hold no face, by name, each with the reason
    left_out: dict[str, str] = field(default_factory=dict)


def find_faces(uri: str, instead: str = ALIGN) -> Found:
    """The faces of the tar shards of a folder or pattern; of its image files where it has none. Raises SampleError.

    instead: what its sentence tells to do where there are none.
    """
    return look_into(_entries(uri, instead), instead)


def find_shards(uri: str) -> list[str]:
    """Addresses of the tar shards, or image files, that `find_faces` takes. Raises SampleError."""
    return [entry.uri for entry in _entries(uri)]


def list_faces(shards: Sequence[str]) -> list[FaceAddress]:
    """The faces of these tars and image files, in the order they lie there. Raises SampleError when there are none."""
    return look_into([store.stat(uri) for uri in shards]).faces


def look_into(entries: Sequence[store.Entry], instead: str = ALIGN) -> Found:
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
        raise SampleError(f"tar shards wanted, but {error}; {instead}") from error
    named = [e for e in listed if fnmatchcase(e.path.rpartition("/")[2], pattern)]
    tars, pictures = [e for e in named if _is_tar(e)], [e for e in named if images.is_image_name(e.path)]
    if not tars and not pictures:
        raise SampleError(f"no tar shards found at {uri}; {instead}")
    return tars or pictures


def _is_tar(entry: store.Entry) -> bool:
    return entry.path.lower().endswith(".tar")


def check_side(faces: Sequence[FaceAddress], side: int) -> None:
    """Look at the first readable face of every shard, or folder. Raises SampleError when it is not side x side."""
    looked: dict[str, int] = {}
    for face in faces:
        shard = face.shard if face.member else face.shard.rpartition("/")[0]
        if looked.setdefault(shard, 0) < UNREADABLE:
            try:
                picture = images.decode_rgb(face.read())
            except images.ImageError:
                looked[shard] += 1
                continue
            wanted_side(picture, side, face.shard)
            looked[shard] = UNREADABLE


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
    """Sample i: `hq`, [3, S, S] float32 in [0, 1], and `lq`, what `spoil` makes of it; `index`: i itself.

    `passed_over`: [UNREADABLE] numbers of faces that could not be used and whose place the next one took, then -1.
    """

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
        picture, passed_over = self._picture(i)
        if self._flip and rng.random() < 0.5:
            picture = np.ascontiguousarray(picture[:, ::-1])
        sample = {"index": torch.tensor(i), "passed_over": torch.full((UNREADABLE,), -1)}
        sample["passed_over"][: len(passed_over)] = torch.tensor(passed_over, dtype=torch.int64)
        if self._spoil is not None:
            sample["lq"], picture = self._spoil(picture, rng)
        sample["hq"] = to_tensor(picture)
        return sample

    def why(self, number: int) -> str:
        """Why a face was passed over."""
        try:
            self._read(number)
        except (images.ImageError, SampleError) as error:
            return str(error)
        return "it can be read again: the file was replaced meanwhile"

    def _picture(self, i: int) -> tuple[NDArray[np.uint8], list[int]]:
        """The face of sample i, or the next usable one of its epoch; and those that were not: one bad file must not
        end a long run. A storage that does not answer does end it: its faces are good ones."""
        epoch, place = divmod(i, len(self._faces))
        if self._order[0] != epoch:
            self._order = (epoch, np.random.default_rng([self._seed, 0, epoch]).permutation(len(self._faces)))
        passed_over: list[int] = []
        for k in range(min(UNREADABLE, len(self._faces))):
            number = int(self._order[1][(place + k) % len(self._faces)])
            try:
                return self._read(number), passed_over
            except (images.ImageError, SampleError):
                passed_over.append(number)
        raise SampleError(
            f"{len(passed_over)} faces in a row are unreadable or no {self._side}x{self._side} pictures, the last of "
            f"them {self._faces[passed_over[-1]].name}; make the shards anew with jobs.align"
        )

    def _read(self, number: int) -> NDArray[np.uint8]:
        face = self._faces[number]
        return wanted_side(images.decode_rgb(face.read()), self._side, face.name)


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
