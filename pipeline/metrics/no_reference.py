"""Metrics that judge one picture by itself, without a truth: what each is, and the functions that compute them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline import Refusal
from pipeline.io.weights import resolve_metric

# [H, W, 3] uint8 RGB → value, nan where the metric is undefined
Judge = Callable[[NDArray[np.uint8]], float]


@dataclass(frozen=True)
class NoReference:
    """A metric without a reference."""

    # of the records and tables
    column: str
    better: Literal["up", "down"]
    # least and greatest value; None: not bounded
    range: tuple[float, float | None]
    # what it measures
    what: str
    source: str


NO_REFERENCE: Mapping[str, NoReference] = {
    "niqe": NoReference(
        "niqe",
        "down",
        (0, None),
        "distance from the statistics of undistorted photographs",
        "Mittal et al. 2013",
    ),
    "clipiqa": NoReference(
        "clipiqa", "up", (0, 1), "CLIP's choice between five good and bad descriptions", "Wang et al. 2023"
    ),
    "arniqa": NoReference(
        "arniqa", "up", (0, 1), "technical quality, trained on KonIQ-10k", "Agnolucci et al. 2024"
    ),
    "musiq": NoReference("musiq", "up", (0, 100), "opinion score, trained on KonIQ-10k", "Ke et al. 2021"),
    "maniqa": NoReference("maniqa", "up", (0, 1), "opinion score, trained on KonIQ-10k", "Yang et al. 2022"),
    "qalign": NoReference("qalign", "up", (1, 5), "a language model's rating of quality", "Wu et al. 2024"),
}

WHY_NO_QALIGN = (
    "it is a language model of 7 billion parameters that is published with a program of its own in the folder of its "
    "weights, and such programs are not run"
)

# What keeps one metric from being measured, and no other.
MISSING = (Refusal, ImportError, FileNotFoundError, ValueError)


def load_no_reference(
    names: Sequence[str], weights_dir: str | None = None, device: str = "cpu"
) -> tuple[dict[str, Judge], dict[str, str]]:
    """The functions of these metrics by name, and the reason for each that cannot be computed.

    device: of torch's networks; NIQE runs on the CPU.
    """
    judges: dict[str, Judge] = {}
    left_out: dict[str, str] = {}
    for name in names:
        try:
            judges[name] = load_judge(name, weights_dir, device)
        except MISSING as error:
            left_out[name] = str(error)
    return judges, left_out


def load_judge(name: str, weights_dir: str | None = None, device: str = "cpu") -> Judge:
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
