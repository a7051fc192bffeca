"""Feature statistics of a set of faces, for FID: `python -m jobs.reference --shards SHARDS --output REF.npz`.

The faces are aligned, of the side that is restored. `jobs.restore --metrics features --reference REF.npz` then reports
the FID of the restored faces against them.
"""

import sys
from collections.abc import Sequence
from functools import partial

from pipeline.console.commands import carry_out
from pipeline.console.options import parse
from pipeline.evaluation.reference import ReferenceConfig, run


def main(argv: Sequence[str] | None = None) -> int:
    """The job: returns its exit code."""
    config = parse(ReferenceConfig, argv, description=__doc__ or "")
    return carry_out(partial(run, config), interrupted="interrupted; nothing was written")


if __name__ == "__main__":
    sys.exit(main())
