"""One start of a cleaning: measurement, verdicts, repairs, version, report."""

import hashlib
import json
import os
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.cleaning.assess import UNREAD, AssessUnit
from pipeline.cleaning.intake import Intake
from pipeline.cleaning.note import Note, Phase
from pipeline.cleaning.outcome import finish, gate_code, summary
from pipeline.cleaning.plan import SAME, Plan, nothing_new
from pipeline.cleaning.repairs import Repaired, picture_of, read_results, with_repairs
from pipeline.cleaning.report import Cost, write_report
from pipeline.cleaning.verdicts import assign_verdicts
from pipeline.cleaning.versions import (
    MANIFEST,
    Version,
    counts,
    last_version,
    listing_digest,
    manifest_path,
    read_manifest,
    same_pictures,
    table_bytes,
    tombstones,
    write_version,
)
from pipeline.console.commands import BUSY, INTERRUPTED, OK, UNEXPECTED, interrupt, on_stop_signals, say
from pipeline.console.options import UsageError, with_values
from pipeline.console.progress import Progress, WaitNotice
from pipeline.console.work_counts import Report
from pipeline.io import layout, store
from pipeline.io.errors import redact
from pipeline.io.shards import list_input
from pipeline.io.units import Kind
from pipeline.ledger.lease import AlreadyLeased, Lease
from pipeline.ledger.ledger import Ledger
from pipeline.networks.cost import face_cost, seconds_per_face
from pipeline.records.fingerprint import fingerprint_digest
from pipeline.records.rows import Row
from pipeline.restoration.board import Board
from pipeline.restoration.flow import MOST_DEATHS, connect, run_tasks
from pipeline.restoration.method import settle_method
from pipeline.restoration.run import DRAIN_SECONDS, Restoration
from pipeline.restoration.start import check_places, listed_files, repeatable
from pipeline.stages.align import DetectorChoice


class Cleaning:
    """One start on an output that this process drives."""

    def __init__(
        self, plan: Plan, kind: Kind, entries: Sequence[store.Entry], last: Version | None, lease: Lease
    ) -> None:
        self.plan, self.config, self.lease = plan, plan.config, lease
        self.entries, self.last = entries, last
        self.parent = MANIFEST.empty_table() if last is None else read_manifest(self.config.output, last)
        folder = store.join(self.config.output, "measurements", plan.measuring)
        same = last is not None and last.measuring == plan.measuring
        self.intake = Intake(folder, kind, entries, self.parent if same else None)
        self.cost = Cost(began=time.monotonic())
        self._unread: list[bytes] = []
        self._stopping = False
        self._drain_until = 0.0

    def run(self) -> int:
        """Measure, assign verdicts, repair, write. Returns the exit code."""
        pending = self.intake.pending(self.config.unit_images, self.config.image_column)
        say(self._work_ahead(pending))
        self._note_plan(pending)
        code = self._measure(pending) if pending else OK
        if code != OK:
            return code
        self._enter("deciding")
        rows = self._with_verdicts(self.intake.table(self._unread))
        repair = ""
        if self.config.repair and not self.config.dry_run:
            code, repair, rows = self._repair(rows)
            if code != OK:
                return code
        self._enter("writing")
        return self._conclude(rows, repair)

    def _note_plan(self, pending: Sequence[Row]) -> None:
        """Write what this start has to do, for jobs.status."""
        units, images = self.intake.measured()
        self._note = Note(
            version=self._number,
            input=self.config.input,
            phase="measuring",
            began_at=time.time(),
            units=len(pending),
            images=images_of(pending),
            units_before=units,
            images_before=images,
            measurements=f"measurements/{self.plan.measuring}",
            dry_run=self.config.dry_run,
        )
        self._note.write(self.config.output)

    def _enter(self, phase: Phase, **changed: str) -> None:
        """Note the phase that begins, unless another start has taken over."""
        if self.lease.successor is None:
            self._note = replace(self._note, phase=phase, **changed)  # type: ignore[arg-type]  # texts only
            self._note.write(self.config.output)

    def _work_ahead(self, pending: Sequence[Row]) -> str:
        known = self.intake.carried.num_rows
        as_in = f", {known} pictures as in version {self.last.number}" if self.last and known else ""
        return f"{len(self.entries)} files{as_in}; {len(pending)} units to measure"

    # ---- measurement

    def _measure(self, pending: Sequence[Row]) -> int:
        """Measure the units; those left at the end are measured by the next start. Returns the exit code."""
        left = {row["unit"]: row for row in pending}
        with Progress(images_of(pending), 0, bad="unreadable", now="starting Ray") as progress:
            # Ray installs handlers of its own; the end of the block restores ours
            with on_stop_signals(interrupt):
                connect(self.config.ray_address)
            with on_stop_signals(self._stop):
                for careful in (False, True):
                    if left and not self._ending:
                        with closing(Board(say)) as board:
                            progress.follow(board.poll)
                            self._run_units(left, progress, board.report, careful)
        if self.lease.successor is not None:
            say(f"{self.lease.successor.who} has taken over this output; this start ends")
        if self._ending:
            return INTERRUPTED
        if left:
            say(f"error: {len(left)} units could not be measured; run the same command again")
        return UNEXPECTED if left else OK

    @property
    def _ending(self) -> bool:
        return self._stopping or self.lease.successor is not None

    def _run_units(self, left: dict[str, Row], progress: Progress, report: Report, careful: bool) -> None:
        """Measure the units in `left`, removing those done.

        careful: each picture in a process of its own, so that one that kills its process fails alone.
        """
        c = self.config
        detector = DetectorChoice(c.detector, c.min_score, c.weights_dir)
        folder = store.join(c.output, "measurements", self.plan.measuring)
        stage = AssessUnit(
            folder,
            self.plan.preset.side,
            detector,
            c.max_pixels,
            c.image_column,
            self.lease.stop_uri,
            careful,
            report,
        )
        self._drain_until = time.monotonic() + DRAIN_SECONDS
        for row in run_tasks(list(left.values()), stage, MOST_DEATHS):
            if self._stopping and time.monotonic() > self._drain_until:
                return
            if row.get("undelivered"):
                say(f"warning: unit {row['unit']} was not measured: {row['undelivered']}")
            if row.get("images") is None:
                continue
            del left[row["unit"]]
            self._unread += [row["table"]] if row["table"] else []
            self.cost.add(row)
            self._drain_until = time.monotonic() + DRAIN_SECONDS
            progress.add(row["images"], row["faces"], row["unreadable"])

    def _stop(self) -> None:
        """First signal: start nothing new, finish units in flight. Second: exit at once."""
        if self._stopping:
            os._exit(INTERRUPTED)
        self._stopping = True
        self._drain_until = time.monotonic() + DRAIN_SECONDS
        self.lease.stop()
        say("stopping: units in flight are finished first (press again to exit at once)")

    # ---- verdicts

    def _with_verdicts(self, rows: pa.Table) -> pa.Table:
        """The rows with their verdicts."""
        before = self.parent.filter(pc.not_equal(self.parent.column("verdict"), "deleted"))
        index = pc.index_in(identity(rows), value_set=identity(before).combine_chunks())
        good = pc.is_in(before.column("verdict"), pa.array(["keep", "repair"]))
        settled = pc.fill_null(good.combine_chunks().take(index.combine_chunks()), False)
        found = assign_verdicts(rows, settled.to_numpy(zero_copy_only=False), self.config)
        since = before.column("since").combine_chunks().take(index.combine_chunks())
        names = rows.column("name").to_numpy()
        columns = {
            "verdict": pa.array(found.verdict, pa.string()),
            "reason": pa.array(found.names(), pa.string()),
            "repeats": pa.array(
                np.where(found.repeats >= 0, names[found.repeats], "") if len(names) else [], pa.string()
            ),
            "repaired": pa.array([""] * len(names), pa.string()),
            "repaired_sha256": pa.array([""] * len(names), pa.string()),
            "since": pc.fill_null(since, self._number),
        }
        for name, column in columns.items():
            rows = rows.append_column(name, column)
        return rows.cast(MANIFEST)

    @property
    def _number(self) -> int:
        return self.last.number + 1 if self.last else 1

    # ---- repairs

    def _repair(self, rows: pa.Table) -> tuple[int, str, pa.Table]:
        """Restore the pictures to repair: exit code, the method's digest, and the rows with the results.

        Every method has one output below `repairs`, with pictures named after their bytes and shared by all versions.
        """
        wanted = np.flatnonzero(rows.column("verdict").to_numpy() == "repair")
        if not len(wanted):
            return OK, "", rows
        plan, config = self.plan, self.config
        restorer, settings = settle_method(plan.restore, plan.preset, plan.method)
        repair = fingerprint_digest(settings)
        place = f"repairs/{repair}"
        pictures = [picture_of(row) for row in rows.take(pa.array(wanted)).to_pylist()]
        paths = self._repaired_before(repair)
        new = {p.entry.path: p for p in pictures if p.sha256 not in paths}
        if new:
            name = store.name_of(config.output)
            output = store.join(config.output, place)
            restore = with_values(plan.restore, output=output, run_name=f"{name} repairs {repair}")
            self._enter("repairing", repairs=place)
            say(f"{len(new)} pictures to repair, {len(pictures) - len(new)} repaired before")
            ledger = Ledger(output, settings, self.lease.is_held)
            repeat = {"config": repeatable(restore), "preset": asdict(plan.preset)}
            ledger.claim(config.input, repeat)
            machine = restore.machine
            addresses, entries = [p.address for p in new.values()], [p.entry for p in new.values()]
            ledger.plan_pictures(addresses, entries, machine.shard_images, machine.unit_images)
            began, done = time.monotonic(), ledger.resume()
            code = Restoration(restore, restorer, ledger, done, self.lease).run()
            if code != OK:
                return code, repair, rows
            self.cost.repair_seconds = time.monotonic() - began
            for name, result in read_results(output, ledger, new):
                paths[new[name].sha256] = replace(result, path=result.path and f"{place}/{result.path}")
        return OK, repair, with_repairs(rows, wanted, [paths[p.sha256] for p in pictures])

    def _repaired_before(self, repair: str) -> dict[str, "Repaired"]:
        """Pictures that the parent repaired with the same method, by the sha256 of the original."""
        if self.last is None or self.last.repair != repair:
            return {}
        have = self.parent.filter(pc.not_equal(self.parent.column("repaired"), ""))
        columns = have.select(["sha256", "repaired", "repaired_sha256"]).to_pylist()
        return {r["sha256"]: Repaired("restored", r["repaired"], r["repaired_sha256"]) for r in columns}

    # ---- version

    def _conclude(self, rows: pa.Table, repair: str) -> int:
        """Write and report the version, or report that nothing has changed."""
        config, last = self.config, self.last
        unread = pc.sum(pc.equal(rows.column("problem"), UNREAD)).as_py() or 0
        # with unread pictures the next start must not skip the input
        listing = "" if unread else listing_digest(self.entries)
        if last and last.settings == self.plan.settings and not config.dry_run:
            before = self.parent.filter(pc.not_equal(self.parent.column("verdict"), "deleted"))
            if same_pictures(before, rows):
                same = {"version": last.number, "listing": listing, "settings": self.plan.settings}
                store.write_bytes(store.join(config.output, SAME), json.dumps(same).encode())
                return finish(self.plan, last)
        body, gone = self._manifest(rows)
        version = self._version(rows, body, gone, listing, repair)
        self._estimate_cost(rows)
        folder = f"reports/{'census' if config.dry_run else f'{version.number:04d}'}"
        write_report(config.output, folder, version, rows, self.parent, config, self.cost)
        if config.dry_run:
            print(summary(version, config))
            print(f"report         {store.join(config.output, folder, 'index.html')}")
            return gate_code(config, version)
        if self.lease.successor is not None or not write_version(config.output, version, body):
            say(f"another start has written version {version.number}; this one ends")
            return BUSY
        self.intake.take_in()
        return finish(self.plan, version, new=True)

    def _manifest(self, rows: pa.Table) -> tuple[bytes, int]:
        """The manifest's bytes, and the number of deleted pictures."""
        gone = tombstones(self.parent, rows)
        return table_bytes(pa.concat_tables([rows, gone.cast(MANIFEST)]).combine_chunks()), gone.num_rows

    def _version(self, rows: pa.Table, body: bytes, gone: int, listing: str, repair: str) -> Version:
        config, last = self.config, self.last
        new = rows.filter(pc.equal(rows.column("since"), self._number))
        manifest_sha256 = hashlib.sha256(body).hexdigest()
        return Version(
            number=self._number,
            parent=last.number if last else 0,
            parent_sha256=hashlib.sha256(last.to_json()).hexdigest() if last else "",
            input=config.input,
            listing=listing,
            settings=self.plan.settings,
            measuring=self.plan.measuring,
            policy=config.thresholds(),
            repair=repair,
            manifest=manifest_path(self._number, manifest_sha256),
            manifest_sha256=manifest_sha256,
            images=rows.num_rows,
            verdicts=counts(rows.column("verdict")),
            reasons=counts(rows.column("reason")),
            dropped=counts(rows.filter(pc.equal(rows.column("verdict"), "drop")).column("reason")),
            new_images=new.num_rows,
            new_verdicts=counts(new.column("verdict")),
            new_reasons=counts(new.column("reason")),
            deleted=gone,
        )

    def _estimate_cost(self, rows: pa.Table) -> None:
        """Estimate the cost of all repairs from the networks' FLOPs."""
        repairs = rows.filter(pc.equal(rows.column("verdict"), "repair"))
        self.cost.faces_to_repair = pc.sum(repairs.column("faces")).as_py() or 0
        plan = self.plan
        if plan.preset.estimator.kind == "spandrel":
            return  # the architecture, and so the cost, is known only from the weights file
        calls = plan.method.network_calls
        flops = face_cost(plan.preset, calls).flops
        self.cost.gpu_seconds = self.cost.faces_to_repair * flops / (self.config.gpu_tflops * 1e12)
        self.cost.cpu_seconds = self.cost.faces_to_repair * seconds_per_face(plan.preset, calls)


def images_of(pending: Sequence[Row]) -> int:
    """How many pictures units have."""
    return sum(len(json.loads(row["work"])["images"]) for row in pending)


def identity(rows: pa.Table) -> pa.ChunkedArray:
    """A key of picture and bytes, equal for the same picture in another version."""
    return pc.binary_join_element_wise(rows.column("name"), rows.column("sha256"), "\t")


# Folders below the output of a cleaning.
WRITTEN = ("versions", "measurements", "repairs", "reports", "data", layout.LEDGER)


def run(plan: Plan) -> int:
    """List the input; if anything is new, measure, repair, and write a version. Returns the exit code."""
    config = plan.config
    check_places(config.input, config.output, WRITTEN)
    with WaitNotice(f"planning: listing {redact(config.input)}", listed_files()):
        kind, entries = list_input(config.input, config.kind, config.exclude)
    last = last_version(config.output)
    if last and last.input != config.input:
        raise UsageError(
            f"{config.output} has versions of {last.input}, not of {config.input}; choose another --output"
        )
    if last and not config.dry_run and nothing_new(plan, last, listing_digest(entries)):
        return finish(plan, last)
    try:
        with Lease.take(config.output, say) as lease:
            # read again: the previous holder may have written another version
            lease.exit_code = Cleaning(plan, kind, entries, last_version(config.output), lease).run()
            return lease.exit_code
    except AlreadyLeased as error:
        say(f"busy: {error}")
        return BUSY
