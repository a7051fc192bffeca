"""Training of an estimator."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from pipeline.console.options import UsageError, option
from pipeline.networks import presets
from pipeline.networks.presets import NetworkSpec, unknown_channels
from pipeline.training.objectives import EstimatorL1
from pipeline.training.options import TrainingOptions
from pipeline.training.samples import Degrade, degrade_face, make_hole
from pipeline.training.task import Task
from pipeline.training.unknown_parts import hide_parts
from pipeline.training.validation import EstimatorPreview, EstimatorScores

# What the estimator is trained to do, by the channels of unknown parts that it is given.
DEGRADES: tuple[Degrade, ...] = (degrade_face, make_hole, hide_parts)
# Of an estimator that is widened for holes and colours.
WIDENED = 2


@dataclass(frozen=True)
class EstimatorOptions(TrainingOptions):
    """The options of one training of an estimator: the shared defaults."""

    task: Literal["preset", "inpaint"] = option(
        "preset",
        help="inpaint: fill holes and give colours; a NAFNet that restores degraded faces gets further input channels "
        "for that, whose weights are 0 at the start where --init has none. preset: what the preset's estimator is for",
        group="what",
    )


def make_task(options: EstimatorOptions, preset: presets.Preset) -> Task:
    """The preset's estimator, trained to undo the synthetic degradation, or to fill holes where it takes a mask."""
    spec = inpainting(preset) if options.task == "inpaint" else preset.estimator
    scores = partial(EstimatorScores, options.weights_dir)
    degrade = DEGRADES[unknown_channels(spec)]
    return Task("estimator", spec, EstimatorL1(), EstimatorPreview(), scores, degrade)


def inpainting(preset: presets.Preset) -> NetworkSpec:
    """The preset's estimator with channels for what is unknown. Raises UsageError where its kind has none."""
    spec = preset.estimator
    if unknown_channels(spec):
        return spec
    if spec.kind != "nafnet":
        raise UsageError(
            f"--task inpaint trains a nafnet or a lama, and the estimator of {preset.name} is a {spec.kind}; choose a "
            "preset such as portrait or small-inpaint"
        )
    return replace(spec, options=dict(spec.options) | {"unknown_channels": WIDENED})
