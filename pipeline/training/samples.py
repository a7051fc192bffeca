"""Aligned faces from tar shards or image files, as an endless sequence of samples.

Sample i of a run depends on (seed, i) and the shards alone: its face, degradation, noise and timestep. A resumed run
therefore sees the same samples as an uninterrupted one.
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

# A clean face and a generator → the estimator's input, [C, S, S] float32 in [0, 1], and its target.
Degrade = Callable[[NDArray[np.uint8], np.random.Generator], tuple[Tensor, NDArray[np.uint8]]]


def degrade_face(face: NDArray[np.uint8], rng: np.random.Generator) -> tuple[Tensor, NDArray[np.uint8]]:
    """The synthetic degradation of blind restoration: three channels."""
    low, target = degrade(face, draw_degradation(rng), rng)
    return to_tensor(low), target


def make_hole(face: NDArray[np.uint8], rng: np.random.Generator) -> tuple[Tensor, NDArray[np.uint8]]:
    """Inpainting: the face with a hole set to 0, and the hole as a fourth channel."""
    hole = torch.from_numpy(draw_hole(face.shape[0], rng)).float()[None]
    return torch.cat([to_tensor(face) * (1 - hole), hole]), face


class FaceSamples(Dataset[dict[str, Tensor]]):
    """Sample i: `hq`, [3, S, S] float32 in [0, 1], and `lq`, the output of `degrade`; `index`: i itself.

    `passed_over`: [UNREADABLE] indices of unusable faces that were replaced by the next one, padded with -1.
    """

    def __init__(
        self, faces: Sequence[FaceAddress], side: int, seed: int, degrade: Degrade | None, flip: bool
    ) -> None:
        self._faces = faces
        self._side = side
        self._seed = seed
        self._degrade = degrade
        self._flip = flip
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([self._seed, 1, i])
        picture, passed_over = self._picture(i)
        if self._flip and rng.random() < 0.5:
            picture = np.ascontiguousarray(picture[:, ::-1])
        sample = {"index": torch.tensor(i), "passed_over": torch.full((UNREADABLE,), -1)}
        sample["passed_over"][: len(passed_over)] = torch.tensor(passed_over, dtype=torch.int64)
        if self._degrade is not None:
            sample["lq"], picture = self._degrade(picture, rng)
        sample["hq"] = to_tensor(picture)
        return sample

    def why(self, number: int) -> str:
        """The reason why a face was skipped."""
        try:
            self._read(number)
        except (images.ImageError, SampleError) as error:
            return str(error)
        return "it can be read now: the file was replaced in the meantime"

    def _picture(self, i: int) -> tuple[NDArray[np.uint8], list[int]]:
        """The face of sample i, or the next usable one of its epoch, and the indices of those skipped.

        One bad file must not end a long run. A storage error does: it is no fault of the face.
        """
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
            f"{len(passed_over)} consecutive faces are unreadable or not {self._side}x{self._side}, the last "
            f"{self._faces[passed_over[-1]].name}; make the shards again with jobs.align"
        )

    def _read(self, number: int) -> NDArray[np.uint8]:
        face = self._faces[number]
        return require_side(images.decode_rgb(face.read()), self._side, face.name)


class StepSampler(Sampler[list[int]]):
    """The sample indices of each training step for one of `world` workers, from step `first` on."""

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
    """Samples → batch: every entry stacked to [B, ...]."""
    return {name: torch.stack([s[name] for s in samples]) for name in samples[0]}
