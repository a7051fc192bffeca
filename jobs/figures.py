"""Draw the paper's figures for a preset and clean aligned faces: what N and η do to faces and to the estimator's error.

`python -m jobs.figures --faces FOLDER --output OUT --preset small-swinir`; docs/figures.md says how to read them.
"""

import sys
from collections.abc import Sequence
from functools import partial

from pipeline.console.commands import carry_out
from pipeline.console.options import parse
from pipeline.evaluation.draw_figures import FiguresConfig, draw


def main(argv: Sequence[str] | None = None) -> int:
    """The job: returns its exit code."""
    config = parse(FiguresConfig, argv, description=__doc__ or "")
    return carry_out(partial(draw, config), interrupted="interrupted")


if __name__ == "__main__":
    sys.exit(main())
