"""One start of a cleaning: census, verdicts, repairs, version, report. Not a command itself."""

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.cleaning.checks import MEASURES_VERSION
from pipeline.cleaning.gates import parse_gates
from pipeline.cleaning.intake import Intake
from pipeline.cleaning.options import SHARED, CleanConfig
from pipeline.cleaning.policy import EVERY_REASON, REPAIR_FAILED
from pipeline.cleaning.report import Cost, write_report
from pipeline.cleaning.verdicts import judge
from pipeline.cleaning.versions import (
    MANIFEST,
    Version,
    counts,
    listing_digest,
    manifest_path,
    read_manifest,
    same_pictures,
    table_bytes,
    tombstones,
    write_version,
)
from pipeline.console.commands import INTERRUPTED, OK, UNEXPECTED, leave, on_stop_signals, say
from pipeline.console.hints import Report
from pipeline.console.progress import Progress
from pipeline.io import store
from pipeline.io.names import unspelled
from pipeline.io.sample_names import sample_names, suffix_of
from pipeline.io.tables import read_table
from pipeline.io.units import Address, Kind
from pipeline.ledger.lease import Driver
from pipeline.ledger.ledger import Ledger, load_units
from pipeline.networks.cost import face_cost, seconds_per_face
from pipeline.networks.presets import Preset
from pipeline.records.fingerprint import fingerprint_digest
from pipeline.records.rows import Row
from pipeline.restoration.board import Board
from pipeline.restoration.config import RestoreConfig, fingerprint
from pipeline.restoration.flow import MOST_DEATHS, connect, run_tasks
from pipeline.restoration.method import calls_of, choose_method, settle_method
from pipeline.restoration.run import DRAIN_SECONDS, STATUSES, Restoration
from pipeline.restoration.start import repeatable
from pipeline.stages.align import DetectorChoice
from pipeline.stages.assess import UNREAD, AssessUnit
from pipeline.stages.bundle import BundlePictures
from pipeline.tracking.tracker import RunTracker, settle_uri, ui_command

# beside those of jobs.restore
GATE_BROKEN, BUSY = 5, 75
# Listing and settings that came to the last version although files were touched.
SAME = "_ledger/same.json"
Texts = NDArray[np.object_]


@dataclass(frozen=True)
class Plan:
    """A start's settings, and what they come to."""

    config: CleanConfig
    restore: RestoreConfig
    preset: Preset
    chosen: dict[str, Any]

    @property
    def measuring(self) -> str:
        """Digest of what the measurements depend on beside the pictures."""
        c = self.config
        return digest(
            [MEASURES_VERSION, self.preset.side, c.detector, c.min_score, c.image_column, c.max_pixels]
        )

    @property
    def settings(self) -> str:
        """Digest of everything that decides about verdicts and repaired pixels."""
        method = fingerprint(self.restore, self.chosen | {"preset": asdict(self.preset)})
        return digest([self.measuring, self.config.thresholds(), self.config.repair and method])


def digest(value: Any) -> str:
    """Sixteen hexadecimal digits that name settings."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def make_plan(config: CleanConfig, extra: Mapping[str, Any]) -> Plan:
    """The plan of a configuration. extra: further options of jobs.restore. Raises what refuses it."""
    config = replace(config, input=absolute(config.input), output=absolute(config.output))
    names = ("image_column", "weights_dir", "ray_address", "max_error_rate", "experiment")
    values = {"max_crispness": config.min_crispness, "max_scale": config.max_scale} | dict(extra)
    values |= {name: getattr(config, name) for name in (*SHARED, *names)}
    values["mlflow_uri"] = mlflow_uri(config)
    restore = RestoreConfig(input=config.input, output=config.output, **values)
    return Plan(config, restore, *choose_method(restore))


def mlflow_uri(config: CleanConfig) -> str:
    """Where versions and repairs are tracked."""
    return settle_uri(config.mlflow_uri, config.output)


def absolute(uri: str) -> str:
    """A local path made absolute, since tasks run in folders of their own."""
    return uri if store.is_remote(uri) else str(Path(uri.removeprefix("file://")).expanduser().absolute())


def nothing_new(plan: Plan, last: Version, listing: str) -> bool:
    """Whether a start would come to the last version again, as its listing and settings tell."""
    if (last.listing, last.settings) == (listing, plan.settings):
        return True
    uri = store.join(plan.config.output, SAME)
    same = json.loads(store.read_bytes(uri)) if store.exists(uri) else None
    return bool(same == {"version": last.number, "listing": listing, "settings": plan.settings})


class Cleaning:
    """One start on an output whose driver we are."""

    def __init__(
        self, plan: Plan, kind: Kind, entries: Sequence[store.Entry], last: Version | None, driver: Driver
    ) -> None:
        self.plan, self.config, self.driver = plan, plan.config, driver
        self.entries, self.last = entries, last
        self.parent = MANIFEST.empty_table() if last is None else read_manifest(self.config.output, last)
        folder = store.join(self.config.output, "measurements", plan.measuring)
        same = last is not None and last.measuring == plan.measuring
        self.intake = Intake(folder, kind, entries, self.parent if same else None)
        self.cost = Cost(began=time.monotonic())
        self._unread: list[bytes] = []
        self._stopping = False
        self._leave_at = 0.0

    def run(self) -> int:
        """Measure, judge, repair, write. Returns the exit code."""
        pending = self.intake.pending(self.config.unit_images, self.config.image_column)
        say(self._ahead(pending))
        code = self._measure(pending) if pending else OK
        if code != OK:
            return code
        rows = self._judged(self.intake.table(self._unread))
        repair = ""
        if self.config.repair and not self.config.dry_run:
            code, repair, rows = self._repair(rows)
            if code != OK:
                return code
        return self._conclude(rows, repair)

    def _ahead(self, pending: Sequence[Row]) -> str:
        known = self.intake.carried.num_rows
        as_in = f", {known} pictures as in version {self.last.number}" if self.last and known else ""
        return f"{len(self.entries)} files{as_in}; {len(pending)} units to measure"

    # ---- census

    def _measure(self, pending: Sequence[Row]) -> int:
        """Measure the units; what is not measured at the end is left to the next start."""
        left = {row["unit"]: row for row in pending}
        images = sum(len(json.loads(row["work"])["images"]) for row in pending)
        with Progress(images, 0, bad="unreadable", now="starting Ray") as progress:
            # Ray installs handlers of its own; at the end of the block ours are back
            with on_stop_signals(leave):
                connect(self.config.ray_address)
            with on_stop_signals(self._stop):
                for careful in (False, True):
                    if left and not self._ends:
                        with closing(Board(say)) as board:
                            progress.walk(board.poll)
                            self._walk(left, progress, board.report, careful)
        if self.driver.follower is not None:
            say(f"{self.driver.follower.who} has taken this output over; this one leaves it to that")
        if self._ends:
            return INTERRUPTED
        if left:
            say(f"error: {len(left)} units could not be measured; the same command does them again")
        return UNEXPECTED if left else OK

    @property
    def _ends(self) -> bool:
        return self._stopping or self.driver.follower is not None

    def _walk(self, left: dict[str, Row], progress: Progress, report: Report, careful: bool) -> None:
        """Take units out of `left` as they are measured; a picture that kills its worker does so once."""
        c = self.config
        detector = DetectorChoice(c.detector, c.min_score, c.weights_dir)
        folder = store.join(c.output, "measurements", self.plan.measuring)
        stage = AssessUnit(
            folder,
            self.plan.preset.side,
            detector,
            c.max_pixels,
            c.image_column,
            self.driver.stop_uri,
            careful,
            report,
        )
        self._leave_at = time.monotonic() + DRAIN_SECONDS
        for row in run_tasks(list(left.values()), stage, MOST_DEATHS):
            if self._stopping and time.monotonic() > self._leave_at:
                return
            if row.get("undelivered"):
                say(f"warning: unit {row['unit']} is not measured: {row['undelivered']}")
            if row.get("images") is None:
                continue
            del left[row["unit"]]
            self._unread += [row["table"]] if row["table"] else []
            self.cost.add(row)
            self._leave_at = time.monotonic() + DRAIN_SECONDS
            progress.add(row["images"], row["faces"], row["unreadable"])

    def _stop(self) -> None:
        """First: begin nothing new, finish what is in flight. Second: leave at once."""
        if self._stopping:
            os._exit(INTERRUPTED)
        self._stopping = True
        self._leave_at = time.monotonic() + DRAIN_SECONDS
        self.driver.stop()
        say("stopping: units in flight are finished first (press again to leave at once)")

    # ---- verdicts

    def _judged(self, rows: pa.Table) -> pa.Table:
        """The rows with what becomes of them."""
        before = self.parent.filter(pc.not_equal(self.parent.column("verdict"), "deleted"))
        index = pc.index_in(identity(rows), value_set=identity(before).combine_chunks())
        good = pc.is_in(before.column("verdict"), pa.array(["keep", "repair"]))
        settled = pc.fill_null(good.combine_chunks().take(index.combine_chunks()), False)
        found = judge(rows, settled.to_numpy(zero_copy_only=False), self.config)
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
        """Restore what is to be repaired and is not yet: exit code, the method's digest, and the rows with the results.

        Every method has one output below `repairs`, whose pictures are named after their bytes; versions share them.
        """
        wanted = np.flatnonzero(rows.column("verdict").to_numpy() == "repair")
        if not len(wanted):
            return OK, "", rows
        plan, config = self.plan, self.config
        method, settings = settle_method(plan.restore, plan.preset, plan.chosen)
        repair = fingerprint_digest(settings)
        place = f"repairs/{repair}"
        pictures = [picture_of(row) for row in rows.take(pa.array(wanted)).to_pylist()]
        paths = self._repaired_before(repair)
        new = {p.entry.path: p for p in pictures if p.sha256 not in paths}
        if new:
            name = store.name_of(config.output)
            restore = replace(
                plan.restore, output=store.join(config.output, place), run_name=f"{name} repairs {repair}"
            )
            say(f"{len(new)} pictures to repair, {len(pictures) - len(new)} repaired before")
            ledger = Ledger(restore.output, settings, self.driver.drives)
            repeat = {"config": repeatable(restore), "preset": asdict(plan.preset)}
            ledger.claim(config.input, repeat)
            addresses, entries = [p.address for p in new.values()], [p.entry for p in new.values()]
            ledger.plan_pictures(addresses, entries, restore.shard_images, restore.unit_images)
            began, done = time.monotonic(), ledger.resume()
            code = Restoration(restore, method, ledger, done, self.driver).run()
            if code != OK:
                return code, repair, rows
            self.cost.repair_seconds = time.monotonic() - began
            for name, result in read_results(restore.output, ledger, new):
                paths[new[name].sha256] = replace(result, path=result.path and f"{place}/{result.path}")
        return OK, repair, with_repairs(rows, wanted, [paths[p.sha256] for p in pictures])

    def _repaired_before(self, repair: str) -> dict[str, "Repaired"]:
        """Repaired pictures that the parent has of the same method, by the sha256 of the original."""
        if self.last is None or self.last.repair != repair:
            return {}
        have = self.parent.filter(pc.not_equal(self.parent.column("repaired"), ""))
        columns = have.select(["sha256", "repaired", "repaired_sha256"]).to_pylist()
        return {r["sha256"]: Repaired("restored", r["repaired"], r["repaired_sha256"]) for r in columns}

    # ---- version

    def _conclude(self, rows: pa.Table, repair: str) -> int:
        """Write the version and tell of it, or say that nothing has changed."""
        config, last = self.config, self.last
        unread = pc.sum(pc.equal(rows.column("problem"), UNREAD)).as_py() or 0
        # with pictures that did not come the input is not done with: it is looked at again
        listing = "" if unread else listing_digest(self.entries)
        if last and last.settings == self.plan.settings and not config.dry_run:
            before = self.parent.filter(pc.not_equal(self.parent.column("verdict"), "deleted"))
            if same_pictures(before, rows):
                same = {"version": last.number, "listing": listing, "settings": self.plan.settings}
                store.write_bytes(store.join(config.output, SAME), json.dumps(same).encode())
                return finish(self.plan, last)
        body, gone = self._manifest(rows)
        version = self._version(rows, body, gone, listing, repair)
        self._forecast(rows)
        folder = f"reports/{'census' if config.dry_run else f'{version.number:04d}'}"
        write_report(config.output, folder, version, rows, self.parent, config, self.cost)
        if config.dry_run:
            print(summary(version, config))
            print(f"report         {store.join(config.output, folder, 'index.html')}")
            return gate_code(config, version)
        if self.driver.follower is not None or not write_version(config.output, version, body):
            say(f"another start has written version {version.number}; this one leaves it to that")
            return BUSY
        self.intake.take_in()
        return finish(self.plan, version, new=True)

    def _manifest(self, rows: pa.Table) -> tuple[bytes, int]:
        """The manifest's bytes, and how many pictures are gone."""
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

    def _forecast(self, rows: pa.Table) -> None:
        """What repairing everything that is to be repaired costs, by the networks' sizes."""
        repairs = rows.filter(pc.equal(rows.column("verdict"), "repair"))
        self.cost.faces_to_repair = pc.sum(repairs.column("faces")).as_py() or 0
        plan = self.plan
        if plan.preset.estimator.kind == "spandrel":
            return  # what this estimator is, and costs, its file alone says
        calls = calls_of(plan.chosen)
        flops = face_cost(plan.preset, calls).flops
        self.cost.gpu_seconds = self.cost.faces_to_repair * flops / (self.config.gpu_tflops * 1e12)
        self.cost.cpu_seconds = self.cost.faces_to_repair * seconds_per_face(plan.preset, calls)


@dataclass(frozen=True)
class ToRepair:
    """A picture for the restoring stages, under the name that its result gets."""

    sha256: str
    address: Address
    entry: store.Entry


def picture_of(row: Mapping[str, Any]) -> ToRepair:
    """The picture of a manifest's row. Its name tells where it was read, so that other bytes never stand for it."""
    origin = digest([row["object"], row["object_version"], row["offset"]])[:8]
    name = f"{row['sha256'][:2]}/{row['sha256']}-{origin}{suffix_of(row['format'])}"
    uri = unspelled(row["uri"])
    address = Address(name, uri, row["offset"], row["length"])
    return ToRepair(row["sha256"], address, store.Entry(uri, name, row["length"], row["sha256"]))


@dataclass(frozen=True)
class Repaired:
    """What repairing a picture gave: its outcome, and where it was restored the file and its sha256."""

    outcome: str
    path: str = ""
    sha256: str = ""


def read_results(
    output: str, ledger: Ledger, wanted: Mapping[str, ToRepair]
) -> Iterator[tuple[str, Repaired]]:
    """What became of these pictures, from records and markers; one that was read with other bytes has failed."""
    for planned in ledger.shards:
        if not wanted.keys() & {file.path for file in planned.shard.files}:
            continue
        for unit in load_units(output, planned.shard):
            marker = json.loads(store.read_bytes(store.join(output, unit.marker_path)))
            written = {o["path"]: str(o["sha256"]) for o in marker["outputs"]}
            data = store.read_bytes(store.join(output, unit.records_path))
            rows = read_table(data, ["kind", "member", "sha256", "outcome"]).to_pylist()
            for row in rows:
                name, path = row["member"], f"images/{row['member']}"
                if row["kind"] != "image" or name not in wanted:
                    continue
                if row["sha256"] != wanted[name].sha256:
                    yield name, Repaired("failed")
                elif row["outcome"] == "restored":
                    yield name, Repaired("restored", path, written[path])
                else:
                    yield name, Repaired(row["outcome"])


def with_repairs(rows: pa.Table, places: NDArray[np.int64], results: Sequence[Repaired]) -> pa.Table:
    """The rows with what repairing gave at these places.

    A failed repair drops the picture; one in which there was nothing to restore after all is kept as it is.
    """
    names = ("verdict", "reason", "repaired", "repaired_sha256")
    columns: dict[str, Texts] = {n: rows.column(n).to_numpy().copy() for n in names}
    for i, result in zip(places, results, strict=True):
        if result.outcome == "failed":
            columns["verdict"][i], columns["reason"][i] = "drop", REPAIR_FAILED
        elif result.outcome != "restored":
            columns["verdict"][i], columns["reason"][i] = "keep", "accepted"
        columns["repaired"][i], columns["repaired_sha256"][i] = result.path, result.sha256
    for name, values in columns.items():
        place = rows.schema.get_field_index(name)
        rows = rows.set_column(place, rows.schema.field(place), pa.array(values, pa.string()))
    return rows


def identity(rows: pa.Table) -> pa.ChunkedArray:
    """What makes a row the same picture with the same bytes as another version's."""
    return pc.binary_join_element_wise(rows.column("name"), rows.column("sha256"), "\t")


# ---- telling


def finish(plan: Plan, version: Version, new: bool = False) -> int:
    """Tell people and MLflow of the version that a start came to. Returns the exit code."""
    config = plan.config
    if not new:
        say(f"nothing new since version {version.number}")
    print(summary(version, config))
    if config.materialise and not materialise(config, version):
        return UNEXPECTED
    code = gate_code(config, version)
    tell_mlflow(plan, version, code)
    print(f"version        {store.join(config.output, version.path)}")
    print(f"report         {store.join(config.output, 'reports', f'{version.number:04d}', 'index.html')}")
    return code


def materialise(config: CleanConfig, version: Version) -> bool:
    """Write the pictures of a version as tar shards below `data/NNNN`, once; False where some could not be written."""
    folder = f"data/{version.number:04d}"
    if store.exists(done := store.join(config.output, folder, "_done.json")):
        return True
    rows = read_manifest(config.output, version)
    rows = rows.filter(pc.is_in(rows.column("verdict"), pa.array(["keep", "repair"])))
    pictures = rows.select(
        ["name", "uri", "member", "offset", "length", "sha256", "repaired", "repaired_sha256"]
    )
    suffixes = [suffix_of(kind) for kind in rows.column("format").to_pylist()]
    samples = sample_names(rows.column("name").to_pylist(), suffixes)
    pictures = pictures.append_column("sample", pa.array(samples, pa.string()))
    size = config.unit_images
    shards = [
        {
            "path": f"{folder}/part-{i // size:05d}.tar",
            "pictures": json.dumps(pictures.slice(i, size).to_pylist()),
        }
        for i in range(0, rows.num_rows, size)
    ]
    with on_stop_signals(leave):
        connect(config.ray_address)
    left = {shard["path"] for shard in shards}
    for row in (
        run_tasks(shards, BundlePictures(config.output, config.image_column), MOST_DEATHS) if shards else ()
    ):
        if row["undelivered"]:
            say(f"warning: {row['path']} is not written: {row['undelivered']}")
        else:
            left.discard(row["path"])
    if left:
        say(
            f"error: {len(left)} of {len(shards)} shards could not be written; the same command writes them again"
        )
        return False
    told = {"version": version.number, "shards": len(shards), "pictures": rows.num_rows}
    store.write_bytes(done, json.dumps(told).encode())
    print(f"data           {store.join(config.output, folder)}")
    return True


def summary(version: Version, config: CleanConfig) -> str:
    """The table at the end."""
    lines = ["", f"{'pictures':<16} {version.images:>8}"]
    for verdict in ("keep", "repair", "drop"):
        lines.append(f"{verdict:<16} {version.verdicts.get(verdict, 0):>8}")
    for reason in EVERY_REASON:
        if count := version.reasons.get(reason, 0):
            lines.append(f"  {reason:<16} {count:>8}")
    lines.append(f"{'new':<16} {version.new_images:>8}  since version {version.parent}")
    lines.append(f"{'deleted':<16} {version.deleted:>8}\n")
    return "\n".join(lines)


def gate_code(config: CleanConfig, version: Version) -> int:
    """GATE_BROKEN with a sentence for each condition of --fail-if that holds, else OK."""
    broken = [gate for gate in parse_gates(config.fail_if) if gate.broken(version)]
    for gate in broken:
        say(f"gate broken: {gate.text}, it is {gate.value(version):.4g}")
    return GATE_BROKEN if broken else OK


def tell_mlflow(plan: Plan, version: Version, code: int) -> None:
    """Deliver a version's numbers and report, once; the next start tries again what a server did not take."""
    config = plan.config
    told = store.join(config.output, "_ledger", "told", f"{version.number:04d}")
    if store.exists(told):
        return
    folder = store.join(config.output, "reports", f"{version.number:04d}")
    report = json.loads(store.read_bytes(store.join(folder, "summary.json")))
    uri = mlflow_uri(config)
    tracker = RunTracker.open(
        uri,
        config.experiment,
        store.name_of(config.output),
        params=config.thresholds() | {"preset": config.preset, "input": config.input},
        tags={"version": version.number, "settings": version.settings},
        state_uri=store.join(config.output, "_ledger", "tracking.json"),
        warn=lambda text: say(f"warning: {text}"),
    )
    with tracker:
        tracker.log_input(config.input, version.listing or version.manifest_sha256)
        tracker.log_shard(version.number, report["metrics"], round(report["made_at"] * 1000))
        for entry in store.list_files(folder):
            tracker.log_artifact(entry.uri, f"{version.number:04d}/{entry.path}")
        if not tracker.finish(STATUSES.get(code, "FAILED")):
            store.write_bytes(told, b"")
    print(f"MLflow         {ui_command(uri)}")
