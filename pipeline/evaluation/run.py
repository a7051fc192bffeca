"""One evaluation: presets over a test set, scored and reported."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from pipeline.console.commands import INTERRUPTED, OK, say
from pipeline.console.options import UsageError
from pipeline.console.progress import duration
from pipeline.datasets.faces import (
    PHOTOGRAPHS,
    FaceAddress,
    check_side,
    find_faces,
    find_shards,
    list_faces,
    spread,
)
from pipeline.diffusion.task import TaskName
from pipeline.evaluation.delivered import Delivered
from pipeline.evaluation.harm import ANY, Judged, cut
from pipeline.evaluation.options import EvaluateConfig
from pipeline.evaluation.photographs import place_photographs, write_photographs
from pipeline.evaluation.realreport import RealReport, draw_faces
from pipeline.evaluation.report import Report, make_report
from pipeline.evaluation.scores import Measured, hole_psnr, measure, strata
from pipeline.evaluation.sweep import Sweep, Way, list_ways
from pipeline.evaluation.testset import EvaluationSet, PictureSet, Recipe, naive, place_set, write_set
from pipeline.io import layout, store
from pipeline.networks.cost import seconds_per_face
from pipeline.networks.presets import Preset, find_preset
from pipeline.restoration.flow import connect
from pipeline.tracking.address import settle_uri, ui_command
from pipeline.tracking.tracker import RunTracker

SHOWN_FACES = 12
NAIVE: dict[TaskName, str] = {
    "restore": "degraded input",
    "inpaint": "filled from around",
    "colourise": "grey",
    "upscale": "enlarged",
}
SEVERITY = {
    "inpaint": ("hole", "kind of the hole"),
    "restore": ("error", "error of the degraded face (root mean square, 0..255), in fifths of the set"),
}


def choose_faces(config: EvaluateConfig, side: int) -> list[FaceAddress]:
    """The faces of the set, spread evenly over the shards."""
    faces = list_faces(find_shards(config.faces))
    check_side(faces, side)
    return spread(faces, config.limit)


def choose_presets(config: EvaluateConfig) -> dict[str, Preset]:
    """The presets to score, by the names given. Raises UsageError for aligned faces of different sides."""
    presets = {name: find_preset(name) for name in config.preset_names}
    if config.grid == "paper" and len({p.side for p in presets.values()}) > 1:
        sides = ", ".join(f"{p.name} {p.side}" for p in presets.values())
        raise UsageError(f"--presets of one side were wanted, got {sides}")
    return presets


def choose_ways(config: EvaluateConfig, presets: dict[str, Preset], found: PictureSet) -> list[Way]:
    """The rows of the table. Raises UsageError for a way that cannot be walked."""
    varied = (config.start_steps, config.etas, config.steps, config.calls, config.solvers)
    sweep = Sweep(*(tuple((told or "").split(",")) for told in varied))
    common = {
        "input": found.degraded,
        "mask": found.mask,
        "truth": None if config.grid == "real" else found.truth,
        "metrics": "none" if config.grid == "real" else config.metrics,
        "task": config.task,
        "aligned": config.grid == "paper",
        "alignment": "preset",
        "factor": config.factor if config.task == "upscale" else 0,
        "seed": config.seed,
        "precision": config.precision,
        "weights_dir": config.weights_dir,
    }
    return list_ways(presets, sweep, common, store.join(config.output, "runs"))


def recipe(config: EvaluateConfig, side: int) -> Recipe:
    """What the set is made of; options of other tasks have no say."""
    holes = config.kinds if config.task == "inpaint" else ()
    return Recipe(config.task, side, config.seed, holes, config.factor if config.task == "upscale" else 0)


def evaluate(config: EvaluateConfig) -> int:
    """Make the set, restore it every way, score, report. Returns the exit code."""
    return evaluate_photographs(config) if config.grid == "real" else evaluate_faces(config)


def evaluate_faces(config: EvaluateConfig) -> int:
    """The paper's grid."""
    presets = choose_presets(config)
    side = next(iter(presets.values())).side
    faces = choose_faces(config, side)
    found = place_set(faces, recipe(config, side), store.join(config.output, "sets"))
    ways = choose_ways(config, presets, found)
    if config.dry_run:
        describe(ways, len(faces))
        return OK
    store.check_writable(config.output)
    write_set(found, faces)
    say(f"{len(faces)} faces in {found.uri}, {len(ways)} ways to restore them")
    with open_tracker(config) as tracker:
        rows = [measure_naive(config, found)]
        say(f"{rows[0].name}: {told(rows[0])}")
        for way, code in walk(config, tracker, ways):
            if code != OK:
                return code
            rows.append(way.measured(found))
            say(told(rows[-1]))
        publish(config, tracker, compare(config, found, ways, rows))
    return OK


def evaluate_photographs(config: EvaluateConfig) -> int:
    """The real-world grid."""
    presets = choose_presets(config)
    pictures = spread(find_faces(config.faces, PHOTOGRAPHS).faces, config.limit)
    found = place_photographs(pictures, config.seed, config.level_names, store.join(config.output, "sets"))
    ways = choose_ways(config, presets, found)
    if config.dry_run:
        describe(ways, len(pictures) * len(found.levels))
        return OK
    store.check_writable(config.output)
    write_photographs(found, pictures)
    say(f"{found.contents}, in {found.uri}; {len(ways)} ways to restore them")
    delivered = Delivered(found, store.join(config.output, "measured"), config.weights_dir)
    for name, why in delivered.left_out.items():
        say(f"warning: the metric {name} is left out: {why}")
    cuts = cut(*(found.sheet[name].to_pylist() for name in ("level", "group", "number")))
    with open_tracker(config) as tracker:
        rows: list[Judged] = []
        for way, code in walk(config, tracker, ways):
            if code != OK:
                return code
            say("measuring what was delivered")
            out, cost = delivered.of_run(way.config.output.uri), way.cost(len(found.names))
            rows.append(Judged(way.name, delivered.came, out, cost))
            harmed = (f"{level} {rows[-1].harm(here)[ANY]:.0%}" for level, here in cuts.levels.items())
            say(f"delivered worse than they came: {', '.join(harmed)}")
        faces = draw_faces(found, rows, [way.pictures for way in ways])
        publish(config, tracker, RealReport(rows, cuts, faces, found.contents))
    return OK


def walk(config: EvaluateConfig, tracker: RunTracker, ways: Sequence[Way]) -> Iterator[tuple[Way, int]]:
    """Restore the set every way; each with its exit code, up to the first that was broken off."""
    connect(config.ray_address)
    around = surroundings(config, tracker)
    for number, way in enumerate(ways, 1):
        say(f"way {number} of {len(ways)}: {way.name}")
        code = way.walk(around)
        if code != OK:
            tracker.finish("KILLED" if code == INTERRUPTED else "FAILED")
        yield way, code
        if code != OK:
            return


def measure_naive(config: EvaluateConfig, found: EvaluationSet) -> Measured:
    """The row of what a program without networks makes of the faces."""
    pairs = ((naive(found, name), found.read(found.truth, name)) for name in found.names)
    row = measure(NAIVE[config.task], pairs, config.metrics, config.weights_dir)
    if found.mask is None:
        return row
    inside = [hole_psnr(found, name, naive(found, name)) for name in found.names]
    return replace(row, values={"hole_psnr": np.array(inside)} | dict(row.values))


def told(row: Measured) -> str:
    """A row in one line."""
    return ", ".join(f"{name} {score}" for name, score in row.scores.items())


def open_tracker(config: EvaluateConfig) -> RunTracker:
    """The parent of the ways' runs."""
    tracker = RunTracker.open(
        tracking_uri(config),
        config.experiment,
        store.name_of(config.output),
        params=asdict(config),
        state_uri=store.join(config.output, layout.TRACKING_WITHOUT_LEDGER),
        warn=lambda text: say(f"warning: {text}"),
    )
    tracker.flush()  # the ways want its run's id
    return tracker


def tracking_uri(config: EvaluateConfig) -> str:
    """Where this evaluation is tracked."""
    return settle_uri(config.mlflow_uri, config.output)


def surroundings(config: EvaluateConfig, parent: RunTracker) -> dict[str, Any]:
    """What the ways are told beside their method."""
    return {
        "mlflow_uri": tracking_uri(config),
        "experiment": config.experiment,
        "tags": f"mlflow.parentRunId={parent.run_id}" if parent.run_id else "",
        "ray_address": config.ray_address,
        "device": config.device,
    }


def compare(
    config: EvaluateConfig, found: EvaluationSet, ways: Sequence[Way], rows: Sequence[Measured]
) -> Report:
    """The report of rows that were measured, the naive one first."""
    names = found.names[:SHOWN_FACES]
    shown = {rows[0].name: [naive(found, n) for n in names]}
    shown |= {way.name: [way.picture(n) for n in names] for way in ways}
    shown |= {"truth": [found.read(found.truth, n) for n in names]}
    column, what = SEVERITY.get(config.task, SEVERITY["restore"])
    bases = {way.name: way.base for way in ways if way.base}
    chains = [way.name for way in ways if way.is_chain]
    report = make_report(rows, bases, chains, strata(found.sheet, column), what, shown)
    # the paper's pattern is that of blind restoration
    return report if config.task == "restore" else replace(report, verdicts=())


def publish(config: EvaluateConfig, tracker: RunTracker, report: Report | RealReport) -> None:
    """Write the report, tell MLflow, print the tables."""
    title = f"Evaluation {store.name_of(config.output)}"
    files = {
        "scores.json": json.dumps(report.values(), indent=1).encode(),
        "scores.md": report.markdown().encode(),
        "index.html": report.html(title).encode(),
    } | dict(report.pictures)
    for name, data in files.items():
        store.write_bytes(store.join(config.output, name), data)
        tracker.log_artifact(store.join(config.output, name), name)
    tracker.log_metrics(0, {n: v for n, v in report.metrics().items() if math.isfinite(v)})
    tracker.set_tags({"best": report.best} if report.best else {})
    tracker.finish()
    print("\n" + report.markdown())
    print(f"report  {store.join(config.output, 'index.html')}")
    print(f"MLflow  {ui_command(tracking_uri(config))}")


def describe(ways: Sequence[Way], faces: int) -> None:
    """What a dry run tells."""
    print(f"{faces} faces; {len(ways)} ways to restore them:")
    total = 0.0
    for way in ways:
        known = way.parameters is not None
        seconds = faces * seconds_per_face(way.preset, way.calls) if known else 0.0
        total += seconds
        about = f"about {duration(seconds)} on this machine's CPU" if known else "time not known"
        print(f"  {way.name}: {way.calls} network calls a face, {about}")
    print(f"in all about {duration(total)}, and what the metrics take")
