"""Restore the faces of an archive: `python -m jobs.restore --input PATH_OR_URI --output PATH_OR_URI`."""

import sys
from collections.abc import Sequence
from functools import partial

from pipeline.console.commands import carry_out
from pipeline.console.options import parse
from pipeline.restoration.config import RestoreConfig
from pipeline.restoration.start import run

EPILOG = """examples:
  python -m jobs.restore --input photos --output restored --dry-run
  python -m jobs.restore --input photos --output restored
  python -m jobs.restore --input s3://archive/shards --output s3://archive/restored --engines 8
  ray job submit --address http://HEAD:8265 --working-dir . -- python -m jobs.restore --input ... --output ...
The same command again resumes where the last one stopped."""


def main(argv: Sequence[str] | None = None) -> int:
    """The job: returns its exit code."""
    config = parse(RestoreConfig, argv, description=__doc__ or "", epilog=EPILOG)
    return carry_out(partial(run, config))


if __name__ == "__main__":
    sys.exit(main())
