"""Train the diffusion prior ε(x_t, t) on clean faces.

    python -m jobs.train_prior --shards 'ALIGNED/train-*.tar' --output TRAIN/prior --preset small-swinir

Defaults are the paper's (DifFace, section 4.1): Adam at 1e-4 throughout, batch 64, averaged weights with decay .999,
no mirrored faces.
"""

import sys
from collections.abc import Sequence
from functools import partial

from pipeline.console.commands import carry_out
from pipeline.console.options import parse
from pipeline.training.configs import with_config
from pipeline.training.prior import PriorOptions, make_task
from pipeline.training.run import CONTINUES, run

DESCRIPTION = "Train the diffusion prior on clean faces. The same command again resumes."


def main(argv: Sequence[str] | None = None) -> int:
    """Train, resume, export or describe. Returns the exit code."""
    given = sys.argv[1:] if argv is None else argv

    def train() -> int:
        options = parse(PriorOptions, with_config(given, PriorOptions, "prior"), DESCRIPTION)
        return run(options, partial(make_task, options))

    return carry_out(train, interrupted=CONTINUES)


if __name__ == "__main__":
    sys.exit(main())
