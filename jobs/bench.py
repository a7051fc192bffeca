"""Measure the engine, and the pipeline around it, against a plain loop: `python -m jobs.bench`.

The plain loop takes faces through Algorithm 1 with the networks as the official program has them, eager, one at a
time in float32; --plain-batches and --plain-precisions add others, and speeds are given as ratios to the first and to
the best of them. All variants are measured in turn in one process; absolute times depend on the machine, CPU seconds
less so. The last column is the share of the machine's limit that a variant reaches: FLOPs and bytes of the network
calls, counted operation by operation, over measured ceilings.
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
  python -m jobs.bench --plain-batches 1,4 --plain-precisions float32,bfloat16
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
