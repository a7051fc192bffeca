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
from pipeline.evaluation.decisions import read_decisions
from pipeline.evaluation.delivered import Delivered
from pipeline.evaluation.groups import Groups
from pipeline.evaluation.harm import ANY, MOST_LOST, Cuts, VariantResult, cut
from pipeline.evaluation.labels import Labels, read_labels
from pipeline.evaluation.options import EvaluateConfig
from pipeline.evaluation.photographs import place_photographs, write_photographs
from pipeline.evaluation.realreport import RealReport, draw_faces
from pipeline.evaluation.report import Report, as_delivered, make_report
from pipeline.evaluation.scores import Measured, hole_psnr, measure, strata
from pipeline.evaluation.sweep import Sweep, Variant, list_variants
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
    """The presets to score, by their given names. Raises UsageError where their sides differ and faces are aligned."""
    presets = {name: find_preset(name) for name in config.preset_names}
    if config.grid == "paper" and len({p.side for p in presets.values()}) > 1:
        sides = ", ".join(f"{p.name} {p.side}" for p in presets.values())
        raise UsageError(f"--presets must have the same side, got {sides}")
    return presets


def choose_variants(config: EvaluateConfig, presets: dict[str, Preset], found: PictureSet) -> list[Variant]:
    """The rows of the table. Raises UsageError for an invalid variant."""
    gates = config.gates if config.task == "restore" else "normal"  # other tasks have none
    varied = (config.start_steps, config.etas, config.steps, config.calls, config.solvers, gates)
    sweep = Sweep(*(tuple((values or "").split(",")) for values in varied))
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
    return list_variants(presets, sweep, common, store.join(config.output, "runs"))


def recipe(config: EvaluateConfig, side: int) -> Recipe:
    """The recipe of the set; options of other tasks are ignored."""
    holes = config.kinds if config.task == "inpaint" else ()
    return Recipe(config.task, side, config.seed, holes, config.factor if config.task == "upscale" else 0)


def evaluate(config: EvaluateConfig) -> int:
    """Make the set, restore it with every variant, score, report. Returns the exit code."""
    return evaluate_photographs(config) if config.grid == "real" else evaluate_faces(config)


def evaluate_faces(config: EvaluateConfig) -> int:
    """The paper's grid."""
    presets = choose_presets(config)
    side = next(iter(presets.values())).side
    faces = choose_faces(config, side)
    labels = read_labels(faces, config.label_columns, config.labels)
    found = place_set(faces, recipe(config, side), store.join(config.output, "sets"))
    variants = choose_variants(config, presets, found)
    if config.dry_run:
        describe(variants, len(faces))
        return OK
    store.check_writable(config.output)
    write_set(found, faces)
    say(f"{len(faces)} faces in {found.uri}, {len(variants)} variants")
    with open_tracker(config) as tracker:
        rows = [measure_naive(config, found)]
        say(f"{rows[0].name}: {score_line(rows[0])}")
        for variant, code in restore_variants(config, tracker, variants):
            if code != OK:
                return code
            rows.append(variant.measured(found))
            say(score_line(rows[-1]))
        groups = group_faces(labels, variants, rows, found)
        publish(config, tracker, replace(compare(config, found, variants, rows), groups=groups))
    return OK


def group_faces(
    labels: Labels, variants: Sequence[Variant], rows: Sequence[Measured], found: EvaluationSet
) -> Groups | None:
    """Measured rows by the labels of their faces; None without labels, or without a metric that harm is judged by.

    rows: the baseline, which gains are against, then each variant's.
    """
    came = as_delivered(rows[0])
    if not labels or not MOST_LOST.keys() & came.keys():
        return None
    decisions = {v.name: read_decisions(v.config.output.uri, found.names) for v in variants if v.has_gates}
    results = [VariantResult(row.name, came, as_delivered(row), {}) for row in rows[1:]]
    return Groups(labels, Cuts({}, range(len(found.names))), results, decisions)


def evaluate_photographs(config: EvaluateConfig) -> int:
    """The real-world grid."""
    presets = choose_presets(config)
    pictures = spread(find_faces(config.faces, PHOTOGRAPHS).faces, config.limit)
    labels = read_labels(pictures, config.label_columns, config.labels)
    found = place_photographs(pictures, config.seed, config.level_names, store.join(config.output, "sets"))
    variants = choose_variants(config, presets, found)
    if config.dry_run:
        describe(variants, len(pictures) * len(found.levels))
        return OK
    store.check_writable(config.output)
    write_photographs(found, pictures)
    say(f"{found.contents}, in {found.uri}; {len(variants)} variants")
    delivered = Delivered(found, store.join(config.output, "measured"), config.weights_dir)
    for name, why in delivered.left_out.items():
        say(f"warning: the metric {name} is left out: {why}")
    cuts = cut(*(found.sheet[name].to_pylist() for name in ("level", "number")))
    with open_tracker(config) as tracker:
        rows: list[VariantResult] = []
        decisions: dict[str, list[str]] = {}
        for variant, code in restore_variants(config, tracker, variants):
            if code != OK:
                return code
            say("measuring the delivered pictures")
            out, cost = delivered.of_run(variant.config.output.uri), variant.cost(len(found.names))
            rows.append(VariantResult(variant.name, delivered.came, out, cost, variant.ungated))
            if variant.has_gates and labels:
                boxes = found.sheet["box"].to_pylist()
                decisions[variant.name] = read_decisions(variant.config.output.uri, found.names, boxes)
            harmed = (f"{level} {rows[-1].harm(here)[ANY]:.0%}" for level, here in cuts.levels.items())
            say(f"delivered worse than the input: {', '.join(harmed)}")
        faces = draw_faces(found, rows, [variant.pictures for variant in variants])
        of_rows = {name: [each[number] for number in cuts.numbers] for name, each in labels.items()}
        groups = Groups(of_rows, cuts, rows, decisions)
        publish(config, tracker, RealReport(rows, cuts, groups, faces, found.contents))
    return OK


def restore_variants(
    config: EvaluateConfig, tracker: RunTracker, variants: Sequence[Variant]
) -> Iterator[tuple[Variant, int]]:
    """Restore the set with every variant; yields each with its exit code, up to the first that fails."""
    connect(config.ray_address)
    options = shared_options(config, tracker)
    for number, variant in enumerate(variants, 1):
        say(f"variant {number} of {len(variants)}: {variant.name}")
        code = variant.restore(options)
        if code != OK:
            tracker.finish("KILLED" if code == INTERRUPTED else "FAILED")
        yield variant, code
        if code != OK:
            return


def measure_naive(config: EvaluateConfig, found: EvaluationSet) -> Measured:
    """The row of the baseline without networks."""
    pairs = ((naive(found, name), found.read(found.truth, name)) for name in found.names)
    row = measure(NAIVE[config.task], pairs, config.metrics, config.weights_dir)
    if found.mask is None:
        return row
    inside = [hole_psnr(found, name, naive(found, name)) for name in found.names]
    return replace(row, values={"hole_psnr": np.array(inside)} | dict(row.values))


def score_line(row: Measured) -> str:
    """The scores of a row in one line."""
    return ", ".join(f"{name} {score}" for name, score in row.scores.items())


def open_tracker(config: EvaluateConfig) -> RunTracker:
    """The parent run of the variants' MLflow runs."""
    tracker = RunTracker.open(
        tracking_uri(config),
        config.experiment,
        store.name_of(config.output),
        params=asdict(config),
        state_uri=store.join(config.output, layout.TRACKING_WITHOUT_LEDGER),
        warn=lambda text: say(f"warning: {text}"),
    )
    tracker.flush()  # the variants need its run id
    return tracker


def tracking_uri(config: EvaluateConfig) -> str:
    """The tracking URI of this evaluation."""
    return settle_uri(config.mlflow_uri, config.output)


def shared_options(config: EvaluateConfig, parent: RunTracker) -> dict[str, Any]:
    """Options of jobs.restore shared by all variants that change no pixels."""
    return {
        "mlflow_uri": tracking_uri(config),
        "experiment": config.experiment,
        "tags": f"mlflow.parentRunId={parent.run_id}" if parent.run_id else "",
        "ray_address": config.ray_address,
        "device": config.device,
    }


def compare(
    config: EvaluateConfig, found: EvaluationSet, variants: Sequence[Variant], rows: Sequence[Measured]
) -> Report:
    """The report of measured rows, the baseline first."""
    names = found.names[:SHOWN_FACES]
    shown = {rows[0].name: [naive(found, n) for n in names]}
    shown |= {variant.name: [variant.picture(n) for n in names] for variant in variants}
    shown |= {"truth": [found.read(found.truth, n) for n in names]}
    column, what = SEVERITY.get(config.task, SEVERITY["restore"])
    bases = {variant.name: variant.base for variant in variants if variant.base}
    chains = [variant.name for variant in variants if variant.is_chain]
    report = make_report(rows, bases, chains, strata(found.sheet, column), what, shown)
    # the paper's pattern is for blind restoration only
    return report if config.task == "restore" else replace(report, verdicts=(), harm={})


def publish(config: EvaluateConfig, tracker: RunTracker, report: Report | RealReport) -> None:
    """Write the report, log it to MLflow, print the tables."""
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


def describe(variants: Sequence[Variant], faces: int) -> None:
    """Print the variants and their estimated time."""
    print(f"{faces} faces; {len(variants)} variants:")
    total = 0.0
    for variant in variants:
        known = variant.parameters is not None
        seconds = faces * seconds_per_face(variant.preset, variant.calls) if known else 0.0
        total += seconds
        about = f"about {duration(seconds)} on this machine's CPU" if known else "time not known"
        print(f"  {variant.name}: {variant.calls} network calls per face, {about}")
    print(f"total about {duration(total)}, plus the metrics")
