"""Clean a dataset: keep, repair or drop each picture, and write a version of what is left.

`python -m jobs.clean --input PATH_OR_URI --output PATH_OR_URI`; the same command again processes new pictures.
"""

import sys
from collections.abc import Sequence
from typing import Any

from pipeline.cleaning.options import CleanConfig, policy_of
from pipeline.cleaning.plan import make_plan
from pipeline.cleaning.run import run
from pipeline.console.commands import carry_out
from pipeline.console.options import parse

EPILOG = """examples:
  python -m jobs.clean --input photos --output cleaned --dry-run      measures and reports; no repairs, no version
  python -m jobs.clean --input photos --output cleaned
  python -m jobs.clean --input s3://in/shards --output s3://out/cleaned --policy policy.toml --fail-if "no_face>0.2"
exit codes:
  0 version written, or nothing new · 2 bad arguments · 3 more failed repairs than --max-error-rate allows
  5 a condition of --fail-if holds · 75 another start is running · 130 interrupted · 1 anything unexpected
The same command again resumes where the last one stopped, and does nothing where nothing is new."""


def parse_clean(argv: Sequence[str] | None) -> tuple[CleanConfig, dict[str, Any]]:
    """The configuration, and the further options of jobs.restore from the policy file."""
    description = __doc__ or ""
    defaults, restore = policy_of(parse(CleanConfig, argv, description, EPILOG))
    return parse(CleanConfig, argv, description, EPILOG, defaults), restore


def main(argv: Sequence[str] | None = None) -> int:
    """The job: returns its exit code."""
    return carry_out(lambda: run(make_plan(*parse_clean(argv))))


if __name__ == "__main__":
    sys.exit(main())
