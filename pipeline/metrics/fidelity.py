"""Fidelity to the ground truth: PSNR, SSIM, LPIPS.

All take [B, 3, S, S] float32 in [0, 1] and return one value per face, so that sums over batches and shards add.
"""

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.networks.checkpoint import read_state


def psnr(restored: Tensor, truth: Tensor) -> Tensor:
    """[B] peak signal-to-noise ratio in dB, 100 for equal images."""
    error = (restored - truth).square().mean(dim=(1, 2, 3))
    return -10 * torch.log10(error.clamp(min=1e-10))


def ssim(restored: Tensor, truth: Tensor) -> Tensor:
    """[B] structural similarity (Wang et al. 2004): Gaussian window of 11 px, σ 1.5, without the border."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    _, full = structural_similarity_index_measure(restored, truth, data_range=1.0, return_full_image=True)
    whole: Tensor = full[..., 5:-5, 5:-5]
    return whole.mean(dim=(1, 2, 3))


class LPIPS:
    """Learned perceptual distance (Zhang et al. 2018) on AlexNet features, version 0.1; lower is closer.

    Raises ValueError for a file without them.
    """

    def __init__(self, backbone: Path, device: str = "cpu") -> None:
        import lpips

        # lpips builds its AlexNet with arguments that torchvision has deprecated
        with warnings.catch_warnings(action="ignore"):
            self._network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
        state = read_state(backbone)
        published = [v for k, v in state.items() if not k.startswith("classifier")]
        layers = [m for m in self._network.net.modules() if isinstance(m, nn.Conv2d)]
        shapes = [tuple(p.shape) for m in layers for p in m.parameters()]
        if [tuple(v.shape) for v in published] != shapes:
            raise ValueError(f"{backbone} does not contain AlexNet's five feature layers")
        with torch.no_grad():
            for parameter, value in zip((p for m in layers for p in m.parameters()), published, strict=True):
                parameter.copy_(value)
        self._network = self._network.to(device)

    @torch.inference_mode()
    def __call__(self, restored: Tensor, truth: Tensor) -> Tensor:
        """[B] distances."""
        values: Tensor = self._network(restored * 2 - 1, truth * 2 - 1)
        return values.flatten()
