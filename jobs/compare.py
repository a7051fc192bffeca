"""Compare two runs over the same pictures, face by face: `python -m jobs.compare RUN_A RUN_B`."""

import sys
from collections.abc import Sequence
from functools import partial

from pipeline.compare.run import CompareConfig, run
from pipeline.console.commands import carry_out
from pipeline.console.options import parse

EPILOG = """examples:
  python -m jobs.compare out/eta0 out/eta1
  python -m jobs.compare s3://archive/old s3://archive/new --by sharpness_after --output comparison
  python -m jobs.compare baseline candidate --mlflow-uri http://mlflow:5000 --fail-if 'lpips>0.01,outcome_failed>0'
exit codes:
  0 compared · 2 refused: no shared pictures, no run found, not finished · 5 a --fail-if holds · 130 interrupted"""


def main(argv: Sequence[str] | None = None) -> int:
    """The job: returns its exit code."""
    config = parse(CompareConfig, argv, description=__doc__ or "", epilog=EPILOG)
    return carry_out(partial(run, config), interrupted="interrupted; nothing was written")


if __name__ == "__main__":
    sys.exit(main())
