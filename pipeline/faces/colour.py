"""Keep the colours of a restored face consistent with its picture."""

import cv2
import numpy as np
from numpy.typing import NDArray

# A crop with a mean channel difference (0..255) up to this is grey.
GREY = 2.0
# weights of BT.601
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def anchor_colour(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`after` with the low-frequency chroma of `before`; both [S, S, 3] uint8 RGB.

    Luma and fine chroma come from the restoration, chroma coarser than a sixteenth of the side from the picture.
    A grey face stays exactly grey.
    """
    original, restored = (cv2.cvtColor(v, cv2.COLOR_RGB2YCrCb).astype(np.float32) for v in (before, after))
    spread = before.max(axis=2).astype(np.float32) - before.min(axis=2)
    if float(spread.mean()) <= GREY:
        grey = restored[..., :1].astype(np.uint8)
        return np.repeat(grey, 3, axis=2)
    sigma = before.shape[0] / 16

    def broad(image: NDArray[np.float32]) -> NDArray[np.float32]:
        blurred: NDArray[np.float32] = cv2.GaussianBlur(
            image[..., 1:], (0, 0), sigma, borderType=cv2.BORDER_REPLICATE
        ).astype(np.float32, copy=False)
        return blurred

    restored[..., 1:] += broad(original) - broad(restored)
    rounded = np.clip(np.rint(restored), 0, 255).astype(np.uint8)
    return cv2.cvtColor(rounded, cv2.COLOR_YCrCb2RGB).astype(np.uint8, copy=False)


def anchor_change(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """As `anchor_colour`, for a restoration of which only the change is pasted: an unchanged crop stays exact.

    The change keeps its luma and fine chroma; on a grey face only its luma.
    """
    change = after.astype(np.float32) - before
    luma = (change @ LUMA)[..., None]
    colour = change - luma
    spread = before.max(axis=2).astype(np.float32) - before.min(axis=2)
    if float(spread.mean()) <= GREY:
        kept = luma.astype(np.float32, copy=False)
    else:
        broad = cv2.GaussianBlur(colour, (0, 0), before.shape[0] / 16, borderType=cv2.BORDER_REPLICATE)
        kept = (change - broad).astype(np.float32, copy=False)
    anchored: NDArray[np.uint8] = np.clip(np.rint(before + kept), 0, 255).astype(np.uint8)
    return anchored
