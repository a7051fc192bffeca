"""Score presets on clean aligned faces, degraded as in the paper, on photographs, or on real degraded faces.

`python -m jobs.evaluate --faces 'FOLDER/test-*.tar' --output OUT --presets small-swinir,small-srcnn`
"""

import sys
from collections.abc import Sequence
from functools import partial

from pipeline.console.commands import carry_out
from pipeline.console.options import parse
from pipeline.evaluation.options import EvaluateConfig
from pipeline.evaluation.run import evaluate

EPILOG = """examples:
  python -m jobs.evaluate --faces 'aligned/test-*.tar' --output scores --dry-run
  python -m jobs.evaluate --faces 'aligned/test-*.tar' --output scores --limit 500
  python -m jobs.evaluate --faces aligned --output sweep --presets small-swinir --start-steps 80,160,240 --etas 0,0.5,1
  python -m jobs.evaluate --faces aligned --output holes --task inpaint --holes box,half
  python -m jobs.evaluate --faces photographs --output real --grid real --levels clean,mild --limit 100
  python -m jobs.evaluate --set real --faces WIDER-Test --output wider --restored theirs=WIDER-Test-restored
  python -m jobs.evaluate --set 512 --faces portraits --output benchmark --limit 34
Each configuration is one restoration below OUT/runs and one MLflow run under a common parent. The same command again
resumes where the last one stopped."""


def main(argv: Sequence[str] | None = None) -> int:
    """The job: returns its exit code."""
    config = parse(EvaluateConfig, argv, description=__doc__ or "", epilog=EPILOG)
    return carry_out(partial(evaluate, config))


if __name__ == "__main__":
    sys.exit(main())
