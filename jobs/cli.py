"""The console command `difface`: one name in front of every job.

Each job is also a module of its own (`python -m jobs.restore ...`), which is how a cluster starts it.
"""

import difflib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module, metadata

from pipeline.console.streams import escape_unencodable

DISTRIBUTION = "difface-pipeline"
BAD_ARGUMENTS = 2


@dataclass(frozen=True)
class Job:
    """A module with `main(argv) -> int`, imported only when it is run: most of them import torch."""

    module: str
    summary: str


JOBS: Mapping[str, Job] = {
    "restore": Job(
        "jobs.restore", "restore the faces of an archive: folder, tar shards or Parquet, local or s3://"
    ),
    "clean": Job(
        "jobs.clean",
        "keep, repair or drop each picture of a dataset, incrementally as it grows; versions, report",
    ),
    "status": Job(
        "jobs.status", "show the status of a run: units done and planned, rate, outcomes, last errors"
    ),
    "review": Job(
        "jobs.review", "look at every restored face of a run, accept or reject it, or have it restored again"
    ),
    "verify": Job("jobs.verify", "read an output again, restore a sample again, and report every difference"),
    "package": Job(
        "jobs.package", "package an output for an archive: a BagIt bag, PREMIS events, C2PA signatures"
    ),
    "compare": Job("jobs.compare", "compare two runs over the same pictures, face by face"),
    "models": Job("jobs.models", "list, fetch, mirror and check the models that presets name"),
    "demo": Job("jobs.demo", "write a small archive of public-domain photographs and restore it"),
    "align": Job("jobs.align", "cut aligned face crops out of pictures, to train on"),
    "train-estimator": Job("jobs.train_estimator", "train the estimator: degraded face → clean face"),
    "train-prior": Job("jobs.train_prior", "train the diffusion prior on clean faces"),
    "evaluate": Job("jobs.evaluate", "score a preset on a test set: PSNR, SSIM, LPIPS, identity, FID"),
    "calibrate": Job("jobs.calibrate", "fit how a preset treats a face by how damaged it is"),
    "reference": Job("jobs.reference", "feature statistics of a set of faces, the reference of FID"),
    "figures": Job("jobs.figures", "draw the paper's figures: what N and η do to faces and their errors"),
    "bench": Job("jobs.bench", "measure faces per second on this machine"),
}

EXAMPLES = """\
first steps:
  difface demo                                                   a whole run on this machine, nothing to prepare
  difface restore --input PHOTOS --output OUT --dry-run          counts images and faces, estimates the time
  difface restore --input PHOTOS --output OUT                    restores; the same command again resumes
  difface restore --input s3://bucket/in --output s3://bucket/out
  difface status --output OUT --watch 10                         its progress, from another terminal
  difface verify --output OUT --sample 20                        checks every output, restores 20 pictures again

exit codes of restore:
  0 every image accounted for · 2 bad arguments, or an output that belongs to another run
  3 more errors than --max-error-rate allows · 4 failures within the budget, with --strict
  130 interrupted, state saved · 1 anything unexpected

`difface JOB --help` lists the options of one job."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job named first, with the arguments after it. Returns its exit code, 2 for an unknown name."""
    escape_unencodable()
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in {"-h", "--help"}:
        print(help_text())
        return 0 if arguments else BAD_ARGUMENTS
    if arguments[0] in {"-V", "--version"}:
        print(f"difface {version()}")
        return 0
    name, *rest = arguments
    if name not in JOBS:
        print(unknown(name), file=sys.stderr)
        return BAD_ARGUMENTS
    code: int = import_module(JOBS[name].module).main(rest)
    return code


def help_text() -> str:
    """What `difface --help` prints."""
    width = max(map(len, JOBS))
    jobs = "\n".join(f"  {name:<{width}}  {job.summary}" for name, job in JOBS.items())
    return (
        "usage: difface JOB [options]\n\n"
        "Restores faces in archives of photographs with DifFace, at the scale of a cluster.\n\n"
        f"jobs:\n{jobs}\n\n{EXAMPLES}"
    )


def unknown(name: str) -> str:
    """One sentence for a job that does not exist, with the nearest name that does."""
    near = difflib.get_close_matches(name, JOBS, n=1)
    guess = f"did you mean '{near[0]}'?" if near else f"choose one of {', '.join(JOBS)}."
    return f"difface: unknown job '{name}'; {guess}"


def version() -> str:
    """The installed version, or a note where the program runs from a working directory, as on a cluster."""
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "(not installed: running from a working directory)"


if __name__ == "__main__":
    sys.exit(main())
