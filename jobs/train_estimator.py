"""Train the estimator f(y_0): degraded face → clean face, by L1 alone. A preset whose estimator takes a mask learns to
fill holes (boxes, strokes, expansions, halves) instead.

    python -m jobs.train_estimator --shards 'ALIGNED/train-*.tar' --output TRAIN/estimator --preset small-swinir

Defaults are the paper's (DifFace, section 4.1): AdamW, 5e-5 falling to 5e-6 by a cosine, batch 32, 300k steps.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from jobs import training
from pipeline.networks import presets
from pipeline.networks.presets import takes_mask
from pipeline.training.objectives import EstimatorL1
from pipeline.training.options import TrainingOptions
from pipeline.training.samples import degrade_face, make_hole
from pipeline.training.validation import EstimatorPreview, EstimatorScores


@dataclass(frozen=True)
class EstimatorOptions(TrainingOptions):
    """One training of an estimator: the shared defaults are its own."""


def main(argv: Sequence[str] | None = None) -> int:
    """Train, resume, export or describe. Returns the exit code."""
    description = "Train the estimator (degraded face to clean face). The same command again continues."
    options = training.parse_options(EstimatorOptions, argv, description, "estimator")
    return training.run(options, partial(make_task, options))


def make_task(options: EstimatorOptions, preset: presets.Preset) -> training.Task:
    """The preset's estimator, taught to undo the synthetic degradation, or to fill holes where it takes a mask."""
    spoil = make_hole if takes_mask(preset.estimator) else degrade_face
    scores = partial(EstimatorScores, options.weights_dir)
    return training.Task("estimator", preset.estimator, EstimatorL1(), EstimatorPreview(), scores, spoil)


if __name__ == "__main__":
    sys.exit(main())
