"""Verify an output of jobs.restore: `python -m jobs.verify --output PATH_OR_URI [--sample K]`.

Reads every marker, object, picture and record again and compares them with each other and with the plan. With
--sample it also restores some pictures again from their originals, in another batch, and compares the bits.
"""

import sys
from collections.abc import Sequence
from functools import partial

from pipeline.console.commands import carry_out
from pipeline.console.options import parse
from pipeline.verify.verification import VerifyConfig, verify

EPILOG = """examples:
  python -m jobs.verify --output restored
  python -m jobs.verify --output s3://archive/restored --sample 20 --json report.json
exit codes:
  0 all well · 1 differences found, a sentence each · 4 nothing wrong, but units are not done yet
  2 bad arguments, no run there, or one that can not be repeated here · 130 interrupted
A picture restored again must have the run's very bytes on the same type of device (cpu, cuda)."""


def main(argv: Sequence[str] | None = None) -> int:
    """The job: returns its exit code."""
    config = parse(VerifyConfig, argv, description=__doc__ or "", epilog=EPILOG)
    return carry_out(partial(verify, config), interrupted="interrupted; nothing was written")


if __name__ == "__main__":
    sys.exit(main())
