"""Fit a preset's table of treatments: how a face is treated, by how much the estimator changes it.

`python -m jobs.calibrate --faces PHOTOGRAPHS --output OUT --preset portrait`
"""

import sys
from collections.abc import Sequence
from functools import partial

from pipeline.console.commands import carry_out
from pipeline.console.options import parse
from pipeline.evaluation.calibrate import CalibrateConfig, calibrate

EPILOG = """examples:
  python -m jobs.calibrate --faces val-000.tar --output runs/calibration --apart-from 500
  python -m jobs.calibrate --faces val-000.tar --output runs/calibration --apart-from 500 --psnr-loss 0.3   fits again
Each photograph is damaged to a random degree, its face restored with every treatment and pasted, and the delivered
picture compared with the original. OUT/treatment.toml is the preset's table, OUT/treatment.md its effect, OUT/faces.png
example faces. The same command again resumes; with other bounds it only fits again."""


def main(argv: Sequence[str] | None = None) -> int:
    """The job: returns its exit code."""
    config = parse(CalibrateConfig, argv, description=__doc__ or "", epilog=EPILOG)
    return carry_out(partial(calibrate, config))


if __name__ == "__main__":
    sys.exit(main())
