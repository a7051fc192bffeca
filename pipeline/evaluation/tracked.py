"""An evaluation as one MLflow run: its variants restored as runs below it, its report written and logged."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from pipeline.console.commands import INTERRUPTED, OK, say
from pipeline.console.progress import duration
from pipeline.evaluation.options import EvaluateConfig
from pipeline.evaluation.sweep import Sweep, Variant, list_variants
from pipeline.evaluation.testset import PictureSet
from pipeline.io import layout, store
from pipeline.networks.cost import seconds_per_face
from pipeline.networks.presets import Preset
from pipeline.restoration.flow import connect
from pipeline.tracking.address import settle_uri, ui_command
from pipeline.tracking.tracker import RunTracker


class AnyReport(Protocol):
    """What `publish` writes and logs."""

    @property
    def best(self) -> str | None:
        """The best variant, where one is named."""

    @property
    def pictures(self) -> Mapping[str, bytes]:
        """Plots and sheets by file name, PNG."""

    def values(self) -> list[dict[str, Any]]:
        """The rows for programs."""

    def metrics(self) -> dict[str, float]:
        """Name → value, for MLflow."""

    def markdown(self) -> str:
        """The tables and the sentences."""

    def html(self, title: str) -> str:
        """The same with the pictures, as one page."""


def make_variants(
    config: EvaluateConfig, presets: Mapping[str, Preset], found: PictureSet, given: Mapping[str, Any]
) -> list[Variant]:
    """Every combination of presets and swept settings over a set. Raises UsageError for an invalid one.

    given: options of jobs.restore that are the set's.
    """
    gates = config.gate_levels if config.task == "restore" else "normal"  # other tasks have none
    varied = (config.start_steps, config.etas, config.steps, config.calls, config.solvers, gates)
    sweep = Sweep(*(tuple((values or "").split(",")) for values in varied))
    common = {
        "input": found.degraded,
        "mask": found.mask,
        "truth": None,
        "metrics": "none",
        "task": config.task,
        "aligned": False,
        "factor": config.factor if config.task == "upscale" else 0,
        "seed": config.seed,
        "precision": config.precision,
        "weights_dir": config.weights_dir,
    }
    return list_variants(presets, sweep, {**common, **given}, store.join(config.output, "runs"))


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


def publish(config: EvaluateConfig, tracker: RunTracker, report: AnyReport) -> None:
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
