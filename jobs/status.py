"""Show the status of a run of jobs.restore, or of a cleaning: `python -m jobs.status --output PATH_OR_URI`.

Reads what the job has written so far, during its work or afterwards, from any machine. Changes nothing.
"""

import sys
from collections.abc import Sequence
from functools import partial

from pipeline.cleaning.status import CleaningObserver, is_cleaning
from pipeline.cleaning.status_text import look_at_cleaning
from pipeline.console.commands import carry_out
from pipeline.console.options import parse
from pipeline.ledger.status import Observer
from pipeline.ledger.watch import StatusConfig, look_at_run, watch

EPILOG = """examples:
  python -m jobs.status --output restored
  python -m jobs.status --output s3://archive/restored --watch 30
  python -m jobs.status --output restored --errors 100 --json -
  python -m jobs.status --output cleaned --watch 30
exit codes:
  0 complete, every image accounted for · 4 not finished · 1 the counts do not add up, a sentence for each reason
  2 bad arguments, or neither run nor cleaning found · 130 interrupted"""


def status(config: StatusConfig) -> int:
    """Show what the output holds. Returns the exit code."""
    if is_cleaning(config.output):
        return watch(config, partial(look_at_cleaning, CleaningObserver(config.output), config.errors))
    return watch(config, partial(look_at_run, Observer(config.output), config.errors))


def main(argv: Sequence[str] | None = None) -> int:
    """The job: returns its exit code."""
    config = parse(StatusConfig, argv, description=__doc__ or "", epilog=EPILOG)
    return carry_out(partial(status, config), interrupted="interrupted")


if __name__ == "__main__":
    sys.exit(main())
