"""No-reference metrics, which need the restored picture alone, and the functions that compute them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline import Refusal
from pipeline.io.weights import resolve_metric

# [H, W, 3] uint8 RGB → value, nan where the metric is undefined
ImageMetric = Callable[[NDArray[np.uint8]], float]


# Metric, which is also its column → the direction that is better. docs/metrics.md has range and source of each.
NO_REFERENCE: Mapping[str, Literal["up", "down"]] = {
    "niqe": "down",
    "clipiqa": "up",
    "arniqa": "up",
    "musiq": "up",
    "maniqa": "up",
    "qalign": "up",
}

WHY_NO_QALIGN = (
    "it is a language model of 7 billion parameters that is published with a program of its own in the folder of its "
    "weights, and such programs are not run"
)

# Errors that keep one metric from being measured, and no other.
MISSING = (Refusal, ImportError, FileNotFoundError, ValueError)


def load_no_reference(
    names: Sequence[str], weights_dir: str | None = None, device: str = "cpu"
) -> tuple[dict[str, ImageMetric], dict[str, str]]:
    """The functions of these metrics by name, and the reason for each that cannot be computed.

    device: of torch's networks; NIQE runs on the CPU.
    """
    metrics: dict[str, ImageMetric] = {}
    left_out: dict[str, str] = {}
    for name in names:
        try:
            metrics[name] = load_metric(name, weights_dir, device)
        except MISSING as error:
            left_out[name] = str(error)
    return metrics, left_out


def load_metric(name: str, weights_dir: str | None = None, device: str = "cpu") -> ImageMetric:
    """The function of one of these metrics. Raises one of MISSING."""
    if name == "qalign":
        raise ImportError(WHY_NO_QALIGN)
    path = resolve_metric(name, weights_dir).path
    match name:
        case "niqe":
            from pipeline.metrics.niqe import Niqe

            return Niqe(path)
        case "clipiqa":
            from pipeline.metrics.clipiqa import ClipIqa

            return ClipIqa(path, device)
        case "arniqa":
            from pipeline.metrics.arniqa import Arniqa

            return Arniqa(path, resolve_metric("arniqa-regression", weights_dir).path, device)
        case "musiq":
            from pipeline.metrics.opinion import MusiqScore

            return MusiqScore(path, device)
        case "maniqa":
            from pipeline.metrics.opinion import ManiqaScore

            return ManiqaScore(path, device)
    raise ValueError(f"wanted a metric among {', '.join(NO_REFERENCE)}, got {name}")
