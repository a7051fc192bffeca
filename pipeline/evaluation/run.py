"""One evaluation: presets over a test set, scored and reported."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pipeline.console.commands import OK, say
from pipeline.console.options import UsageError
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
from pipeline.evaluation.crop_sets import evaluate_benchmark, evaluate_real
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
from pipeline.evaluation.sweep import Variant
from pipeline.evaluation.testset import EvaluationSet, PictureSet, Recipe, naive, place_set, write_set
from pipeline.evaluation.tracked import describe, make_variants, open_tracker, publish, restore_variants
from pipeline.io import store
from pipeline.networks.presets import Preset, find_preset

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
    if config.grid == "real":
        return make_variants(config, presets, found, {"alignment": "preset"})
    measured = {"truth": found.truth, "metrics": config.metrics, "aligned": True, "alignment": "preset"}
    return make_variants(config, presets, found, measured)


def recipe(config: EvaluateConfig, side: int) -> Recipe:
    """The recipe of the set; options of other tasks are ignored."""
    holes = config.kinds if config.task == "inpaint" else ()
    return Recipe(config.task, side, config.seed, holes, config.factor if config.task == "upscale" else 0)


def evaluate(config: EvaluateConfig) -> int:
    """Make the set, restore it with every variant, score, report. Returns the exit code."""
    if config.test_set != "degraded":
        return evaluate_real(config) if config.test_set == "real" else evaluate_benchmark(config)
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
    """Measured rows by the labels of their faces; None without labels, or without a metric that harm is measured by.

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
