"""Review the faces of an output: `python -m jobs.review --output PATH_OR_URI [--serve 127.0.0.1:8080]`.

Writes OUT/review/index.html again, over all faces that are restored by now, and for outputs of earlier versions the
pictures that it shows. Verdicts given on the page are carried out by jobs.restore --verdicts.
"""

import sys
from collections.abc import Sequence
from functools import partial

from pipeline.console.commands import carry_out
from pipeline.console.options import parse
from pipeline.review.run import ReviewConfig, review

EPILOG = """examples:
  python -m jobs.review --output restored                          then open restored/review/index.html
  python -m jobs.review --output restored --serve 127.0.0.1:8080   verdicts are saved straight into the output
  python -m jobs.review --output s3://archive/restored --serve 127.0.0.1:0
  python -m jobs.review --output s3://archive/restored --sign 24   for reviewers elsewhere, for a day
  python -m jobs.restore --input photos --output restored --verdicts restored/review/verdicts.json
exit codes:
  0 the page is written · 2 bad arguments, or no run found · 130 interrupted"""


def main(argv: Sequence[str] | None = None) -> int:
    """The job: returns its exit code."""
    config = parse(ReviewConfig, argv, description=__doc__ or "", epilog=EPILOG)
    return carry_out(partial(review, config), interrupted="interrupted; the same command goes on")


if __name__ == "__main__":
    sys.exit(main())
