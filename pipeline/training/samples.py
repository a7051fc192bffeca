"""Aligned faces from tar shards or image files, as samples numbered from 0 without end.

Sample i of a run depends on (seed, i) and the shards alone: which face, how it is degraded, its noise and its
timestep. A run that is stopped and continued therefore sees the very samples it would have seen.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from pipeline.datasets.degradation import degrade, draw_degradation
from pipeline.datasets.faces import UNREADABLE, FaceAddress, SampleError, require_side, to_tensor
from pipeline.datasets.holes import draw_hole
from pipeline.io import images

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
        return require_side(images.decode_rgb(face.read()), self._side, face.name)


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
