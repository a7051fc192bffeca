"""Gates: whether a restored face may be delivered, by measurements of its crop against the one that came.

Each gate compares a measurement with a bound. The bounds belong to a preset, whose `[gates]` table `jobs.calibrate`
fits on faces with a known truth; docs/gates.md says how, and shows the curves.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.faces.colour import LUMA
from pipeline.faces.detect import CenterFace
from pipeline.faces.geometry import CropFrame
from pipeline.faces.identity import Embedder, Embedding, angle
from pipeline.faces.sharpness import sharpness

Crop = NDArray[np.uint8]
# In the order in which they are asked.
Gate = Literal["identity", "landmarks", "colour", "gain"]
GATES: tuple[Gate, ...] = ("identity", "landmarks", "colour", "gain")
# δ in levels → the bound there; between the given values it is interpolated, beyond them constant
Curve = tuple[tuple[float, float], ...]

# A crop is mirrored by this share of its side before its landmarks are found: the detector misses faces near a border.
MARGIN = 3 / 16
# Score from which landmarks count: the face is known to be there.
LEAST_SCORE = 0.3
# A face whose landmarks lie further from the frame's template, in distances between the eyes, is a neighbour's.
NEAR = 0.5


@dataclass(frozen=True)
class Bounds:
    """What a restored face may differ from the one that came, by gate; None: the gate is off."""

    # largest angle between the embeddings, degrees, by δ
    identity: Curve | None = None
    # largest shift of a landmark from where the estimate has it, as a share of the distance between the eyes
    landmarks: float | None = None
    # largest change of colour that is broader than a sixteenth of the side, levels of 0..255
    colour: float | None = None
    # least gain: see Measurements.gain
    gain: float | None = None

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> "Bounds":
        """The bounds of a preset's table. Raises ValueError, a sentence, where they are none."""
        if unknown := sorted(set(table) - set(GATES)):
            raise ValueError(f"the gates are {', '.join(GATES)}, got {', '.join(unknown)}")
        values: dict[str, Any] = {}
        for name, value in table.items():
            values[name] = _curve(name, value) if name == "identity" else _number(name, value)
        return cls(**values)

    @property
    def as_table(self) -> dict[str, Any]:
        """As a preset's table has it."""
        return {
            name: [list(row) for row in bound] if isinstance(bound, tuple) else bound
            for name in GATES
            if (bound := getattr(self, name)) is not None
        }

    def at(self, gate: Gate, delta: float) -> float | None:
        """The bound of a gate for a face of this δ."""
        bound = getattr(self, gate)
        if not isinstance(bound, tuple):
            return float(bound) if bound is not None else None
        return float(np.interp(delta, [d for d, _ in bound], [b for _, b in bound]))


@dataclass(frozen=True)
class Measurements:
    """A restored crop against the one that came."""

    # degrees between the embeddings; None without an embedding
    identity: float | None
    # largest shift of a landmark from where the estimate has it, as a share of the distance between the eyes; inf where
    # the estimate shows a face and the result none. None for the estimate itself, and where that shows none
    landmarks: float | None
    # largest change of broad colour, levels
    colour: float
    # by what factor it is sharper, as a power of two, and by how many levels there is less noise, the two added: noise
    # is sharp, too, and what is only blurred is quieter. Of the noise at full and at half size, where grain is, the
    # larger loss counts
    gain: float

    @property
    def rounded(self) -> dict[str, float]:
        """By gate, for the records; what could not be measured is left out."""
        return {name: round(value, 4) for name in GATES if (value := getattr(self, name)) is not None}


@dataclass(frozen=True)
class Gates:
    """Compares restored crops of one frame, of any side, with those that came. Thread-safe; on the CPU in float32."""

    bounds: Bounds
    frame: CropFrame
    # None: the identity is not measured
    embedder: Embedder | None
    _detector: CenterFace = field(default_factory=lambda: CenterFace(LEAST_SCORE), compare=False)
    # the detector takes one picture at a time
    _detecting: Lock = field(default_factory=Lock, compare=False)

    def face(self, crop: Crop, estimated: Crop) -> "Judged":
        """What is measured of a face once, whatever is tried with it: as it came, and as the estimator has it.

        A chain may not move what the estimate shows; in what came, landmarks may be too faint to measure from.
        """
        embedding = self.embedder(crop) if self.embedder and self.bounds.identity else None
        landmarks = self._landmarks(estimated) if self.bounds.landmarks else None
        return Judged(crop, estimated, embedding, landmarks, sharpness(crop), noise(crop))

    def measure(self, came: "Judged", restored: Crop) -> Measurements:
        """A restored crop, [S, S, 3] uint8 RGB, against the one that came."""
        turned = None
        if self.embedder is not None and came.embedding is not None:
            turned = angle(came.embedding, self.embedder(restored))
        moved = None
        if came.landmarks is not None and not np.array_equal(restored, came.estimated):
            there = self._landmarks(restored)
            moved = self._shift(came.landmarks, there, len(restored)) if there is not None else float("inf")
        sharper = float(np.log2((sharpness(restored) + 1e-3) / (came.sharpness + 1e-3)))
        quieter = max(a - b for a, b in zip(came.noise, noise(restored), strict=True))
        return Measurements(turned, moved, broad_colour(came.crop, restored), sharper + max(quieter, 0.0))

    def failed(self, found: Measurements, delta: float) -> Gate | None:
        """The first gate that a restored face of this δ does not pass."""
        for gate in GATES:
            value, bound = getattr(found, gate), self.bounds.at(gate, delta)
            if value is None or bound is None:
                continue
            if value < bound if gate == "gain" else not value <= bound:
                return gate
        return None

    def _shift(self, a: NDArray[np.float64], b: NDArray[np.float64], side: int) -> float:
        """Largest distance of a landmark, [5, 2] pixels each, as a share of the distance between the frame's eyes.

        side: of the crops that they are of, pixels.
        """
        left, right = self.frame.of(side).template[:2]
        return float(np.linalg.norm(a - b, axis=1).max() / np.linalg.norm(left - right))

    def _landmarks(self, crop: Crop) -> NDArray[np.float64] | None:
        """[5, 2] pixels, of the face at the frame's template; None where none is found there."""
        margin = round(len(crop) * MARGIN)
        wider = cv2.copyMakeBorder(crop, margin, margin, margin, margin, cv2.BORDER_REFLECT_101)
        with self._detecting:
            faces = self._detector(np.asarray(wider, np.uint8))
        found = [face.landmarks.astype(np.float64) - margin for face in faces]
        template = self.frame.of(len(crop)).template
        distances = [self._shift(template, points, len(crop)) for points in found]
        near = min(range(len(found)), key=distances.__getitem__, default=None)
        return None if near is None or distances[near] > NEAR else found[near]


@dataclass(frozen=True)
class Judged:
    """A face as it came and as the estimator has it, and what was measured of them."""

    crop: Crop
    estimated: Crop
    embedding: Embedding | None
    # of the estimate
    landmarks: NDArray[np.float64] | None
    sharpness: float
    noise: tuple[float, float]


def noise(crop: Crop) -> tuple[float, float]:
    """Standard deviation of the noise of the luma, levels, at full and at half size.

    From the finest wavelets: Donoho and Johnstone, "Ideal spatial adaptation by wavelet shrinkage" (1994).
    """
    from skimage.restoration import estimate_sigma  # a second of imports that few processes need

    luma = crop.astype(np.float32) @ LUMA
    half = cv2.resize(luma, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    full, coarse = (float(estimate_sigma(v)) for v in (luma, half))  # type: ignore[no-untyped-call]
    return full, coarse


def broad_colour(came: Crop, restored: Crop) -> float:
    """Largest change of colour without its luma, averaged over a sixteenth of the side, in levels."""
    change = restored.astype(np.float32) - came
    colour = change - (change @ LUMA)[..., None]
    broad = cv2.GaussianBlur(colour, (0, 0), len(came) / 16, borderType=cv2.BORDER_REPLICATE)
    return float(np.abs(broad).max())


def _curve(name: str, value: Any) -> Curve:
    rows: Sequence[Any] = value if isinstance(value, list) else []
    good = all(isinstance(row, list) and len(row) == 2 and all(map(_is_number, row)) for row in rows)
    deltas = [row[0] for row in rows] if good else []
    if not rows or not good or deltas != sorted(set(deltas)):
        raise ValueError(f"{name} must hold rows of δ, rising, and the bound there, got {value!r}")
    return tuple((float(d), float(b)) for d, b in rows)


def _number(name: str, value: Any) -> float:
    if not _is_number(value):
        raise ValueError(f"{name} must be a number, got {value!r}")
    return float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
