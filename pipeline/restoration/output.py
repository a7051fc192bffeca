"""The options of what a restoration writes, and where."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pipeline.console.options import UsageError, option, require


@dataclass(frozen=True)
class OutputOptions:
    """Where to, what is written, and what counts as a success."""

    uri: str = option(help="folder or s3:// prefix to write to", metavar="PATH_OR_URI", flag="output")
    save_faces: bool = option(False, help="also write the aligned crops before and after", pixels=True)
    max_error_rate: float = option(0.1, help="stop and exit 3 when more than this share of the images fails")
    strict: bool = option(False, help="exit 4 when any image failed")
    retry: Literal["failed"] | None = option(None, help="do the units again in which images failed")
    reason: str | None = option(
        None,
        help="with --retry: only units with a failure of this reason or stage, as jobs.status names them",
        metavar="REASON_OR_STAGE",
    )
    verdicts: str | None = option(
        None,
        help="carry out what people said of restored faces on the page OUT/review/index.html: rejected faces get their "
        "original pixels back, those to redo are restored with the settings named, everything else keeps its bytes",
        metavar="FILE",
    )
    review: Literal["on", "off"] = option(
        "on", help="write the page to review faces on, OUT/review/index.html, and its pictures"
    )
    label: Literal["xmp", "none"] | None = option(
        None,
        help="say in each restored picture, in XMP (in a sidecar NAME.xmp where its file can not), that a network "
        "restored faces of it, which one and how (default: xmp; an output that was begun without goes on without)",
    )
    label_date: str | None = option(
        None,
        help="a date for the label, as 2026-11-27; without it the label names no time, so that a picture has the same "
        "bytes on every day",
        metavar="DATE",
    )
    convert: Literal["none", "png", "tiff"] = option(
        "none",
        help="deliver pictures that can not be written back as the kind they are (some HEIC, TIFF, JPEG 2000, JPEG XL, "
        "AVIF: docs/formats.md) as PNG or TIFF of their depth, NAME.heic.png or NAME.heic.tif, where a face of theirs "
        "was restored; with none they are skipped",
    )
    new_run: bool = option(
        False,
        help="where the output holds a run with other settings or of another input, delete what that run left and "
        "begin again",
    )
    redo_changed: bool = option(
        False,
        help="do pictures again whose files have changed since they were planned (else a changed file is refused)",
    )
    dry_run: bool = option(False, help="count shards, images and faces, estimate the time, touch no model")

    def __post_init__(self) -> None:
        if self.reason is not None and not self.retry:
            raise UsageError(f"--reason {self.reason} says what to retry; give --retry failed with it")
        if self.retry and self.redo_changed:
            raise UsageError("--retry and --redo-changed are two orders; give one, and the other after it")
        if self.label_date is not None:
            self._check_date(self.label_date)
        if self.verdicts is not None and (self.retry or self.redo_changed or self.new_run):
            raise UsageError(
                "--verdicts is an order of its own; give --retry, --redo-changed or --new-run before or after it"
            )
        require(self, {"--max-error-rate must lie in [0, 1]": 0 <= self.max_error_rate <= 1})

    def _check_date(self, date: str) -> None:
        """Raise UsageError for a date that is none, or that would stand nowhere."""
        try:
            datetime.fromisoformat(date)
        except ValueError:
            raise UsageError(f"--label-date must be a date as 2026-11-27, got {date!r}") from None
        if self.label == "none":
            raise UsageError(f"--label-date {date} stands in the label; leave it or --label none out")
