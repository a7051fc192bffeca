"""Verify an output of jobs.restore: `python -m jobs.verify --output PATH_OR_URI [--sample K]`.

Reads every marker, object, picture and record and compares them with each other and with the plan. With --sample it
also restores some pictures again from their originals, in other batches, and compares the bits.
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
  0 no differences · 1 differences found, a sentence each · 4 no differences, but unfinished units
  2 bad arguments, no run found, or one that cannot be repeated here · 130 interrupted
A picture restored again must have exactly the run's bytes on the same device type (cpu, cuda)."""


def main(argv: Sequence[str] | None = None) -> int:
    """The job: returns its exit code."""
    config = parse(VerifyConfig, argv, description=__doc__ or "", epilog=EPILOG)
    return carry_out(partial(verify, config), interrupted="interrupted; nothing was written")


if __name__ == "__main__":
    sys.exit(main())
