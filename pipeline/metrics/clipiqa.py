"""No-reference image quality: CLIP-IQA, which of two opposite descriptions CLIP finds closer to the picture.

Source: Wang, Chan and Loy, "Exploring CLIP for Assessing the Look and Feel of Images" (AAAI 2023), with the five pairs
of descriptions that restoration challenges use (NTIRE's `clipiqa`) in place of the paper's single one.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.metrics.inputs import CLIP, as_batch
from pipeline.networks.clip import load_clip

# The good and the bad description of each pair, and the ids of their tokens in CLIP's vocabulary.
PAIRS = (
    ("good image", "bad image"),
    ("sharp image", "blurry image"),
    ("sharp edges", "blurry edges"),
    ("high resolution image", "low resolution image"),
    ("noise-free image", "noisy image"),
)
VOCABULARY = {
    "good": 886, "bad": 2103, "image": 2867, "sharp": 8157, "blurry": 21977, "edges": 20938, "high": 1400,
    "low": 1042, "resolution": 9977, "noise": 9307, "-": 268, "free": 1139, "noisy": 33495,
}  # fmt: skip
BEGIN, END = 49406, 49407


class ClipIqa:
    """[H, W, 3] uint8 RGB → 0 (bad) to 1 (good); nan for sides below 32 pixels. The picture is not resized.

    Raises CheckpointError for a file that is not CLIP's RN50.
    """

    def __init__(self, file: Path, device: str = "cpu") -> None:
        network = load_clip(file).to(device)
        with torch.inference_mode():
            texts = [network.embed_text(torch.tensor([words], device=device)) for words in descriptions()]
            # [LENGTH, 10]
            self._texts = network.logit_scale.exp() * torch.cat(texts).T
        self._network, self._device = network, device

    @torch.inference_mode()
    def __call__(self, picture: NDArray[np.uint8]) -> float:
        if min(picture.shape[:2]) < 32:
            return float("nan")
        embedding = self._network.embed_pictures(CLIP(as_batch(picture, self._device)))
        shares = (embedding @ self._texts).reshape(-1, 2).softmax(dim=1)
        return float(shares[:, 0].mean())


def descriptions() -> list[list[int]]:
    """The token ids of the descriptions, the good and the bad one of each pair in turn."""
    texts = [text.replace("-", " - ").split() for pair in PAIRS for text in pair]
    return [[BEGIN, *(VOCABULARY[word] for word in words), END] for words in texts]
