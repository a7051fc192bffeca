"""Show the status of a run of jobs.restore: `python -m jobs.status --output PATH_OR_URI`.

Reads what the run has written so far, during the run or afterwards, from any machine. Changes nothing.
"""

import sys
from collections.abc import Sequence
from functools import partial

from pipeline.console.commands import carry_out
from pipeline.console.options import parse
from pipeline.ledger.watch import StatusConfig, run

EPILOG = """examples:
  python -m jobs.status --output restored
  python -m jobs.status --output s3://archive/restored --watch 30
  python -m jobs.status --output restored --errors 100 --json -
exit codes:
  0 complete, every image accounted for · 4 not finished · 1 the counts do not add up, a sentence for each reason
  2 bad arguments, or no run found · 130 interrupted"""


def main(argv: Sequence[str] | None = None) -> int:
    """The job: returns its exit code."""
    config = parse(StatusConfig, argv, description=__doc__ or "", epilog=EPILOG)
    return carry_out(partial(run, config), interrupted="interrupted")


if __name__ == "__main__":
    sys.exit(main())
