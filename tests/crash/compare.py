"""What a run leaves behind, but for what two undisturbed runs differ in: times, and names given by chance."""

import hashlib
import io
import json
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from mlflow import MlflowClient
from photographs import read_folder

# Bytes that depend on input and settings alone.
SAME_BYTES = ("images/", "records/", "report/samples/", "report/contact_sheet.png", "review/tiles/")
# Who drove and when: one file for every start, whatever became of it.
DRIVERS = "_ledger/drivers/*.json"
# What names a run, and what is computed from it.
IDENTITY = {"run", "seal", "digest"}
# Settings that name the place of a run and no more.
PLACES = {"output", "run_name", "ray_address"}


def left_behind(output: Path, mlflow_uri: str, run_name: str) -> dict[str, Any]:
    """What lies in the output, and what MLflow has of it; equal for two runs of the same command."""
    files = {n: c for n, c in read_folder(output).items() if not fnmatchcase(n, DRIVERS)}
    seen: dict[str, Any] = {"names": sorted(files)}
    for name, content in sorted(files.items()):
        if name.startswith(SAME_BYTES):
            seen[name] = hashlib.sha256(content).hexdigest()
        elif name.startswith("_ledger/done/"):
            seen[name] = without_times(nameless(json.loads(content)))
        elif name.startswith("_ledger/plan"):
            seen[name] = nameless(json.loads(content))
    run = json.loads(files["_ledger/run.json"])
    seen["run"] = without(run, {"created_at", "run", "seal"})
    seen["run"]["repeat"]["config"] = without(seen["run"]["repeat"]["config"], PLACES)
    seen["retries"] = json.loads(files.get("_ledger/retries.json", b"{}"))
    table = pq.read_table(io.BytesIO(files["report/shards.parquet"])).to_pylist()
    seen["table of shards"] = [{k: v for k, v in row.items() if not timed(k)} for row in table]
    return seen | told_mlflow(mlflow_uri, run_name)


def without(values: dict[str, Any], names: set[str]) -> dict[str, Any]:
    return {k: v for k, v in values.items() if k not in names}


def nameless(values: Any) -> Any:
    """A plan or marker without the identity of its run: two runs of one command have two."""
    if isinstance(values, list):
        return [nameless(v) for v in values]
    if isinstance(values, dict):
        return {k: nameless(v) for k, v in values.items() if k not in IDENTITY}
    return values


def without_times(marker: dict[str, Any]) -> dict[str, Any]:
    """A marker without times and durations, and without how full the engine happened to be."""
    sums = {k: v for k, v in marker["sums"].items() if not timed(k)}
    return without(marker, {"finished_at"}) | {"sums": sums}


def timed(metric: str) -> bool:
    """Whether a number depends on the machine's speed and load."""
    return metric.startswith(("seconds_", "slot_")) or metric == "faces_per_second"


def told_mlflow(uri: str, run_name: str) -> dict[str, Any]:
    """The one MLflow run of that name: settings, inputs, artifacts, and every point of every metric."""
    client = MlflowClient(uri)
    experiments = [e.experiment_id for e in client.search_experiments()]
    [run] = client.search_runs(experiments, f"attributes.run_name = '{run_name}'")
    histories = {key: client.get_metric_history(run.info.run_id, key) for key in run.data.metrics}
    steps = {key: sorted(p.step for p in points) for key, points in histories.items()}
    values = {key: sorted((p.step, p.value) for p in points) for key, points in histories.items()}
    inputs = [(i.dataset.name, i.dataset.digest, i.dataset.source) for i in run.inputs.dataset_inputs]
    return {
        "MLflow status": run.info.status,
        "MLflow settings": without(run.data.params, PLACES),
        "MLflow tags": {k: v for k, v in run.data.tags.items() if not k.startswith(("mlflow.", "difface."))},
        "MLflow inputs": sorted(inputs),
        "MLflow artifacts": sorted(a.path for a in client.list_artifacts(run.info.run_id, "report")),
        # the engine may have had nothing waiting at any time of a shard
        "MLflow steps": {k: s for k, s in steps.items() if k != "slot_fill_pressed"},
        "MLflow values": {k: v for k, v in values.items() if not timed(k)},
    }
