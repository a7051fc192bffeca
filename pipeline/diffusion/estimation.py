"""The estimator's part of a restoration: f(y_0), the treatment that follows from it, and x_N of a chain."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.diffusion.call_shapes import CallShapes
from pipeline.diffusion.constraints import LUMA
from pipeline.diffusion.difface import to_signed
from pipeline.diffusion.noise import DRAW_X_N, key_tensor, normal_noise
from pipeline.diffusion.request import FaceJob, FaceResult, NonFiniteFace, Request
from pipeline.diffusion.sampler import diffuse
from pipeline.diffusion.schedule import Chain, Schedule
from pipeline.diffusion.transfers import to_bytes, to_device
from pipeline.diffusion.treatment import Treatment, estimated_change


@dataclass(frozen=True)
class BatchEstimator:
    """f(y_0) of faces, by calls of a fixed shape.

    network: [B, 3 + unknown, S, S] float32 in [0, 1] → [B, 3, S, S]. unknown: channels behind the face's: the first is
    1 in its hole, where the face is 0, and the second where its colours are unknown, where the face is its luma.
    """

    network: Callable[[Tensor], Tensor]
    side: int
    device: torch.device
    unknown: int = 0

    @property
    def channels(self) -> int:
        """Channels of the network's input."""
        return 3 + self.unknown

    def __call__(self, jobs: Sequence[FaceJob], batch: int) -> Tensor:
        """[n, 3, S, S] float32 in [0, 1] on the device, by one call of `batch` faces; n ≤ batch."""
        n = len(jobs)
        crops = np.zeros((batch, self.channels, self.side, self.side), np.uint8)
        crops[:n, :3] = np.stack([j.crop for j in jobs]).transpose(0, 3, 1, 2)
        for crop, job in zip(crops, jobs, strict=False):
            if self.unknown > 1 and job.colourless:
                crop[:3], crop[4] = luma(job.crop), 255
            if self.unknown and job.hole is not None:
                crop[:3, job.hole], crop[3, job.hole] = 0, 255
        pixels = to_device(torch.from_numpy(crops), self.device)
        return self.network(pixels.float() / 255)[:n].float().clamp(0, 1).contiguous()


def luma(crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[H, W] the luma (BT.601) of [H, W, 3] RGB, rounded."""
    levels: NDArray[np.uint8] = np.rint(crop @ np.array(LUMA)).astype(np.uint8)
    return levels


def treat(job: FaceJob, estimated: NDArray[np.float32]) -> FaceResult | NonFiniteFace:
    """The treatment of a face, with the result where it has no chain. estimated: [3, S, S] in [0, 1]."""
    if not np.isfinite(estimated).all():
        return NonFiniteFace("the estimate of this face left the finite numbers")
    picture = to_bytes(torch.from_numpy(estimated)).numpy()
    delta = estimated_change(job.crop, estimated, job.inside)
    treatment = job.treated(delta)
    restored = job.crop.copy() if treatment.kind == "left" else picture
    return FaceResult(picture, restored, treatment, delta)


@dataclass(frozen=True)
class Estimated:
    """A face at the start of its chain, ready for a slot."""

    request: Request
    treatment: Treatment
    chain: Chain
    # δ of treatment.py
    delta: float
    # [3, S, S] float32 in [0, 1] on the device
    estimated: Tensor
    # [3, S, S] float32 on the device
    x_n: Tensor


@dataclass(frozen=True)
class ChainEntry:
    """Estimates faces and draws x_N of those that are restored by a chain. Any number of threads may call it."""

    estimator: BatchEstimator
    # faces of one call of the estimator
    batch: int
    schedule: Schedule
    # of the estimator's calls
    shapes: CallShapes

    def __call__(self, requests: Sequence[Request]) -> list[Estimated | FaceResult | NonFiniteFace]:
        """For each of at most `batch` faces the start of its chain, or its final outcome, by one estimator call."""
        jobs = [request.job for request in requests]
        estimated = self.estimator(jobs, self.batch)
        outcomes = [treat(job, e) for job, e in zip(jobs, estimated.cpu().numpy(), strict=True)]
        entered: list[Estimated | FaceResult | NonFiniteFace] = list(outcomes)
        chains = {
            i: outcome.treatment.chain
            for i, outcome in enumerate(outcomes)
            if isinstance(outcome, FaceResult) and outcome.treatment.chain is not None
        }
        if chains:
            starts = [chain.start for chain in chains.values()]
            x = self._diffuse([jobs[i] for i in chains], estimated[list(chains)], starts)
            for (i, chain), x_n in zip(chains.items(), x, strict=True):
                outcome = outcomes[i]
                assert isinstance(outcome, FaceResult)
                entered[i] = Estimated(
                    requests[i], outcome.treatment, chain, outcome.estimated_change, estimated[i], x_n
                )
        return entered

    def _diffuse(self, jobs: Sequence[FaceJob], estimated: Tensor, starts: Sequence[int]) -> Tensor:
        """x_N of faces that enter their chains at these indices (Eq. 11): [n, 3, S, S] float32."""
        n, device = len(jobs), estimated.device
        keys = to_device(key_tensor([j.key for j in jobs]), device)
        draw = torch.full((n,), DRAW_X_N, dtype=torch.int64, device=device)
        noise = normal_noise(keys, draw, tuple(estimated.shape[1:]))
        ab = torch.tensor([float(self.schedule.ab[start]) for start in starts], dtype=torch.float64)
        weights = torch.stack([ab.sqrt(), (1 - ab).sqrt()]).float().view(2, n, 1, 1, 1)
        sqrt_ab, sqrt_1m_ab = to_device(weights, device)
        return diffuse(to_signed(estimated), noise, sqrt_ab, sqrt_1m_ab)
