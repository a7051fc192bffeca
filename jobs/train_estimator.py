"""Train the estimator f(y_0): degraded face → clean face, by L1 alone. A preset whose estimator takes a mask learns to
fill holes (boxes, strokes, expansions, halves) instead.

    python -m jobs.train_estimator --shards 'ALIGNED/train-*.tar' --output TRAIN/estimator --preset small-swinir

Defaults are the paper's (DifFace, section 4.1): AdamW, 5e-5 falling to 5e-6 by a cosine, batch 32, 300k steps.
"""

import sys
from collections.abc import Sequence
from functools import partial

from pipeline.console.commands import carry_out
from pipeline.console.options import parse
from pipeline.training.configs import with_config
from pipeline.training.estimator import EstimatorOptions, make_task
from pipeline.training.run import CONTINUES, run

DESCRIPTION = "Train the estimator (degraded face to clean face). The same command again resumes."


def main(argv: Sequence[str] | None = None) -> int:
    """Train, resume, export or describe. Returns the exit code."""
    given = sys.argv[1:] if argv is None else argv

    def train() -> int:
        options = parse(EstimatorOptions, with_config(given, EstimatorOptions, "estimator"), DESCRIPTION)
        return run(options, partial(make_task, options))

    return carry_out(train, interrupted=CONTINUES)


if __name__ == "__main__":
    sys.exit(main())
