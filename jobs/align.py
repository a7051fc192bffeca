"""Cut aligned face crops out of pictures, as tar shards to train on: one face per picture, one tar per input shard.

`python -m jobs.align --input 'pictures or shards' --output FOLDER --side 64`
"""

import sys
from collections.abc import Sequence
from functools import partial

from pipeline.console.commands import carry_out
from pipeline.console.options import parse
from pipeline.training.align import AlignConfig, align


def main(argv: Sequence[str] | None = None) -> int:
    """The job: returns its exit code."""
    config = parse(AlignConfig, argv, description=__doc__ or "")
    return carry_out(partial(align, config))


if __name__ == "__main__":
    sys.exit(main())
