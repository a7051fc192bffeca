"""The review of an output: its page made again, signed or served."""

import os
import sys
from dataclasses import dataclass
from functools import partial

from pipeline.console.commands import OK, say
from pipeline.console.options import UsageError, option
from pipeline.console.progress import Progress, WaitNotice
from pipeline.io import layout, store
from pipeline.io.uris import is_s3
from pipeline.ledger.output import BROKEN, Run, open_run
from pipeline.restoration.method import Restorer, bounds_of, choose_method
from pipeline.restoration.recorded import recorded
from pipeline.restoration.review import write_review
from pipeline.review.server import serve
from pipeline.review.tiles import lacking, make_tiles

# Threads that make tiles: decoding takes whole cores.
MOST_THREADS = 16


@dataclass(frozen=True)
class ReviewConfig:
    """The options of a review."""

    output: str = option(
        help="the --output of a jobs.restore command: a folder or s3:// prefix",
        group="what",
        metavar="PATH_OR_URI",
    )
    serve: str | None = option(
        None,
        help="show the page in this machine's browser, and save verdicts straight into the output: 127.0.0.1:8080, or "
        "port 0 for a free one; another address than loopback can be reached by others",
        group="how",
        metavar="HOST:PORT",
    )
    sign: float | None = option(
        None,
        help="for an output on S3: write the page with signed addresses, at which anybody who has the page's own can "
        "look at its faces for so many hours",
        group="how",
        metavar="HOURS",
    )

    def __post_init__(self) -> None:
        if self.serve is not None:
            host_and_port(self.serve)
        if self.sign is not None and not (0 < self.sign <= 168):
            raise UsageError(f"--sign must be above 0 and at most 168 hours, got {self.sign:g}")
        if self.sign is not None and not is_s3(self.output):
            raise UsageError(
                f"--sign is for an output on S3, got {self.output}; open {layout.REVIEW_PAGE} or give --serve"
            )
        if self.sign is not None and self.serve is not None:
            raise UsageError("--sign and --serve are two ways to show the page; give one of them")


def host_and_port(text: str) -> tuple[str, int]:
    """The parts of HOST:PORT. Raises UsageError."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"--serve must be HOST:PORT, as 127.0.0.1:8080, got {text!r}")
    return host.strip("[]"), int(port)


def review(config: ReviewConfig) -> int:
    """Make the page again, with tiles where the run wrote none, and show it as wanted; the exit code."""
    run, findings = open_run(config.output)
    if findings:
        raise UsageError(findings[0].sentence)
    restorer = restorer_of(run)
    add_tiles(run, restorer)
    sign = None
    if config.sign is not None:
        sign = partial(store.signed_address, seconds=round(config.sign * 3600))
    with WaitNotice("writing the page"):
        faces = write_review(config.output, run, restorer, sign=sign)
    page = store.join(config.output, layout.REVIEW_PAGE)
    print(f"faces    {faces}")
    print(f"page     {page if sign is None else sign(page)}")
    if config.serve is not None:
        serve(config.output, *host_and_port(config.serve), say)
    return OK


def restorer_of(run: Run) -> Restorer:
    """The method of a run, without its weights. Raises UsageError where the run file lacks it."""
    try:
        config, preset = recorded(run, None)
        preset, method = choose_method(config, preset)
    except BROKEN as error:
        raise UsageError(
            f"the run file of {run.output} lacks what its page says of the method ({type(error).__name__}: {error})"
        ) from error
    return Restorer(preset, method, {}, bounds_of(config, preset))


def add_tiles(run: Run, restorer: Restorer) -> None:
    """Make the tiles of units that have none, and say how many faces can not be shown."""
    units = lacking(run)
    if not units:
        return
    tiles = missing = 0
    threads = min(os.cpu_count() or 1, MOST_THREADS)
    images = sum(len(unit.images) for unit in units)
    with Progress(images, 0, sys.stderr, bad="not shown") as progress:
        for unit, made in make_tiles(run, units, restorer.frame, threads):
            tiles, missing = tiles + made.tiles, missing + made.missing
            progress.add(len(unit.images), made.tiles, made.missing)
    if missing:
        say(
            f"{missing} faces are not shown: their pictures, as they came or as delivered, can not be read any more"
        )
