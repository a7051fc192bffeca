"""The models there are: `python -m jobs.models list | fetch | mirror | check`.

Lists presets, face detectors, background networks and the networks of metrics with their files, terms and
whereabouts; fetches published files, going on where a broken download stopped; mirrors them to a folder or bucket,
from which everything works without the internet; and checks every copy against its digest.
"""

import sys
from collections.abc import Sequence
from functools import partial

from pipeline.console.commands import carry_out
from pipeline.console.options import parse
from pipeline.models.catalogue import ModelsConfig, run

EPILOG = """examples:
  python -m jobs.models                                          what there is, and what of it is on this machine
  python -m jobs.models fetch difface-512-swinir                 fetch its files; again after a break: goes on
  python -m jobs.models mirror difface-512-swinir retinaface-resnet50 realesrgan-x2plus --to s3://models/difface
  python -m jobs.models check --weights-dir s3://models/difface  read the mirror, and all else that is here
  python -m jobs.models mirror album.toml --to /mnt/models       a preset of one's own, its file too
  python -m jobs.restore --preset difface-512-swinir --weights-dir s3://models/difface ...
Files that their publishers give no digest for are recorded at the first fetch, in NAME.sha256 beside them.
exit codes:
  0 done · 1 a file could not be had, does not fit its network, or is not what its digest says
  2 bad arguments · 130 interrupted; the same command goes on"""


def main(argv: Sequence[str] | None = None) -> int:
    """The job: returns its exit code."""
    config = parse(ModelsConfig, argv, description=__doc__ or "", epilog=EPILOG)
    return carry_out(partial(run, config))


if __name__ == "__main__":
    sys.exit(main())
