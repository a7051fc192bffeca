"""Write a small archive of degraded photographs and restore it: `python -m jobs.demo`."""

import sys
from collections.abc import Sequence
from functools import partial

from pipeline.console.commands import carry_out
from pipeline.console.options import parse
from pipeline.restoration.demo import DemoConfig, run


def main(argv: Sequence[str] | None = None) -> int:
    """Write the archive and, by default, restore it. Returns the exit code."""
    config = parse(
        DemoConfig, argv, "Write a small archive of degraded public-domain photographs, and restore it."
    )
    return carry_out(partial(run, config))


if __name__ == "__main__":
    sys.exit(main())
