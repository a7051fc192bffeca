"""One start of a restoration: the flow, its bookkeeping, and what people see of it. Not a command itself."""

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

from pipeline.console.commands import (
    HAD_FAILURES,
    INTERRUPTED,
    OK,
    OVER_BUDGET,
    UNEXPECTED,
    interrupt,
    on_stop_signals,
    say,
)
from pipeline.console.options import values_of, with_values
from pipeline.console.progress import Progress, WaitNotice, duration
from pipeline.io import layout, store
from pipeline.ledger.lease import Lease
from pipeline.ledger.ledger import Ledger, Settled, read_run
from pipeline.metrics.distribution import FeatureStatistics
from pipeline.metrics.run_distances import distances_of_run
from pipeline.records.rows import DECISION_TEXTS, LEFT_TEXTS, OUTCOMES, RUNG_TEXTS, Row
from pipeline.records.totals import ShardMetrics, sampling_text
from pipeline.records.verdicts import VERDICT_TEXTS
from pipeline.restoration.board import Board
from pipeline.restoration.config import RestoreConfig
from pipeline.restoration.flow import Resources, connect, fit_resources, run_flow
from pipeline.restoration.method import Restorer, measure_stage, publish_stage, read_stage, restore_stage
from pipeline.restoration.report import write_report
from pipeline.restoration.review import write_review
from pipeline.stages.engines import settled_precision
from pipeline.stages.load import LoadUnit
from pipeline.tracking.address import settle_uri, ui_command
from pipeline.tracking.client import Status
from pipeline.tracking.tracker import RunTracker

# A stopping run leaves when no unit in flight was finished for so long.
DRAIN_SECONDS = 300.0
# After so many units in a row that could not be written, the output counts as lost.
MOST_UNDELIVERED = 16
MEANINGS = {
    OK: "every image accounted for",
    UNEXPECTED: "not every image is accounted for",
    OVER_BUDGET: "more failures than --max-error-rate allows",
    HAD_FAILURES: "failures within the budget, but --strict",
    INTERRUPTED: "interrupted; the same command goes on",
}
# How MLflow shows a run that ended so; every other code is FAILED.
STATUSES: dict[int, Status] = {OK: "FINISHED", INTERRUPTED: "KILLED"}


class Restoration:
    """One start of a run: the flow, its bookkeeping, and what people see of it."""

    def __init__(
        self,
        config: RestoreConfig,
        restorer: Restorer,
        ledger: Ledger,
        settled: list[Settled],
        lease: Lease,
        reference: FeatureStatistics | None = None,
    ) -> None:
        self.reference = reference
        # of the restored faces as a set, once the run is done
        self.distances: dict[str, float] = {}
        self.config, self.restorer, self.ledger, self.lease = config, restorer, ledger, lease
        self.mlflow_uri = settle_uri(config.tracking.mlflow_uri, config.output.uri)
        self.began = time.monotonic()
        self._stopping = False
        self._leave_at = 0.0
        self._undelivered_units = self._undelivered_in_a_row = 0
        self.settled = {s.planned.index: s for s in settled}
        with WaitNotice("opening the MLflow run"):
            self.tracker = self._open_tracker()

    def _open_tracker(self) -> RunTracker:
        config, restorer, ledger = self.config, self.restorer, self.ledger
        return RunTracker.open(
            self.mlflow_uri,
            config.tracking.experiment,
            config.tracking.run_name or store.name_of(config.output.uri),
            params=values_of(config)
            | {name: getattr(restorer.method, name) for name in ("eta", "start_step", "steps", "start_rule")},
            tags={f"sha256.{role}": digest for role, digest in restorer.sha256.items()}
            | {"fingerprint": ledger.digest, "preset": restorer.preset.name, "method": config.method.name}
            | config.tracking.tag_values,
            state_uri=store.join(config.output.uri, layout.TRACKING),
            warn=lambda text: say(f"warning: {text}"),
            owns=self.lease.is_held,
        )  # fmt: skip

    def run(self) -> int:
        """Restore the pending units and finish the ledger. An output that can not be written ends the run in order."""
        try:
            return self._run()
        except store.StoreError as error:
            if self.lease.successor is not None:
                return self._leave_to_follower()
            say(f"error: {error}")
            self.lease.reason = str(error)
            self.tracker.finish(STATUSES.get(UNEXPECTED, "FAILED"))
            print_summary(self, UNEXPECTED, time.monotonic() - self.began)
            return UNEXPECTED

    def _run(self) -> int:
        self.tracker.log_input(self.config.input.uri, input_digest(self.ledger))
        for shard in self.settled.values():
            self._track(shard)
        ended = self._restore() if self.ledger.units_pending else OK
        if not self.lease.is_held():
            return self._leave_to_follower()
        code = ended or self._verdict()
        if code not in (INTERRUPTED, UNEXPECTED):
            self._measure_set()
        self._report(code)
        if ended == OK:
            for folder in layout.FOLDERS:
                store.sweep(store.join(self.config.output.uri, folder))
        # last: once it is closed, the same command orders the next retry
        self.ledger.close_retry()
        return code

    def _leave_to_follower(self) -> int:
        """Another start has taken the output over: report and MLflow are its own to write."""
        assert self.lease.successor is not None
        say(f"{self.lease.successor.who} has taken this output over; this one leaves it to that")
        return INTERRUPTED

    def _restore(self) -> int:
        before = self.ledger.totals.counts.images
        with Progress(self.ledger.images_planned, before, now="starting Ray") as progress:
            # Ray installs handlers of its own; at the end of the block ours are back
            with on_stop_signals(interrupt):
                connect(self.config.machine.ray_address)
            resources, device = self._settle_resources()
            with on_stop_signals(self._stop):
                code = self._send_through(resources, device, progress)
                lost = self.ledger.units_pending - self._undelivered_units
                if code == OK and lost:
                    say(
                        f"{lost} units were lost with their workers and are done again, each picture by itself"
                    )
                    code = self._send_through(resources, device, progress, careful=True)
        return code

    def _settle_resources(self) -> tuple[Resources, str]:
        """What the stages may take of the cluster, and the engines' device; the run's number type is settled, too."""
        c = self.config
        resources, device = fit_resources(
            c.machine.device,
            c.machine.engines,
            c.machine.readers,
            c.metrics.gpus if self.restorer.metrics else None,
            c.background.gpus if c.background.network is not None else None,
        )
        precision = self.ledger.settle_precision(settled_precision(c.machine.precision, device))
        self.config = with_values(c, precision=precision)
        self.tracker.set_tags({"precision": precision})
        say(f"{resources.engines} engine(s) on {device} in {precision}, up to {resources.readers} readers")
        return resources, device

    def _send_through(
        self, resources: Resources, device: str, progress: Progress, careful: bool = False
    ) -> int:
        """Send the pending units through the flow; OK unless something stopped it.

        careful: a picture that kills the process that works on it fails alone.
        """
        with closing(Board(say)) as board:
            progress.follow(board.poll, resources.engines)
            return self._follow(self._rows(resources, device, board, careful), progress)

    def _rows(self, resources: Resources, device: str, board: Board, careful: bool) -> Iterator[Row]:
        config, restorer, stop_uri = self.config, self.restorer, self.lease.stop_uri
        return run_flow(
            list(self.ledger.pending()),
            LoadUnit(config.output.uri, self.lease.number),
            replace(read_stage(config, restorer, stop_uri, board.report), careful=careful),
            restore_stage(config, restorer, device, resources.threads, stop_uri, board.report),
            replace(publish_stage(config, restorer, device), careful=careful),
            resources,
            measure=measure_stage(config, restorer, device, resources.gpus_per_measurer),
        )

    def _follow(self, rows: Iterator[Row], progress: Progress) -> int:
        """Enter into the ledger what comes out of the flow; OK unless something stopped it."""
        for row in rows:
            if self._stopping and time.monotonic() > self._leave_at:
                break  # what was in flight has ended, and thousands that were not begun would still come
            if row.get("undelivered") and self._undelivered(row):
                return UNEXPECTED
            if row.get("marker") is None:
                continue  # not begun, because the run is stopping, or not written
            self._undelivered_in_a_row, self.lease.reason = 0, ""
            counts, shard = self.ledger.add(row["marker"])
            self._leave_at = time.monotonic() + DRAIN_SECONDS
            progress.add(counts.images, counts.faces, counts.outcomes["failed"])
            if shard is not None:
                self.settled[shard.planned.index] = shard
                self._track(shard)
            if self._over_budget():
                return OVER_BUDGET
        return INTERRUPTED if self._stopping or self.lease.successor else OK

    def _undelivered(self, row: Row) -> bool:
        """Say that a unit could not be written; True when so many could not that nothing will be."""
        self._undelivered_units += 1
        self._undelivered_in_a_row += 1
        self.lease.reason = str(row["undelivered"])
        say(f"warning: unit {row['unit']} is not done, the next start does it again: {row['undelivered']}")
        if self._undelivered_in_a_row < MOST_UNDELIVERED:
            return False
        self.lease.stop()
        say(f"error: {MOST_UNDELIVERED} units in a row could not be written; stopping")
        return True

    def _stop(self) -> None:
        """First: begin nothing new, finish what is in flight. Second: leave at once."""
        if self._stopping:
            say("stopped; the same command goes on where this one was")
            os._exit(INTERRUPTED)
        self._stopping = True
        self._leave_at = time.monotonic() + DRAIN_SECONDS
        self.lease.stop()
        say("stopping: units in flight are finished first (press again to leave at once)")

    def _track(self, shard: Settled) -> None:
        self.tracker.log_shard(
            shard.planned.index + 1, shard.metrics.means(), round(shard.finished_at * 1000)
        )

    def _over_budget(self) -> bool:
        failed: int = self.ledger.totals.counts.outcomes["failed"]
        return failed > self.config.output.max_error_rate * self.ledger.images_planned

    def _verdict(self) -> int:
        """The exit code of a flow that came to its end."""
        counts = self.ledger.totals.counts
        if not counts.accounted or counts.images != self.ledger.images_planned:
            say(
                f"of {self.ledger.images_planned} planned images {counts.images} are accounted for, with "
                f"{sum(counts.outcomes.values())} outcomes; run the same command again"
            )
            return UNEXPECTED
        if self._over_budget():
            return OVER_BUDGET
        return HAD_FAILURES if self.config.output.strict and counts.outcomes["failed"] else OK

    def _measure_set(self) -> None:
        """Distances of the restored faces as a set, from the records' features."""
        if "features" in self.restorer.metrics:
            self.distances = distances_of_run(self.config.output.uri, self.reference)
            if self.distances:
                self.tracker.log_metrics(len(self.ledger.shards), self.distances)

    def _write_review(self) -> int:
        """Write the page to review faces on, where one is wanted; the number of its faces."""
        if self.config.output.review == "off":
            return 0
        output = self.config.output.uri
        return write_review(output, read_run(output), self.restorer, self.lease.is_held)

    def _report(self, code: int) -> None:
        write_report(self.config.output.uri, summarise(self, code), self.lease.is_held)
        reviewed = self._write_review()
        for name in ("contact_sheet.png", "index.html", "shards.parquet"):
            path = layout.report_path(name)
            if store.exists(uri := store.join(self.config.output.uri, path)):
                self.tracker.log_artifact(uri, path)
        if len(units := self.ledger.environments) > 1:
            each = "; ".join(f"{number} units on {line}" for line, number in units.items())
            say(f"warning: last bits may differ between environments: {each}")
        self.tracker.set_tags({"environment": " | ".join(units)} if units else {})
        waiting = self.tracker.finish(STATUSES.get(code, "FAILED"))
        print_summary(self, code, time.monotonic() - self.began)
        if waiting:
            say("MLflow did not take everything; the same command again delivers the rest")
        print(f"records        {store.join(self.config.output.uri, layout.RECORDS)}")
        print(f"report         {store.join(self.config.output.uri, layout.report_path('index.html'))}")
        print(f"contact sheet  {store.join(self.config.output.uri, layout.report_path('contact_sheet.png'))}")
        if reviewed:
            print(
                f"review         {store.join(self.config.output.uri, layout.REVIEW_PAGE)}  {reviewed} faces"
            )
        print(f"MLflow         {ui_command(self.mlflow_uri)}")


def input_digest(ledger: Ledger) -> str:
    """Changes when any shard of the input does."""
    return hashlib.sha256("".join(p.shard.version for p in ledger.shards).encode()).hexdigest()[:32]


def summarise(restoration: Restoration, code: int) -> dict[str, Any]:
    """What the report says of the run."""
    totals = restoration.ledger.totals
    summary: dict[str, Any] = {
        "title": store.name_of(restoration.config.output.uri),
        "exit_code": code,
        "outcomes": totals.counts.outcomes,
        "images": totals.counts.images,
        "faces": totals.counts.faces,
    }
    summary |= {f"faces {DECISION_TEXTS[decision]}": number for decision, number in totals.decisions.items()}
    summary |= {f"faces restored {RUNG_TEXTS[rung]}": number for rung, number in totals.rungs.items()}
    summary |= {f"faces left, {LEFT_TEXTS[why]}": number for why, number in totals.left_for.items()}
    summary |= {f"faces {VERDICT_TEXTS[what]} in review": number for what, number in totals.verdicts.items()}
    summary |= {name.replace("_", " "): number for name, number in totals.sampling.items()}
    units = restoration.ledger.environments
    return summary | {
        "settings": restoration.ledger.fingerprint
        | {"preset": restoration.restorer.preset.name}
        | {f"environment {i}": f"{line} ({units[line]} units)" for i, line in enumerate(sorted(units), 1)},
        "measured": {name: str(interval) for name, interval in totals.intervals().items()}
        | restoration.distances,
        "means": totals.means(),
        "shards": [
            {"shard": s.planned.shard.name} | s.metrics.means()
            for _, s in sorted(restoration.settled.items())
        ],
    }


def print_summary(restoration: Restoration, code: int, seconds: float) -> None:
    """The table at the end."""
    counts = restoration.ledger.totals.counts
    print()
    for outcome in OUTCOMES:
        print(f"{outcome:<14} {counts.outcomes[outcome]:>8}")
    print(f"{'images':<14} {counts.images:>8}  of {restoration.ledger.images_planned} planned")
    print(f"{'faces':<14} {counts.faces:>8}  {decided(restoration.ledger.totals)}")
    if verdicts := restoration.ledger.totals.verdicts:
        parts = ", ".join(f"{number} {VERDICT_TEXTS[what]}" for what, number in verdicts.items())
        print(f"{'in review':<14} {sum(verdicts.values()):>8}  {parts}")
    if sampling := restoration.ledger.totals.sampling:
        print(f"{'samples':<14} {sampling['faces_sampled']:>8}  {sampling_text(sampling)}")
    for name, interval in restoration.ledger.totals.intervals().items():
        print(f"{name:<14} {interval.mean:>8.4g}  ± {interval.half:.2g} over {interval.faces} faces")
    for name, distance in restoration.distances.items():
        print(f"{name:<14} {distance:>8.4g}")
    if missing := restoration.ledger.totals.sums["truths_missing"]:
        print(f"{'no truth':<14} {missing:>8.0f}  faces")
    print(f"{'time':<14} {duration(seconds):>8}")
    print(f"{'exit code':<14} {code:>8}  {MEANINGS[code]}\n")


def decided(totals: ShardMetrics) -> str:
    """What was decided of the faces, in a line."""
    why = ", ".join(f"{number} {LEFT_TEXTS[why]}" for why, number in totals.left_for.items())
    left = {"left": f"{DECISION_TEXTS['left']} ({why})"} if why else {}
    texts = DECISION_TEXTS | left
    ways = ", ".join(f"{number} {texts[way]}" for way, number in totals.decisions.items() if number)
    rungs = ", ".join(f"{number} {RUNG_TEXTS[rung]}" for rung, number in totals.rungs.items())
    return f"{ways}; of the restored {rungs}" if set(totals.rungs) - {"asked"} else ways
