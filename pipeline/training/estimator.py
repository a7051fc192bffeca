"""Training of an estimator."""

from dataclasses import dataclass
from functools import partial

from pipeline.networks import presets
from pipeline.networks.presets import takes_mask
from pipeline.training.objectives import EstimatorL1
from pipeline.training.options import TrainingOptions
from pipeline.training.samples import degrade_face, make_hole
from pipeline.training.task import Task
from pipeline.training.validation import EstimatorPreview, EstimatorScores


@dataclass(frozen=True)
class EstimatorOptions(TrainingOptions):
    """The options of one training of an estimator: the shared defaults."""


def make_task(options: EstimatorOptions, preset: presets.Preset) -> Task:
    """The preset's estimator, trained to undo the synthetic degradation, or to fill holes where it takes a mask."""
    degrade = make_hole if takes_mask(preset.estimator) else degrade_face
    scores = partial(EstimatorScores, options.weights_dir)
    return Task("estimator", preset.estimator, EstimatorL1(), EstimatorPreview(), scores, degrade)
