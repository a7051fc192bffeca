"""How far several restorations of one face differ: a map, its mean over the face, and which one to deliver.

Where samples that differ by their noise alone agree, the result follows from the picture that came; where they do not,
it is the model's guess.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pipeline.faces.geometry import CropFrame
from pipeline.faces.identity import Embedder, angle

Crop = NDArray[np.uint8]
Region = NDArray[np.bool_]

# Half axes of the ellipse that is the face, in distances between the eyes: cheek to cheek, forehead to chin.
HALF_WIDTH, HALF_HEIGHT = 1.0, 1.3
# Steps of the map's picture in a level.
STEPS = 8


@dataclass(frozen=True)
class Spread:
    """What the samples of one face say of each other."""

    # [S, S] uint8, STEPS a level: the standard deviation over the samples, root mean square over RGB
    picture: NDArray[np.uint8]
    # its mean over the face, levels
    mean: float
    # largest angle between the embeddings of a sample and of the delivered one, degrees; None without an embedder
    identity: float | None


@lru_cache(maxsize=8)
def face_region(frame: CropFrame) -> Region:
    """[S, S], True in the ellipse of the face: about the middle between eyes and mouth of the frame's template."""
    left, right, _, *mouth = frame.template
    x, y = (left + right + sum(mouth)) / 4
    between = float(np.linalg.norm(right - left))
    rows, columns = np.mgrid[: frame.side, : frame.side]
    across, down = (columns - x) / (HALF_WIDTH * between), (rows - y) / (HALF_HEIGHT * between)
    inside: Region = across**2 + down**2 <= 1
    inside.flags.writeable = False
    return inside


def nearest_to_mean(samples: Sequence[Crop], region: Region) -> int:
    """Index of the sample with the least mean squared difference from the mean of all inside the region.

    samples: [S, S, 3] each. Of several with the same difference the first; whole numbers, so that it is exact.
    """
    inside = np.stack([sample[region] for sample in samples]).astype(np.int64)
    away = len(inside) * inside - inside.sum(axis=0)
    return int(np.square(away).sum(axis=(1, 2)).argmin())


def deviation(samples: Sequence[Crop]) -> NDArray[np.float64]:
    """[S, S] levels: the standard deviation over two samples or more, root mean square over RGB.

    Of the distribution that they are drawn from (divided by K - 1), so that it does not depend on their number.
    """
    variance = np.stack(samples).astype(np.float64).var(axis=0, ddof=1)
    result: NDArray[np.float64] = np.sqrt(variance.mean(axis=2))
    return result


def measure_spread(
    samples: Sequence[Crop], delivered: int, region: Region, embedder: Embedder | None
) -> Spread:
    """The spread of samples, [S, S, 3] uint8 RGB each, of which this one is delivered."""
    levels = deviation(samples)
    picture = np.rint(levels * STEPS).clip(0, 255).astype(np.uint8)
    turned = None
    if embedder is not None:
        embeddings = [embedder(sample) for sample in samples]
        angles = [angle(embeddings[delivered], e) for i, e in enumerate(embeddings) if i != delivered]
        turned = round(max(angles), 3) if np.isfinite(angles).all() else None
    return Spread(picture, round(float(levels[region].mean()), 3), turned)
