"""Restore the faces of an archive: `python -m jobs.restore --input PATH_OR_URI --output PATH_OR_URI`."""

import hashlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pipeline import store
from pipeline.census import count_faces, sample_units
from pipeline.config import RestoreConfig, UsageError, fingerprint, parse
from pipeline.delivery import redact
from pipeline.diffusion.schedule import chain_from, make_schedule
from pipeline.driver import AlreadyDriven, Driver
from pipeline.faces.detect import Selection
from pipeline.flow import Resources, connect, fit_resources, run_flow
from pipeline.forecast import seconds_per_face
from pipeline.ledger import Ledger, RefusedMix, Settled
from pipeline.networks.checkpoint import CheckpointError
from pipeline.networks.zoo import Preset, PresetError, find_preset, load_network
from pipeline.progress import Progress, duration
from pipeline.records import OUTCOMES, Row
from pipeline.report import write_report
from pipeline.stages.align import DetectorChoice, ReadAndAlign
from pipeline.stages.plan import InputError, cut_units, list_input, make_shards
from pipeline.stages.publish import Publish
from pipeline.stages.read import LoadUnit
from pipeline.stages.restore import RestoreSettings
from pipeline.stages.task import Task
from pipeline.tracking import RunTracker, Status, default_uri, ui_command
from pipeline.weights import DETECTOR_WEIGHTS, WeightsError, resolve

# Images on which a dry run counts faces.
DRY_RUN_SAMPLE = 64
# A stopping run leaves when no unit in flight was finished for so long.
DRAIN_SECONDS = 300.0
# After so many units in a row that could not be written, the output counts as lost.
MOST_UNDELIVERED = 16

OK, UNEXPECTED, BAD_ARGUMENTS, OVER_BUDGET, HAD_FAILURES, INTERRUPTED = 0, 1, 2, 3, 4, 130
MEANINGS = {
    OK: "every image accounted for",
    UNEXPECTED: "not every image is accounted for",
    OVER_BUDGET: "more failures than --max-error-rate allows",
    HAD_FAILURES: "failures within the budget, but --strict",
    INTERRUPTED: "interrupted; the same command goes on",
}
# How MLflow shows a run that ended so; every other code is FAILED.
STATUSES: dict[int, Status] = {OK: "FINISHED", INTERRUPTED: "KILLED"}
# Folders that a run writes below its output.
DELIVERED = ("images", "shards", "faces", "records", "report", "_ledger")
REFUSALS = (
    UsageError,
    InputError,
    PresetError,
    CheckpointError,
    WeightsError,
    RefusedMix,
    AlreadyDriven,
    store.StoreError,
)

EPILOG = """examples:
  python -m jobs.restore --input photos --output restored --dry-run
  python -m jobs.restore --input photos --output restored
  python -m jobs.restore --input s3://archive/shards --output s3://archive/restored --engines 8
  ray job submit --address http://HEAD:8265 --working-dir . -- python -m jobs.restore --input ... --output ...
The same command again goes on where the last one stopped."""


@dataclass(frozen=True)
class Method:
    """The preset with the command line's wishes applied, and what its weights resolved to."""

    preset: Preset
    eta: float
    # N, or where there are bounds to each face's own N that of a typical face
    start_step: int
    start_bounds: list[int] | None
    steps: str
    start_rule: Any
    # digests of the weights by role
    sha256: dict[str, str]

    @property
    def model_sha256(self) -> str:
        """One name for the networks together."""
        return "+".join(self.sha256[role][:16] for role in ("prior", "estimator") if role in self.sha256)


def choose_method(config: RestoreConfig, preset: Preset | None = None) -> tuple[Preset, dict[str, Any]]:
    """The preset and the method's settings; raises when N is not in the schedule or above what the prior knows.

    preset: taken instead of the one that the configuration names.
    """
    preset = preset or find_preset(config.preset)
    names = ("eta", "steps", "start_rule")
    if config.method == "estimator":
        no_chain = {"eta": 0.0, "start_step": 0, "start_bounds": None}
        return preset, {n: getattr(preset, n) for n in names} | no_chain
    chosen = {n: getattr(preset if getattr(config, n) is None else config, n) for n in names}
    wished = config.start_step or ""
    chosen |= {"start_step": int(wished.removeprefix("auto").lstrip(":") or preset.start_step)}
    chosen |= {"start_bounds": None}
    if wished.startswith("auto"):
        if not preset.auto_start:
            raise UsageError(f"{preset.name} has no [auto_start]; give --start-step as a number")
        within = config.start_bounds.split(",") if config.start_bounds else preset.auto_start["bounds"]
        chosen |= {"start_bounds": [int(n) for n in within]}
    if config.solver == "dpm++" and config.eta:
        raise UsageError(f"--solver dpm++ draws no noise; leave --eta {config.eta} out")
    for start_step in (chosen["start_step"], *(chosen["start_bounds"] or ())):
        check_start(preset, chosen["steps"], start_step, chosen["start_rule"])
    return preset, chosen


def check_start(preset: Preset, steps: str, start_step: int, rule: Any) -> None:
    """Refuse an N that no chain of the preset can be entered at."""
    try:
        chain_from(make_schedule(steps), start_step, rule)
    except ValueError as error:
        raise UsageError(f"--steps {steps} --start-step {start_step}: {error}") from error
    if start_step > preset.max_step:
        raise UsageError(
            f"--start-step {start_step} lies above {preset.max_step}, the last step that the prior of "
            f"{preset.name} was trained on; choose a smaller one"
        )


def check_weights(config: RestoreConfig, preset: Preset) -> dict[str, str]:
    """Find, verify and load every weights file once, here, before any actor starts; their digests by role."""
    digests = {}
    roles = {"prior": preset.prior, "estimator": preset.estimator}
    if config.method == "estimator":
        del roles["prior"]
    for role, spec in roles.items():
        found = resolve(spec.file, spec.url, spec.sha256, config.weights_dir)
        load_network(spec, found.path)
        digests[role] = found.sha256
    if config.detector in DETECTOR_WEIGHTS and not config.aligned:
        published = DETECTOR_WEIGHTS[config.detector]
        digests["detector"] = resolve(
            published.file, published.url, published.sha256, config.weights_dir
        ).sha256
    return digests


def settle_method(
    config: RestoreConfig, preset: Preset, chosen: dict[str, Any]
) -> tuple[Method, dict[str, Any]]:
    """The method with its weights found and checked, and the fingerprint of a run with it."""
    method = Method(preset, sha256=check_weights(config, preset), **chosen)
    resolved = chosen | {"weights": method.sha256, "preset_side": preset.side}
    if preset.estimator.kind == "spandrel":  # whose options change pixels and not only what file fits
        resolved |= {"estimator_options": dict(preset.estimator.options)}
    return method, fingerprint(config, resolved)


def check_places(config: RestoreConfig) -> None:
    """Refuse an input that cannot be read, an output that cannot be written, and each inside the other."""
    store.check_readable(config.input)
    if lies_in(config.output, config.input):
        raise UsageError(
            f"--output {config.output} lies inside --input {config.input}; choose a place outside"
        )
    for folder in DELIVERED:
        if lies_in(config.input, store.join(config.output, folder)):
            raise UsageError(
                f"--input {config.input} lies where --output {config.output} puts its {folder}; "
                "choose another --output"
            )
    if not config.dry_run:
        store.check_writable(config.output)


def lies_in(uri: str, folder: str) -> bool:
    """Whether `uri` is the folder or below it."""
    place, around = (
        u if store.is_remote(u) else str(Path(u.removeprefix("file://")).resolve()) for u in (uri, folder)
    )
    return f"{place.rstrip('/')}/".startswith(f"{around.rstrip('/')}/")


def run(config: RestoreConfig) -> int:
    """Check, plan, restore what is pending, report. Returns the exit code."""
    preset, chosen = choose_method(config)
    check_places(config)
    if config.dry_run:
        return dry_run(config, preset, chosen)
    method, settings = settle_method(config, preset, chosen)
    with Driver.take(config.output, say) as driver:
        try:
            ledger, settled = open_books(config, preset, settings)
        except REFUSALS:
            driver.withdraw()
            raise
        driver.exit_code = Restoration(config, method, ledger, settled, driver).run()
        return driver.exit_code


def open_books(
    config: RestoreConfig, preset: Preset, settings: dict[str, Any]
) -> tuple[Ledger, list[Settled]]:
    """The output's ledger with its plan, and the shards that are done. Raises what refuses the run."""
    ledger = Ledger(config.output, settings)
    repeat = {"config": repeatable(config), "preset": asdict(preset)}
    new = ledger.claim(config.input, repeat, config.new_run)
    try:
        ledger.plan(
            config.input,
            config.kind,
            config.shard_images,
            config.unit_images,
            config.image_column,
            config.redo_changed,
        )
    except REFUSALS:
        if new:
            ledger.release()
        raise
    settled = ledger.resume(config.retry == "failed", config.reason)
    say(plan_line(ledger, new))
    if ledger.retrying or config.retry:
        say(retry_line(ledger, config))
    return ledger, settled


def repeatable(config: RestoreConfig) -> dict[str, Any]:
    """What the run file keeps of the command, so that a picture can be restored again; nothing of other services."""
    surroundings = {"mlflow_uri", "experiment", "run_name", "ray_address"}
    kept = {name: value for name, value in asdict(config).items() if name not in surroundings}
    return kept | {"weights_dir": redact(config.weights_dir) if config.weights_dir else None}


def read_stage(config: RestoreConfig, method: Method, stop_uri: str) -> ReadAndAlign:
    """The stage that reads pictures and cuts out their faces."""
    c = config
    return ReadAndAlign(
        side=method.preset.side,
        detector=DetectorChoice(c.detector, c.min_score, c.weights_dir),
        selection=Selection(c.min_face, c.max_faces, c.max_overlap),
        aligned=c.aligned,
        max_crispness=c.max_crispness,
        max_scale=c.max_scale,
        strength=c.strength,
        max_pixels=c.max_pixels,
        image_column=c.image_column,
        stop_uri=stop_uri,
        task=task_of(c),
        mask=c.mask,
    )


def task_of(config: RestoreConfig) -> Task:
    """What is asked of the faces."""
    return Task(config.task, config.weight, config.gradient_steps, config.gradient_rate, config.factor)


def restore_stage(
    config: RestoreConfig, method: Method, device: str, threads: int, stop_uri: str
) -> RestoreSettings:
    """What every engine is told."""
    m, c = method, config
    return RestoreSettings(
        preset=m.preset,
        weights_dir=c.weights_dir,
        eta=m.eta,
        start_step=m.start_step,
        start_bounds=m.start_bounds,
        steps=m.steps,
        start_rule=m.start_rule,
        calls=c.calls,
        solver=c.solver,
        seed=c.seed,
        free_colour=c.free_colour,
        device=device,
        precision=c.precision,
        slots=c.slot_count,
        threads=threads,
        stop_uri=stop_uri,
        task=task_of(c),
        method=c.method,
    )


def publish_stage(config: RestoreConfig, method: Method, device: str) -> Publish:
    """The stage that writes what a unit delivers, and its marker."""
    m, c = method, config
    return Publish(
        output=c.output,
        side=m.preset.side,
        image_column=c.image_column,
        aligned=c.aligned,
        keep_detail=c.keep_detail,
        max_pixels=c.max_pixels,
        save_faces=c.save_faces,
        settings={
            "eta": m.eta,
            "seed": c.seed,
            "model_sha256": m.model_sha256,
        },
        device=device,
        task=task_of(c),
        mask=c.mask,
    )


def plan_line(ledger: Ledger, new: bool) -> str:
    """What lies ahead, in one line."""
    what = f"{ledger.images_planned} images in {len(ledger.shards)} shards, {ledger.units_planned} units"
    return what if new else f"{what}; going on with {ledger.units_pending} units, the rest is done"


def retry_line(ledger: Ledger, config: RestoreConfig) -> str:
    """What is done again, in one line."""
    units = len(ledger.retrying)
    if config.redo_changed:
        return f"{units} of them are done again because pictures in them have changed"
    if ledger.ordered_before:
        return f"{units} units of the retry that was begun before are still done again; no other begins"
    if units:
        return f"{units} of them are done again because images failed"
    why = f" for {config.reason}" if config.reason else ""
    return f"nothing to retry: no image failed{why}; jobs.status shows what failed and why"


class Restoration:
    """One start of a run: the flow, its bookkeeping, and what people see of it."""

    def __init__(
        self, config: RestoreConfig, method: Method, ledger: Ledger, settled: list[Settled], driver: Driver
    ) -> None:
        self.config, self.method, self.ledger, self.driver = config, method, ledger, driver
        self.mlflow_uri = (
            config.mlflow_uri or os.environ.get("MLFLOW_TRACKING_URI") or default_uri(config.output)
        )
        self.began = time.monotonic()
        self._stopping = False
        self._leave_at = 0.0
        self._undelivered_units = self._undelivered_in_a_row = 0
        self.settled = {s.planned.index: s for s in settled}
        self.tracker = RunTracker.open(
            self.mlflow_uri,
            config.experiment,
            config.run_name or store.name_of(config.output),
            params=asdict(config) | {"eta": method.eta, "start_step": method.start_step}
            | {"steps": method.steps, "start_rule": method.start_rule},
            tags={f"sha256.{role}": digest for role, digest in method.sha256.items()}
            | {"fingerprint": ledger.digest, "preset": method.preset.name, "method": config.method},
            state_uri=store.join(config.output, "_ledger", "tracking.json"),
            warn=lambda text: say(f"warning: {text}"),
        )  # fmt: skip

    def run(self) -> int:
        """Restore the pending units and close the books."""
        self.tracker.log_input(self.config.input, input_digest(self.ledger))
        for shard in self.settled.values():
            self._track(shard)
        ended = self._restore() if self.ledger.units_pending else OK
        code = ended or self._verdict()
        self._report(code)
        if ended == OK:
            for folder in DELIVERED:
                store.sweep(store.join(self.config.output, folder))
        # last: once it is closed, the same command orders the next retry
        self.ledger.close_retry()
        return code

    def _restore(self) -> int:
        # Ray installs handlers of its own; at the end of the block ours are back
        with on_stop_signals(leave):
            connect(self.config.ray_address)
        resources, device = fit_resources(self.config.device, self.config.engines, self.config.readers)
        say(f"{resources.engines} engine(s) on {device}, up to {resources.readers} readers")
        before = self.ledger.totals.counts.images
        with on_stop_signals(self._stop), Progress(self.ledger.images_planned, before) as progress:
            code = self._walk(resources, device, progress)
            lost = self.ledger.units_pending - self._undelivered_units
            if code == OK and lost:
                say(f"{lost} units were lost with their workers and are done again, each picture by itself")
                code = self._walk(resources, device, progress, careful=True)
        if self.driver.follower is not None:
            say(f"{self.driver.follower.who} has taken this output over; this one leaves it to that")
        return code

    def _walk(self, resources: Resources, device: str, progress: Progress, careful: bool = False) -> int:
        """Walk the pending units through the flow; OK unless something stopped it.

        careful: a picture that kills the process that works on it fails alone.
        """
        config, method, stop_uri = self.config, self.method, self.driver.stop_uri
        rows = run_flow(
            list(self.ledger.pending()),
            LoadUnit(config.output, self.driver.number),
            replace(read_stage(config, method, stop_uri), careful=careful),
            restore_stage(config, method, device, resources.threads, stop_uri),
            replace(publish_stage(config, method, device), careful=careful),
            resources,
        )
        for row in rows:
            if self._stopping and time.monotonic() > self._leave_at:
                break  # what was in flight has ended, and thousands that were not begun would still pass by
            if row.get("undelivered") and self._undelivered(row):
                return UNEXPECTED
            if row.get("marker") is None:
                continue  # not begun, because the run is stopping, or not written
            self._undelivered_in_a_row = 0
            counts, shard = self.ledger.add(row["marker"])
            self._leave_at = time.monotonic() + DRAIN_SECONDS
            progress.add(counts.images, counts.faces, counts.outcomes["failed"])
            if shard is not None:
                self.settled[shard.planned.index] = shard
                self._track(shard)
            if self._over_budget():
                return OVER_BUDGET
        return INTERRUPTED if self._stopping or self.driver.follower else OK

    def _undelivered(self, row: Row) -> bool:
        """Say that a unit could not be written; True when so many could not that nothing will be."""
        self._undelivered_units += 1
        self._undelivered_in_a_row += 1
        say(f"warning: unit {row['unit']} is not done, the next start does it again: {row['undelivered']}")
        if self._undelivered_in_a_row < MOST_UNDELIVERED:
            return False
        self.driver.stop()
        say(f"error: {MOST_UNDELIVERED} units in a row could not be written; stopping")
        return True

    def _stop(self) -> None:
        """First: begin nothing new, finish what is in flight. Second: leave at once."""
        if self._stopping:
            say("stopped; the same command goes on where this one was")
            os._exit(INTERRUPTED)
        self._stopping = True
        self._leave_at = time.monotonic() + DRAIN_SECONDS
        self.driver.stop()
        say("stopping: units in flight are finished first (press again to leave at once)")

    def _track(self, shard: Settled) -> None:
        self.tracker.log_shard(
            shard.planned.index + 1, shard.metrics.means(), round(shard.finished_at * 1000)
        )

    def _over_budget(self) -> bool:
        failed: int = self.ledger.totals.counts.outcomes["failed"]
        return failed > self.config.max_error_rate * self.ledger.images_planned

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
        return HAD_FAILURES if self.config.strict and counts.outcomes["failed"] else OK

    def _report(self, code: int) -> None:
        write_report(self.config.output, summarise(self, code))
        for name in ("report/contact_sheet.png", "report/index.html", "report/shards.parquet"):
            if store.exists(uri := store.join(self.config.output, name)):
                self.tracker.log_artifact(uri, name)
        waiting = self.tracker.finish(STATUSES.get(code, "FAILED"))
        print_summary(self, code, time.monotonic() - self.began)
        if waiting:
            say("MLflow did not take everything; the same command again delivers the rest")
        print(f"records        {store.join(self.config.output, 'records')}")
        print(f"report         {store.join(self.config.output, 'report', 'index.html')}")
        print(f"contact sheet  {store.join(self.config.output, 'report', 'contact_sheet.png')}")
        print(f"MLflow         {ui_command(self.mlflow_uri)}")


def dry_run(config: RestoreConfig, preset: Preset, chosen: dict[str, Any]) -> int:
    """Count shards and images, sample the faces, estimate the time; writes nothing."""
    kind, entries = list_input(config.input, config.kind)
    shards = make_shards(kind, entries, config.shard_images)
    units = [u for s in shards for u in cut_units(s, config.unit_images, config.image_column)]
    images = sum(len(u.images) for u in units)
    if not images:
        raise InputError(f"the shards of {config.input} hold no images")
    print(f"input    {config.input} ({kind}): {len(shards)} shards, {len(units)} units, {images} images")
    faces = float(images)
    if not config.aligned:
        sample = sample_units(units, DRY_RUN_SAMPLE)
        detector = DetectorChoice(config.detector, config.min_score, config.weights_dir)
        selection = Selection(config.min_face, config.max_faces, config.max_overlap)
        found = count_faces(sample, detector, selection, config.image_column, config.max_pixels)
        faces = found.faces_per_image * images
        how = "counted" if found.images == images else f"estimated from {found.images} images"
        print(f"faces    {faces:.0f} ({how}; {found.unreadable} of {found.images} images unreadable)")
    calls, how = 0, "the estimator alone"
    if config.method != "estimator":
        schedule = make_schedule(chosen["steps"])
        calls = len(chain_from(schedule, chosen["start_step"], chosen["start_rule"], config.calls).walk)
        how = f"{calls} steps a face, eta {chosen['eta']}"
    print(f"method   {preset.name}, {preset.side} px, {how}")
    if preset.estimator.kind == "spandrel":
        print("time     not known: what this estimator is, and costs, its file alone says")
        return OK
    each = seconds_per_face(preset, calls)
    print(f"time     about {duration(faces * each)} on this machine's CPU ({each:.1f} s a face)")
    return OK


def input_digest(ledger: Ledger) -> str:
    """Changes when any shard of the input does."""
    return hashlib.sha256("".join(p.shard.version for p in ledger.shards).encode()).hexdigest()[:32]


def summarise(restoration: Restoration, code: int) -> dict[str, Any]:
    """What the report says of the run."""
    totals = restoration.ledger.totals
    return {
        "title": store.name_of(restoration.config.output),
        "exit_code": code,
        "outcomes": totals.counts.outcomes,
        "images": totals.counts.images,
        "faces": totals.counts.faces,
        "settings": restoration.ledger.fingerprint | {"preset": restoration.method.preset.name},
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
    print(f"{'faces':<14} {counts.faces:>8}")
    print(f"{'time':<14} {duration(seconds):>8}")
    print(f"{'exit code':<14} {code:>8}  {MEANINGS[code]}\n")


@contextmanager
def on_stop_signals(act: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C and SIGTERM call `act` inside the block; only the main thread of a program may ask for that."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda *_: act())
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave() -> None:
    """What a stop signal does while no picture is in flight."""
    raise KeyboardInterrupt


def say(text: str) -> None:
    """A line for people, away from the output proper."""
    print(text, file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """The job: returns its exit code."""
    config = parse(RestoreConfig, argv, description=__doc__ or "", epilog=EPILOG)
    try:
        with on_stop_signals(leave):
            return run(config)
    except REFUSALS as error:
        say(f"error: {error}")
        return BAD_ARGUMENTS
    except KeyboardInterrupt:
        say("stopped; the same command goes on where this one was")
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
