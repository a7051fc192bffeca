"""Manage model weights: `python -m jobs.models list | fetch | mirror | check`.

Lists presets, face detectors, background networks and the networks of metrics with their files, licences and
locations; fetches published files, resuming interrupted downloads; mirrors them to a folder or bucket, from which
everything works offline; and checks every copy against its digest.
"""

import sys
from collections.abc import Sequence
from functools import partial

from pipeline.console.commands import carry_out
from pipeline.console.options import parse
from pipeline.models.options import ModelsConfig
from pipeline.models.run import run

EPILOG = """examples:
  python -m jobs.models                                          all models, and which files are on this machine
  python -m jobs.models fetch difface-512-swinir                 fetch its files; the same command resumes
  python -m jobs.models mirror difface-512-swinir retinaface-resnet50 realesrgan-x2plus --to s3://models/difface
  python -m jobs.models check --weights-dir s3://models/difface  check the mirror and all local copies
  python -m jobs.models mirror album.toml --to /mnt/models       a preset file and its weights
  python -m jobs.restore --preset difface-512-swinir --weights-dir s3://models/difface ...
Where a publisher gives no digest, that of the first fetch is recorded in NAME.sha256 beside the file.
exit codes:
  0 done · 1 a file is not available, does not fit its network, or does not match its digest
  2 bad arguments · 130 interrupted; the same command goes on"""


def main(argv: Sequence[str] | None = None) -> int:
    """The job: returns its exit code."""
    config = parse(ModelsConfig, argv, description=__doc__ or "", epilog=EPILOG)
    return carry_out(partial(run, config))


if __name__ == "__main__":
    sys.exit(main())
