"""Fit a preset's table of treatments: how a face is treated, by how much the estimator changes it.

With --fit error: what else predicts a face's error, and what treatments chosen by the prediction are worth.

`python -m jobs.calibrate --faces PHOTOGRAPHS --output OUT --preset portrait`
"""

import sys
from collections.abc import Sequence
from functools import partial

from pipeline.console.commands import carry_out
from pipeline.console.options import parse
from pipeline.evaluation.calibrate import CalibrateConfig, calibrate
from pipeline.evaluation.predict_error import predict_error

EPILOG = """examples:
  python -m jobs.calibrate --faces val-000.tar --output runs/calibration --apart-from 500
  python -m jobs.calibrate --faces val-000.tar --output runs/calibration --apart-from 500 --psnr-loss 0.3   fits again
Each photograph is damaged to a random degree, its face restored with every treatment and pasted, and the delivered
picture compared with the original. OUT/treatment.toml is the preset's table, OUT/treatment.md its effect, OUT/faces.png
example faces. The same command again resumes; with other bounds it only fits again.

  python -m jobs.calibrate --fit error --faces val-000.tar --output runs/calibration --limit 240
  python -m jobs.calibrate --fit error --faces 'lfw/test-*.tar' --output runs/error --treated 0   no chains: 2 s each
Each photograph is damaged at the levels of jobs.evaluate --grid real, and the error of the estimate compared with what
is measured without the truth: δ, its bands and chroma, crispness, blur, noise, contrast, detail, scale, JPEG tables.
OUT/error.md says what each adds to δ on people that the fit has not seen, what treatments by the predicted error
deliver, and whether it predicts harm. OUT/error.png shows predicted against true errors; OUT/error.toml is the preset's
[error], by which records have a predicted_error.
Photographs of one person are named PERSON_NUMBER; any other name is a person of its own."""


def main(argv: Sequence[str] | None = None) -> int:
    """The job: returns its exit code."""
    config = parse(CalibrateConfig, argv, description=__doc__ or "", epilog=EPILOG)
    work = predict_error if config.fit == "error" else calibrate
    return carry_out(partial(work, config))


if __name__ == "__main__":
    sys.exit(main())
