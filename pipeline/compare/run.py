"""One comparison of two runs."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.compare.pairs import EXTREMES
from pipeline.compare.report import compare_runs, document, lines, pictures, values
from pipeline.compare.runs import Compared, open_compared
from pipeline.console.commands import GATE_BROKEN, OK, say
from pipeline.console.gates import parse_gates
from pipeline.console.options import UsageError, option
from pipeline.io import store
from pipeline.io.errors import redact
from pipeline.metrics.distribution import load_reference
from pipeline.tracking.address import NO_TRACKING, mlflow_option, settle_uri
from pipeline.tracking.lookup import NotFound, find_outputs
from pipeline.tracking.tracker import RunTracker


@dataclass(frozen=True)
class CompareConfig:
    """The options of one comparison."""

    runs: tuple[str, ...] = option(
        (),
        help="two runs: the --output of jobs.restore commands, or ids or names of their MLflow runs",
        group="what",
        metavar="RUN",
        positional=True,
    )
    output: str | None = option(
        None,
        help="folder for page, pictures and compare.json (default: compare/NAME-OF-A in the second run's output)",
        group="what",
        metavar="PATH_OR_URI",
    )
    partial: bool = option(False, help="compare the finished units of unfinished runs", group="what")
    reference: str | None = option(
        None,
        help="statistics of a set of faces (.npz, made by jobs.reference) from which each run's FID is compared; both "
        "runs need --metrics features",
        group="what",
        metavar="PATH_OR_URI",
    )
    by: str | None = option(
        None,
        help="measurement by which the shown faces are selected, or pixels (default: the best one that both runs have)",
        group="faces",
        metavar="NAME",
    )
    faces: int = option(24, help="faces to show, half of them for each direction", group="faces")
    sample: int = option(64, help="faces whose pixels are compared", group="faces")
    fail_if: str | None = option(
        None,
        help="exit 5 when a mean difference, B - A, exceeds a bound: NAME>NUMBER or NAME<NUMBER, separated by "
        "commas; a name is a measurement or outcome_restored, outcome_failed, ...",
        group="outcome",
        metavar="GATES",
    )
    mlflow_uri: str | None = mlflow_option("the second run's output", group="surroundings")
    experiment: str = option("difface-compare", help="MLflow experiment", group="surroundings")

    def __post_init__(self) -> None:
        if len(self.runs) != 2:
            raise UsageError(f"expected two runs, got {len(self.runs)}; give RUN_A RUN_B")
        if not 2 <= self.faces <= 2 * EXTREMES:
            raise UsageError(f"--faces must lie in 2..{2 * EXTREMES}, got {self.faces}")
        if self.sample < 0:
            raise UsageError(f"--sample must not be negative, got {self.sample}")
        parse_gates(self.fail_if or "")


def find_run(run: str, mlflow_uri: str | None) -> str:
    """The output of a run given by its path, or by its MLflow id or name. Raises UsageError or StoreError."""
    if "/" in run or store.exists(run) or mlflow_uri == NO_TRACKING:
        return run.rstrip("/") or run
    uri = settle_uri(mlflow_uri, run)  # the default of an output of that name in this folder
    try:
        outputs = find_outputs(uri, run)
    except NotFound as error:
        raise UsageError(f"{run}: no such output, and no MLflow run was found: {error}") from error
    if len(outputs) != 1:
        problem = (
            f"{len(outputs)} outputs have that name ({', '.join(outputs)})"
            if outputs
            else "none has that name"
        )
        raise UsageError(f"{run}: expected one run of MLflow at {redact(uri)}, {problem}; give its --output")
    return outputs[0].rstrip("/")


def run(config: CompareConfig) -> int:
    """Compare, print, write, log to MLflow. Returns the exit code."""
    places = [find_run(name, config.mlflow_uri) for name in config.runs]
    if places[0] == places[1]:
        raise UsageError(f"expected two different runs, both are {places[0]}")
    a, b = (open_compared(place, config.partial) for place in places)
    output = config.output or store.join(b.run.output, "compare", a.name)
    store.check_writable(output)
    reference = load_reference(config.reference)
    result = compare_runs(a, b, config.by, config.faces, config.sample, reference)
    summary = values(result)
    failed = list(failing(config, mean_differences(summary)))
    summary |= {"fail_if": config.fail_if, "failed_gates": failed}
    drawn = pictures(result)
    files = {"compare.json": json.dumps(summary, indent=1).encode()} | drawn
    files["index.html"] = document(summary, drawn).encode()
    for name, data in files.items():
        store.write_bytes(store.join(output, name), data)
    print("\n".join(lines(summary)))
    for sentence in failed:
        print(f"fail: {sentence}")
    print(f"\npage    {store.join(output, 'index.html')}")
    track(config, a, b, output, list(files), summary)
    return GATE_BROKEN if failed else OK


def mean_differences(summary: Mapping[str, Any]) -> dict[str, float]:
    """Difference by measurement, by distance of sets, and by outcome_NAME."""
    both = {**summary["metrics"], **summary["distances"]}
    measured = {name: float(m["difference"]) for name, m in both.items()}
    return measured | {f"outcome_{name}": float(o["difference"]) for name, o in summary["outcomes"].items()}


def failing(config: CompareConfig, differences: Mapping[str, float]) -> Iterator[str]:
    """A sentence for each gate that fails. Raises UsageError for a name that was not compared."""
    for gate in parse_gates(config.fail_if or ""):
        absent = 0.0 if gate.name.startswith("outcome_") else None
        difference = differences.get(gate.name, absent)
        if difference is None:
            known = ", ".join(differences)
            raise UsageError(f"--fail-if {gate.name}: expected one of {known}")
        if gate.holds(difference):
            yield f"{gate.name} differs by {difference:+.4g}, which is {gate.sign} {gate.limit:g}"


def track(
    config: CompareConfig,
    a: Compared,
    b: Compared,
    output: str,
    files: Sequence[str],
    summary: Mapping[str, Any],
) -> None:
    """One MLflow run with the differences, their intervals and the files; its tags name both runs."""
    tracker = RunTracker.open(
        settle_uri(config.mlflow_uri, b.run.output),
        config.experiment,
        f"{a.name} against {b.name}",
        params=asdict(config) | {"runs": f"{a.run.output} {b.run.output}", "output": output},
        tags={
            "run_a": a.run_id,
            "run_b": b.run_id,
            "fingerprint_a": a.run.digest,
            "fingerprint_b": b.run.digest,
        },
        warn=say,
    )
    metrics = {f"diff/{name}": value for name, value in mean_differences(summary).items()}
    for name, m in {**summary["metrics"], **summary["distances"]}.items():
        if m["low"] is not None:
            metrics |= {f"diff_low/{name}": m["low"], f"diff_high/{name}": m["high"]}
    metrics |= {"images": summary["shared"]["images"], "faces": summary["shared"]["faces"]}
    tracker.log_metrics(0, metrics)
    for name in files:
        tracker.log_artifact(store.join(output, name), name)
    if tracker.finish():
        say("MLflow did not receive everything; the page and compare.json are complete")
