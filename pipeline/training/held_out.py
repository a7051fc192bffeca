"""Validation on held-out faces: losses and PSNR of the networks, and a sheet of pictures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.datasets.packed_faces import PackedFaces
from pipeline.diffusion.constraints import Hold
from pipeline.diffusion.difface import (
    enter_chain,
    face_noise,
    from_signed,
    reverse_chain,
    to_signed,
    unrefined,
)
from pipeline.diffusion.noise import DRAW_X_N, noise_key
from pipeline.diffusion.schedule import chain_from, make_schedule
from pipeline.networks.presets import Preset
from pipeline.training.masked import MaskedEps

# Faces that go through a network together, and original steps at which the prior's loss is measured.
TOGETHER = 64
STEPS = (100, 200)
# Faces of a sheet.
SHOWN = 8
# Least mean squared error: PSNR ends at 90 dB.
LEAST_ERROR = 1e-9


@dataclass(frozen=True)
class HeldOut:
    """Held-out faces, degraded in fixed ways, on the device of the networks."""

    # [F, 3, S, S] and [F, 1, S, S], float32 in [0, 1]
    truth: Tensor
    mask: Tensor
    # name of a degradation → [F, 3, S, S] float32 in [0, 1]
    degraded: Mapping[str, Tensor]
    bfloat16: bool

    @classmethod
    def of(
        cls,
        faces: PackedFaces,
        degrade: Callable[[NDArray[np.uint8]], Mapping[str, NDArray[np.uint8]]],
        device: torch.device,
        bfloat16: bool,
    ) -> "HeldOut":
        """The faces' crops; degrade: crops [F, S, S, 3] uint8 → the same under each degradation."""
        crops, inside = faces.centres()
        mask = torch.from_numpy(inside)[:, None].to(device).float()
        degraded = {name: _to_tensor(pictures, device) for name, pictures in degrade(crops).items()}
        return cls(_to_tensor(crops, device), mask, degraded, bfloat16)

    @torch.inference_mode()
    def estimator(self, network: nn.Module) -> dict[str, dict[str, float]]:
        """Of each degradation: mean L1 (0..255 scale), and mean PSNR of the inputs and of the estimates."""
        scores = {}
        for name, inputs in self.degraded.items():
            estimates = torch.cat([self._call(network, x).clamp(0, 1) for x in inputs.split(TOGETHER)])
            l1 = 255 * self._of_faces((estimates - self.truth).abs()).mean()
            before, after = self._psnr(inputs), self._psnr(estimates)
            scores[name] = {"l1": float(l1), "psnr_in": float(before), "psnr": float(after)}
        return scores

    @torch.inference_mode()
    def prior(self, network: nn.Module, loss: MaskedEps) -> dict[str, float]:
        """ε loss at each of STEPS, with the same noise every time."""
        losses = {}
        for step in STEPS:
            generator = torch.Generator().manual_seed(step)
            parts = []
            for truth, mask in zip(self.truth.split(TOGETHER), self.mask.split(TOGETHER), strict=True):
                eps = torch.randn(truth.shape, generator=generator).to(truth.device)
                t = torch.full((len(truth),), step, device=truth.device)
                with torch.autocast(truth.device.type, torch.bfloat16, enabled=self.bfloat16):
                    value = loss.at(network, {"hq": truth, "mask": mask}, t, eps)
                parts.append(float(value) * len(truth))
            losses[f"eps_t{step}"] = sum(parts) / len(self.truth)
        return losses

    @torch.inference_mode()
    def sheet(
        self, estimator: nn.Module, prior: nn.Module, preset: Preset, shown: Sequence[str]
    ) -> NDArray[np.uint8]:
        """[H, W, 3] uint8: a row a face; input, estimate, chain with and without hold, truth.

        shown: the degradations that the rows take by turns.
        """
        count = min(SHOWN, len(self.truth))
        inputs = torch.stack([self.degraded[shown[i % len(shown)]][i] for i in range(count)])
        estimated = self._call(estimator, inputs).clamp(0, 1)
        schedule = make_schedule(preset.steps)
        chain = chain_from(schedule, preset.start_step, preset.start_rule, preset.calls, preset.last_step)
        keys = [noise_key(0, f"held-out {i}", 0) for i in range(count)]
        noise = face_noise(keys, preset.side, inputs.device)
        columns = [inputs, estimated]
        hold = Hold.to(to_signed(estimated), preset.hold).refine if preset.hold else unrefined
        for refine in (hold, unrefined):
            x_n = enter_chain(estimated, schedule, chain, noise(DRAW_X_N))
            x_0 = reverse_chain(
                x_n, lambda x, t: self._call(prior, x, t), schedule, chain, preset.eta, noise, refine=refine
            )
            columns.append(from_signed(x_0))
        grid = torch.cat([*columns, self.truth[:count]], 3).permute(0, 2, 3, 1).flatten(0, 1)
        return (grid * 255).round().byte().cpu().numpy()

    def _call(self, network: nn.Module, *inputs: Tensor) -> Tensor:
        with torch.autocast(self.truth.device.type, torch.bfloat16, enabled=self.bfloat16):
            out: Tensor = network(*inputs)
        return out.float()

    def _of_faces(self, values: Tensor) -> Tensor:
        """[F] means of [F, 3, S, S] where the mask is 1."""
        return (values * self.mask).sum((1, 2, 3)) / (3 * self.mask.sum((1, 2, 3))).clamp(min=1)

    def _psnr(self, faces: Tensor) -> Tensor:
        """Mean PSNR over the faces, dB."""
        error = self._of_faces((faces - self.truth).square())
        return (-10 * torch.log10(error.clamp(min=LEAST_ERROR))).mean()


def _to_tensor(faces: NDArray[np.uint8], device: torch.device) -> Tensor:
    """[F, S, S, 3] uint8 → [F, 3, S, S] float32 in [0, 1]."""
    return torch.from_numpy(faces).to(device).permute(0, 3, 1, 2).float().contiguous() / 255
