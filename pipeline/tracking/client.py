"""A client of one MLflow server or database. The only file that imports mlflow.

Values go to MLflow within its own limits and without credentials. Errors are whatever server, network or database
raise.
"""

import json
import os
import re
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from pipeline.io import store
from pipeline.io.errors import redact
from pipeline.io.names import escape_surrogates
from pipeline.tracking.address import RESERVED, SQLITE, database_path
from pipeline.tracking.delivery import Point

# MLflow's own limits: of one log_batch call, and of a name, a value, a data set's digest
BATCH_METRICS, BATCH_PARAMS, BATCH_TAGS = 1000, 100, 100
NAME_LENGTH, PARAM_LENGTH, TAG_LENGTH, DIGEST_LENGTH = 250, 6000, 8000, 36
# Set before mlflow is imported, where the user has not: a dead server costs seconds (we retry ourselves), and mlflow
# neither prints of its own accord nor reports its use to anybody.
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
Status = Literal["FINISHED", "FAILED", "KILLED"]


class Run(NamedTuple):
    """A run that the server has."""

    run_id: str
    params: dict[str, str]


def load() -> Any:
    """The mlflow package, quiet; imported when first used, because that takes seconds."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # what mlflow does with its libraries is not ours to change
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"mlflow\.")
    return _mlflow()


def _mlflow() -> Any:
    import mlflow

    return mlflow


def make_database(uri: str) -> None:
    """Make a SQLite store that is not there yet, whole or not at all.

    mlflow makes one by dozens of migrations that are not undone when they are cut short: killed meanwhile, or
    started twice at once, they leave a file that no later start can open.
    """
    path = database_path(uri)
    if path is None or "?" in uri or path.exists():
        return
    with tempfile.TemporaryDirectory() as temporary:
        new = Path(temporary, "mlflow.db")
        _mlflow().MlflowClient(f"sqlite:///{new}").search_experiments(max_results=1)
        store.create_bytes(str(path.resolve()), new.read_bytes())


def openable(uri: str) -> str:
    """The address by which mlflow in this process opens a store.

    Where a SQLite store's path has letters that an address escapes, mlflow makes folders of the escaped name beside the
    true ones, and SQLAlchemy 2.0 does not read it: then it is a path through /proc.
    """
    path = database_path(uri)
    if path is None or "?" in uri or not RESERVED.search(str(path)):
        return uri
    return f"{SQLITE}{_nameless(str(path.parent.resolve()))}/{path.name}"


@cache
def _nameless(folder: str) -> str:
    """A path of an existing folder without its name. It stays open: mlflow keeps what it opened by this path."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    return f"/proc/self/fd/{os.open(folder, os.O_PATH | os.O_DIRECTORY)}"


def as_name(name: str) -> str:
    """A name in the letters that MLflow takes."""
    return re.sub(r"[^\w.\-/ :]", "_", name)[:NAME_LENGTH]


def as_texts(values: Mapping[str, Any], length: int) -> dict[str, str]:
    """Parameters or tags as MLflow takes them, without credentials."""
    return {as_name(k): escape_surrogates(redact(str(v)))[:length] for k, v in values.items()}


class Client:
    """The requests of one server. The database of a SQLite store must be there, or mlflow makes it."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._client = _mlflow().MlflowClient(openable(uri))

    # ---- runs

    def get_run(self, run_id: str) -> Run | None:
        """The run of this id; None where the server has none, or a deleted one."""
        try:
            found = self._client.get_run(run_id)
        except _mlflow().exceptions.MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            return None
        return _run(found) if found.info.lifecycle_stage == "active" else None

    def find_run(self, experiment: str, tag: str, value: str) -> Run | None:
        """A run of the experiment with this tag."""
        query = f"tags.`{tag}` = '{value}'"
        found = self._client.search_runs([self._experiment_id(experiment)], query, max_results=1)
        return _run(found[0]) if found else None

    def search(self, run: str) -> list[Run]:
        """The runs of this name, newest first, and then the one of this id."""
        quoted = run.replace("'", "''")
        experiments = [e.experiment_id for e in self._client.search_experiments()]
        found = self._client.search_runs(
            experiments, f"attributes.run_name = '{quoted}'", order_by=["attributes.start_time DESC"]
        )
        if re.fullmatch("[0-9a-f]{32}", run):
            found = [*found, *self._client.search_runs(experiments, f"attributes.run_id = '{run}'")]
        return [_run(one) for one in found]

    def create_run(self, experiment: str, name: str, tags: Mapping[str, str]) -> Run:
        """A new run; its experiment is made, or brought back, where needed."""
        return _run(self._client.create_run(self._experiment_id(experiment), tags=tags, run_name=name))

    def reopen_run(self, run_id: str) -> None:
        """Show the run as going on."""
        self._client.update_run(run_id, status="RUNNING")

    def close_run(self, run_id: str, status: Status) -> None:
        """Show the run as ended."""
        self._client.set_terminated(run_id, status)

    def _experiment_id(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is None:
            location = None
            if (database := database_path(self._uri)) is not None:
                location = database.resolve().with_name("mlartifacts").as_uri()
            return str(self._client.create_experiment(name, artifact_location=location))
        if found.lifecycle_stage != "active":
            self._client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    # ---- what a run holds

    def log_params(self, run_id: str, params: Mapping[str, str]) -> None:
        """Parameters that the run does not have yet."""
        new = [_mlflow().entities.Param(k, v) for k, v in params.items()]
        for i in range(0, len(new), BATCH_PARAMS):
            self._client.log_batch(run_id, params=new[i : i + BATCH_PARAMS])

    def log_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Tags, new or with new values."""
        new = [_mlflow().entities.RunTag(k, v) for k, v in tags.items()]
        for i in range(0, len(new), BATCH_TAGS):
            self._client.log_batch(run_id, tags=new[i : i + BATCH_TAGS])

    def log_points(self, run_id: str, points: Sequence[Point]) -> None:
        """Metrics, by one call up to BATCH_METRICS of them."""
        metric = _mlflow().entities.Metric
        metrics = [metric(k, v, p.timestamp_ms, p.step) for p in points for k, v in p.metrics.items()]
        for i in range(0, len(metrics), BATCH_METRICS):
            self._client.log_batch(run_id, metrics=metrics[i : i + BATCH_METRICS])

    def log_artifact(self, run_id: str, uri: str, name: str) -> None:
        """A local or remote file as `name`, which may hold folders."""
        folder, _, file = name.rpartition("/")
        with tempfile.TemporaryDirectory() as temporary:
            copy = Path(temporary, file)
            copy.write_bytes(store.read_bytes(uri))
            self._client.log_artifact(run_id, str(copy), folder or None)

    def log_image(self, run_id: str, key: str, picture: NDArray[np.uint8], step: int) -> None:
        """A picture, [H, W, 3] uint8 RGB."""
        self._client.log_image(run_id, picture, key=key, step=step)

    def log_input(self, run_id: str, uri: str, digest: str, context: str) -> None:
        """The entity that MLflow makes of a MetaDataset: an address and a digest, not the data."""
        entities = _mlflow().entities
        source = json.dumps({"uri": uri})
        kind = urlsplit(uri).scheme or "local"
        dataset = entities.Dataset(store.name_of(uri) or uri, digest[:DIGEST_LENGTH], kind, source)
        tag = entities.InputTag("mlflow.data.context", context)
        self._client.log_inputs(run_id, [entities.DatasetInput(dataset, [tag])])


def _run(found: Any) -> Run:
    return Run(str(found.info.run_id), dict(found.data.params))
