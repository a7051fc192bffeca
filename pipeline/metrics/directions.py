"""The numeric columns of face records: which direction is better, and when two runs can be compared by them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pipeline.metrics.no_reference import NO_REFERENCE

Better = Literal["up", "down", "neither"]


@dataclass(frozen=True)
class MetricInfo:
    """One numeric column of the records."""

    better: Better = "neither"
    # measured on the crop: runs of different crop sides cannot be compared by it
    at_side: bool = False
    # measured on the input: two runs differ in it only where they detected or cropped the face differently
    of_input: bool = False


# Sharpness has no better direction: noise is sharp. Distance to the estimate and N are settings, not quality.
METRIC_INFO: Mapping[str, MetricInfo] = {
    "psnr": MetricInfo("up", at_side=True),
    "ssim": MetricInfo("up", at_side=True),
    "lpips": MetricInfo("down", at_side=True),
    "dists": MetricInfo("down", at_side=True),
    "ids": MetricInfo("down"),
    "lmd_mesh": MetricInfo("down", at_side=True),
    "lmd": MetricInfo("down", at_side=True),
    "identity_kept": MetricInfo("down"),
    "landmark_shift_mesh": MetricInfo("down", at_side=True),
    "adaface_kept": MetricInfo("up"),
    "landmark_shift": MetricInfo("down", at_side=True),
    "quality_after": MetricInfo("down", at_side=True),
    **{name: MetricInfo(better, at_side=True) for name, better in NO_REFERENCE.items()},
    "sharpness_after": MetricInfo(at_side=True),
    "distance": MetricInfo(at_side=True),
    "start_step": MetricInfo(),
    "strength": MetricInfo(),
    "quality_before": MetricInfo("down", at_side=True, of_input=True),
    "sharpness_before": MetricInfo(at_side=True, of_input=True),
    "crispness": MetricInfo(at_side=True, of_input=True),
    "score": MetricInfo(of_input=True),
    "scale": MetricInfo(at_side=True, of_input=True),
}

# The model that gave the landmarks of a column.
LANDMARK_MODELS: Mapping[str, str] = {
    "landmark_shift_mesh": "MediaPipe's face mesh",
    "lmd_mesh": "MediaPipe's face mesh",
    "landmark_shift": "dlib's 68-point model",
    "lmd": "dlib's 68-point model",
}


def metric_info(name: str) -> MetricInfo:
    """The entry of a column; an unknown one has no better direction."""
    return METRIC_INFO.get(name, MetricInfo())
