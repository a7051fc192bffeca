"""Package an output for an archive: `python -m jobs.package --output PATH_OR_URI --bag PATH_OR_URI [--premis]`.

Makes a BagIt bag of what a run delivered, with its records and report. The same command again goes on where it stopped.
"""

import sys
from collections.abc import Sequence
from functools import partial

from pipeline.console.commands import carry_out
from pipeline.console.options import parse
from pipeline.delivery.run import PackageConfig, package

EPILOG = """examples:
  python -m jobs.package --output restored --bag bag --premis --organization "City Archive"
  python -m jobs.package --output s3://archive/restored --bag s3://delivery/2026-11
  python -m jobs.package --output restored --bag bag --sign-cert chain.pem --sign-key key.pem
exit codes:
  0 the bag is whole · 1 objects are missing or altered, a sentence each · 4 the run is not finished (see --partial)
  2 bad arguments, no run found, or a place that holds something else · 130 interrupted
Keys are read by this process alone, and written nowhere."""


def main(argv: Sequence[str] | None = None) -> int:
    """The job: returns its exit code."""
    config = parse(PackageConfig, argv, description=__doc__ or "", epilog=EPILOG)
    return carry_out(partial(package, config))


if __name__ == "__main__":
    sys.exit(main())
