"""Fit a preset's table of treatments: what is done with a face by how far the estimator changes it.

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
Each photograph is damaged by a drawn degree, its face treated in every way and pasted, and what is delivered measured
against the truth. OUT/treatment.toml is the table for the preset, OUT/treatment.md what it brings, OUT/faces.png faces
to look at. The same command again goes on where the last one stopped; with other bounds it only fits."""


def main(argv: Sequence[str] | None = None) -> int:
    """The job: returns its exit code."""
    config = parse(CalibrateConfig, argv, description=__doc__ or "", epilog=EPILOG)
    return carry_out(partial(calibrate, config))


if __name__ == "__main__":
    sys.exit(main())
