"""Evaluations of sets of aligned 512 px crops: real faces without ground truth, and the benchmark."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import torch

from pipeline.console.commands import OK, say
from pipeline.console.options import UsageError
from pipeline.datasets.faces import PHOTOGRAPHS, find_faces, spread
from pipeline.evaluation import benchmark_report, challenge_report
from pipeline.evaluation.benchmark import (
    TruthScorer,
    measured_row,
    place_benchmark,
    write_benchmark,
)
from pipeline.evaluation.benchmark_report import BenchmarkReport
from pipeline.evaluation.challenge import NAMES, ChallengeRow, cosine_rows, fid_to
from pipeline.evaluation.challenge_report import ChallengeReport
from pipeline.evaluation.crops import (
    Reason,
    RestoredFaces,
    left_out_words,
    place_real,
    write_real,
)
from pipeline.evaluation.options import EvaluateConfig
from pipeline.evaluation.real_metrics import EMBEDDING, FEATURES, METRICS, RealFaceMetrics
from pipeline.evaluation.rows import (
    Measurements,
    Pictures,
    column,
    input_pictures,
    variant_pictures,
    vectors,
)
from pipeline.evaluation.scores import Measured, Numbers
from pipeline.evaluation.sweep import Variant
from pipeline.evaluation.testset import PictureSet
from pipeline.evaluation.tracked import describe, make_variants, open_tracker, publish, restore_variants
from pipeline.io import store
from pipeline.io.weights import copies
from pipeline.metrics.distribution import FeatureStatistics, load_reference
from pipeline.metrics.suite import Suite, parse_metrics
from pipeline.networks.presets import Preset, find_preset
from pipeline.tracking.tracker import RunTracker

INPUT = "input"


def evaluate_real(config: EvaluateConfig) -> int:
    """Score real faces without ground truth, as the NTIRE challenge does. Returns the exit code."""
    reference = load_reference(config.reference)
    photographs = spread(find_faces(config.faces, PHOTOGRAPHS).faces, config.limit)
    found = place_real(photographs, store.join(config.output, "sets"))
    others = {name: find_faces(uri, PHOTOGRAPHS).faces for name, uri in config.restored_folders.items()}
    variants, missing = choose_variants(config, found)
    if config.dry_run:
        return announce(variants, missing, len(photographs))
    store.check_writable(config.output)
    left_out = write_real(found, photographs)
    contents = with_left_out(found.contents, left_out)
    say(f"{contents}, in {found.uri}; {len(variants)} variants")
    restored = [RestoredFaces(name, faces, found) for name, faces in others.items()]
    metrics = RealFaceMetrics(config.weights_dir, device_of(config), reference is not None)
    missing += challenge_report.not_measured(metrics.left_out)
    warn(missing)
    measured = Measurements(found, measured_in(config), metrics.method, lambda _, picture: metrics(picture))
    rows: list[ChallengeRow] = []
    shown: list[Pictures] = []
    embeddings: Numbers | None = None
    with open_tracker(config) as tracker:
        for pictures in pictures_of(config, tracker, found, restored, variants):
            if isinstance(pictures, int):
                return pictures
            say(f"measuring {pictures.name}")
            table = measured.of(pictures)
            row = challenge_row(pictures, table, metrics, found.sources, embeddings, reference)
            if metrics.rule is not None and embeddings is None:
                embeddings = vectors(table, EMBEDDING)
            scores = ", ".join(f"{NAMES[name]} {score}" for name, score in row.scores.items())
            say(f"{row.name}: {scores or 'nothing measured'}; score {row.total}")
            rows.append(row)
            shown.append(pictures)
        faces = challenge_report.draw_faces(rows, shown)
        publish(config, tracker, ChallengeReport(rows, contents, missing, metrics.rule, faces))
    return OK


def challenge_row(
    pictures: Pictures,
    table: pa.Table,
    metrics: RealFaceMetrics,
    sources: Sequence[str],
    inputs: Numbers | None,
    reference: FeatureStatistics | None,
) -> ChallengeRow:
    """The row of measured pictures. inputs: [F, D] embeddings of the set's own pictures; None for themselves."""
    values = {name: column(table, name) for name in METRICS if name in table.column_names}
    fid = None
    if reference is not None and FEATURES in table.column_names and len(table) > 1:
        fid = fid_to(vectors(table, FEATURES), reference)
    cosines = None if inputs is None else cosine_rows(inputs, vectors(table, EMBEDDING))
    rule = metrics.rule
    thresholds = np.array([rule.threshold(source) if rule else np.nan for source in sources])
    return ChallengeRow(pictures.name, values, fid, cosines, thresholds, pictures.cost)


def evaluate_benchmark(config: EvaluateConfig) -> int:
    """Score clean faces that are damaged at 512 px. Returns the exit code."""
    metrics = read_metrics(config.metrics)
    photographs = spread(find_faces(config.faces, PHOTOGRAPHS).faces, config.limit)
    found = place_benchmark(photographs, config.seed, config.level_names, store.join(config.output, "sets"))
    variants, missing = choose_variants(config, found)
    if config.dry_run:
        return announce(variants, missing, len(photographs) * len(found.levels))
    store.check_writable(config.output)
    left_out = write_benchmark(found, photographs)
    contents = with_left_out(found.contents, left_out)
    say(f"{contents}, in {found.uri}; {len(variants)} variants")
    device = device_of(config)
    suite = Suite(metrics, device, config.weights_dir)
    missing += [f"{name} is not measured: {why}." for name, why in suite.left_out.items()]
    warn(missing)
    measured = Measurements(found, measured_in(config), [*suite.names, device], TruthScorer(found, suite))
    rows: list[Measured] = []
    shown: list[Pictures] = []
    with open_tracker(config) as tracker:
        for pictures in pictures_of(config, tracker, found, [], variants):
            if isinstance(pictures, int):
                return pictures
            say(f"measuring {pictures.name}")
            rows.append(measured_row(pictures.name, measured.of(pictures), pictures.cost))
            shown.append(pictures)
        faces = benchmark_report.draw_faces(found, rows, shown)
        publish(config, tracker, BenchmarkReport(rows, found.rows_of, contents, missing, faces))
    return OK


def pictures_of(
    config: EvaluateConfig,
    tracker: RunTracker,
    found: PictureSet,
    restored: Sequence[RestoredFaces],
    variants: Sequence[Variant],
) -> Iterator[Pictures | int]:
    """The rows of the table, one after the other; variants are restored, and the first that fails is its exit code."""
    yield input_pictures(found, INPUT)
    for other in restored:
        yield Pictures(other.name, other.digest, other.read, {})
    if not variants:
        return
    for variant, code in restore_variants(config, tracker, variants):
        yield variant_pictures(found, variant) if code == OK else code


def choose_variants(config: EvaluateConfig, found: PictureSet) -> tuple[list[Variant], list[str]]:
    """The variants whose weights are there, and for each preset what is left out of it, in words.

    Of a network by spandrel only the estimator alone is a row: that is the method its authors published. Raises
    UsageError for an invalid variant.
    """
    presets = {name: find_preset(name) for name in config.preset_names}
    absent = {name: absent_weights(preset, config.weights_dir) for name, preset in presets.items()}
    there = {name: preset for name, preset in presets.items() if preset.estimator.file not in absent[name]}
    chains = {preset.name for name, preset in there.items() if _has_chain(preset) and not absent[name]}
    made = make_variants(config, there, found, {"aligned": True, "alignment": "ffhq"})
    variants = [v for v in made if not v.is_chain or v.preset.name in chains]
    missing = [
        f"{name} is left out{' but for its estimator alone' if name in there else ''}: {' and '.join(files)} "
        f"{'is' if len(files) == 1 else 'are'} not there (python -m jobs.models fetch {name})."
        for name, files in absent.items()
        if files
    ]
    return variants, missing


def absent_weights(preset: Preset, weights_dir: str | None) -> list[str]:
    """The files of its rows that are neither on this machine nor in `weights_dir`; nothing is fetched."""
    specs = [preset.estimator, *([preset.prior] if _has_chain(preset) else [])]
    return [s.file for s in specs if not any(copies(s.file, s.url, weights_dir))]


def _has_chain(preset: Preset) -> bool:
    return preset.estimator.kind != "spandrel"


def read_metrics(text: str) -> tuple[str, ...]:
    """The metrics of --metrics. Raises UsageError for an unknown one, and for none."""
    try:
        metrics = parse_metrics(text, with_truth=True)
    except ValueError as error:
        raise UsageError(f"--metrics: {error}") from error
    if not metrics:
        raise UsageError(f"--metrics must name at least one metric, got {text}")
    return metrics


def device_of(config: EvaluateConfig) -> str:
    """Where torch's networks of the metrics run."""
    if config.device != "auto":
        return config.device
    return "cuda" if torch.cuda.is_available() else "cpu"


def measured_in(config: EvaluateConfig) -> str:
    """The folder of the measurements."""
    return store.join(config.output, "measured")


def with_left_out(contents: str, counts: Mapping[Reason, int]) -> str:
    """A set's contents with what was left out of it."""
    words = left_out_words(counts)
    return f"{contents}, left out: {words}" if words else contents


def announce(variants: Sequence[Variant], missing: Sequence[str], faces: int) -> int:
    """What a dry run prints; returns OK."""
    describe(variants, faces)
    print("\n".join(missing))
    return OK


def warn(sentences: Sequence[str]) -> None:
    """Say what is missing."""
    for sentence in sentences:
        say(f"warning: {sentence}")
