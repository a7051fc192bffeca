"""The plain loop that the engine is compared with: Algorithm 1, one eager batch after another."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.diffusion.constraints import Hold
from pipeline.diffusion.difface import (
    enter_chain,
    face_noise,
    from_signed,
    reverse_chain,
    to_signed,
    unrefined,
)
from pipeline.diffusion.noise import DRAW_X_N
from pipeline.diffusion.request import FaceJob
from pipeline.diffusion.schedule import Schedule
from pipeline.diffusion.treatment import Treatment
from pipeline.networks.precision import as_official, fix_kernels, in_precision
from pipeline.networks.unet import UNet


class PlainLoop:
    """Restores faces with the networks as the official program has them, and the kernels that PyTorch chooses.

    dtype: number type of products and convolutions. batch: faces that go through all calls of a chain together.
    """

    def __init__(
        self,
        estimator: nn.Module,
        prior: UNet,
        schedule: Schedule,
        device: str,
        dtype: torch.dtype = torch.float32,
        batch: int = 1,
    ) -> None:
        self.batch, self._schedule, self._device = batch, schedule, torch.device(device)
        self._estimator = in_precision(estimator, self._device, dtype)
        self._prior = as_official(prior, dtype)

    @torch.inference_mode()
    def __call__(self, jobs: Sequence[FaceJob]) -> Tensor:
        """The restored faces, [F, 3, S, S] float32 in [0, 1] on the CPU. All jobs have the same chain and η."""
        on_gpu = self._device.type == "cuda"
        if on_gpu:
            torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32 = False, True
        restored = [self._restore(jobs[i : i + self.batch]) for i in range(0, len(jobs), self.batch)]
        if on_gpu:
            fix_kernels(self._device)
        return torch.cat(restored)

    def _restore(self, jobs: Sequence[FaceJob]) -> Tensor:
        eta, treatment = jobs[0].eta, jobs[0].treatment
        assert isinstance(treatment, Treatment) and treatment.chain is not None
        crops = np.stack([job.crop.transpose(2, 0, 1) for job in jobs])
        faces = torch.from_numpy(crops).to(self._device).float() / 255
        noise = face_noise([job.key for job in jobs], faces.shape[-1], self._device)
        estimated = self._estimator(faces).float().clamp(0, 1)
        x_n = enter_chain(estimated, self._schedule, treatment.chain, noise(DRAW_X_N))
        refine = Hold.to(to_signed(estimated), treatment.hold).refine if treatment.hold else unrefined
        x_0 = reverse_chain(x_n, self._prior, self._schedule, treatment.chain, eta, noise, refine=refine)
        return from_signed(x_0).cpu()
