"""Measure the engine, and the pipeline around it, against a plain loop: `python -m jobs.bench`.

The plain loop takes one face at a time through Algorithm 1, eager float32, as the official program does. All variants
are measured in turn in one process and printed as ratios; absolute times depend on the machine. The roofline column is
the share of the machine's limit that a variant reaches: counted FLOPs and bytes of the network calls over measured
ceilings.
"""

import sys
from collections.abc import Sequence
from functools import partial

from pipeline.console.commands import carry_out
from pipeline.console.options import parse
from pipeline.evaluation.speed import run
from pipeline.evaluation.subject import BenchConfig

EPILOG = """examples:
  python -m jobs.bench                                        plain loop, engine with one slot and with many
  python -m jobs.bench --pipeline --faces 96 --repeats 3      also the whole pipeline around the engine
  python -m jobs.bench --preset difface-512-swinir --faces 2 --start-step 8 --slots 1,2
  python -m jobs.bench --levers                               one network call in several implementations
  python -m jobs.bench --soak 10000 --start-step 8            memory of the process over many faces"""


def main(argv: Sequence[str] | None = None) -> int:
    """The job: returns its exit code."""
    config = parse(BenchConfig, argv, description=__doc__ or "", epilog=EPILOG)
    return carry_out(partial(run, config))


if __name__ == "__main__":
    sys.exit(main())
