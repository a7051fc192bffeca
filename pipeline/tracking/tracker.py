"""What a job tells MLflow. The only file that imports mlflow; used by the driver only.

Tracking never stops a job: everything is handed to one background thread, a server that is away costs one
warning, and what was not delivered is kept. What was delivered is remembered in a small JSON file, so that
the next start of the same job can pass every shard again and only the missing ones are sent. A point sent
twice (same key, step, time and value) is one point to MLflow.
"""

import hashlib
import json
import logging
import os
import re
import shlex
import sys
import tempfile
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from pipeline import Refusal
from pipeline.io import store
from pipeline.io.errors import reason_of, redact
from pipeline.io.names import escape_surrogates
from pipeline.tracking.delivery import Delivered, Point, grouped, make_point

# MLflow's own limits: of one log_batch call, and of a name, a value, a data set's digest
BATCH_METRICS, BATCH_PARAMS, BATCH_TAGS = 1000, 100, 100
NAME_LENGTH, PARAM_LENGTH, TAG_LENGTH, DIGEST_LENGTH = 250, 6000, 8000, 36
# Seconds until a server that is away is asked again, doubling from first to last
RETRY_FIRST, RETRY_LAST = 5.0, 60.0
# Seconds between writes of the state file during one long delivery
SAVE_EVERY = 10.0
TOKEN_TAG = "difface.delivery"
# Set before mlflow is imported, where the user has not: a dead server costs seconds (we try again ourselves),
# and mlflow neither prints of its own accord nor reports its use to anybody.
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
Status = Literal["FINISHED", "FAILED", "KILLED"]
# The address of no tracking at all.
NOBODY = "none"
_log = logging.getLogger(__name__)
SQLITE = "sqlite:///"
# In the address of a database these end the path, or stand for another letter.
RESERVED = re.compile("[%?#]")


def settle_uri(given: str | None, output_uri: str) -> str:
    """Where a job is tracked: at the given address, else at that of MLFLOW_TRACKING_URI, else in the default store."""
    return given or os.environ.get("MLFLOW_TRACKING_URI") or default_uri(output_uri)


def default_uri(output_uri: str) -> str:
    """The SQLite store used when none is named.

    Beside a local output, so that all outputs of one folder are compared in one place (inside the output
    where the folder around it cannot be written); in the working folder for a remote output.
    """
    if store.is_remote(output_uri):
        return f"{SQLITE}mlflow.db"
    output = Path(output_uri.removeprefix("file://")).resolve()
    existing = next(p for p in output.parents if p.exists())
    folder = output.parent if os.access(existing, os.W_OK) else output
    return database_uri(folder / "mlflow.db")


def database_uri(path: Path) -> str:
    """The address of a SQLite store."""
    return SQLITE + RESERVED.sub(lambda letter: f"%{ord(letter[0]):02X}", str(path))


def database_path(uri: str) -> Path | None:
    """The file of a SQLite store as its address gives it; None for other stores, and for those in memory."""
    path = uri.removeprefix(SQLITE).partition("?")[0]
    if not uri.startswith(SQLITE) or not path or path.startswith((":memory:", "file:")):
        return None
    return Path(unquote(path))


def absolute_uri(uri: str) -> str:
    """The address with a SQLite store's path made absolute, for processes in other folders."""
    path = database_path(uri)
    if path is None or path.is_absolute():
        return uri
    _, mark, options = uri.partition("?")
    return database_uri(path.absolute()) + mark + options


def _openable(uri: str) -> str:
    """The address by which mlflow in this process opens a store.

    Where a SQLite store's path has letters that must be written otherwise in an address, mlflow makes folders of the
    written form beside the true ones, and SQLAlchemy 2.0 does not read it: then it is a path through /proc.
    """
    path = database_path(uri)
    if path is None or "?" in uri or not RESERVED.search(str(path)):
        return uri
    return f"{SQLITE}{_door(str(path.parent.resolve()))}/{path.name}"


@cache
def _door(folder: str) -> str:
    """A path of an existing folder without its name. It stays open: mlflow keeps what it opened by this path."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    return f"/proc/self/fd/{os.open(folder, os.O_PATH | os.O_DIRECTORY)}"


def ui_command(uri: str) -> str:
    """The command line that opens the MLflow UI on this store, without credentials."""
    if uri == NOBODY:
        return "not tracked"
    if uri.startswith(("http://", "https://")):
        return f"python -m webbrowser {shlex.quote(redact(uri))}"
    program = Path(sys.executable).with_name("mlflow")
    # Without job execution and with one worker the UI needs 0.5 GiB, not 2.3.
    begin, ui = "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false", "ui --workers 1 --backend-store-uri"
    path = database_path(uri)
    if path is not None and "?" not in uri and RESERVED.search(str(path.parent)):  # see _openable
        there = f"cd {shlex.quote(str(path.parent))} && {begin} {shlex.quote(str(program))}"
        return f"({there} {ui} {shlex.quote(database_uri(Path(path.name)))})"
    if program.is_relative_to(Path.cwd()):
        program = program.relative_to(Path.cwd())
    return f"{begin} {shlex.quote(str(program))} {ui} {shlex.quote(redact(uri))}"


class NotFound(Refusal, ValueError):
    """A store that can not be asked for its runs; the command exits with code 2."""


def find_outputs(uri: str, run: str) -> list[str]:
    """The outputs of the runs of this id or name, as their parameters name them: newest run first, each once.

    Raises NotFound when the store can not be asked.
    """
    path = database_path(uri)
    if path is not None and not path.exists():
        raise NotFound(f"{path}: an MLflow database was wanted, there is none; name one with --mlflow-uri")
    _quieten()
    client = _mlflow().MlflowClient(_openable(uri))
    quoted = run.replace("'", "''")
    try:
        experiments = [e.experiment_id for e in client.search_experiments()]
        found = client.search_runs(
            experiments, f"attributes.run_name = '{quoted}'", order_by=["attributes.start_time DESC"]
        )
        if re.fullmatch("[0-9a-f]{32}", run):
            found = [*found, *client.search_runs(experiments, f"attributes.run_id = '{run}'")]
    except Exception as error:  # whatever server, network or database do
        raise NotFound(f"MLflow at {redact(uri)} does not say where {run} is ({reason_of(error)})") from error
    return list(dict.fromkeys(r.data.params["output"] for r in found if "output" in r.data.params))


class _Item(NamedTuple):
    """An artifact, image or input: name and digest say whether the run has it, send takes client and run id."""

    name: str
    digest: Callable[[], str]
    send: Callable[[Any, str], None]


class RunTracker:
    """One MLflow run of one job. Every method returns at once, and none raises for the server's sake.

    A `with` block of it that ends by an error closes the run as FAILED, or as KILLED where somebody stopped it.
    """

    def __init__(
        self,
        uri: str,
        experiment: str,
        run_name: str,
        run_id: str | None,
        params: Mapping[str, Any],
        tags: Mapping[str, Any],
        state_uri: str | None,
        interval: float,
        warn: Callable[[str], None],
        owns: Callable[[], bool],
    ) -> None:
        self._uri, self._experiment, self._run_name = (
            uri,
            escape_surrogates(experiment),
            escape_surrogates(run_name),
        )
        self._params = _texts(params, PARAM_LENGTH)
        self._tags = _texts(tags, TAG_LENGTH)
        self._state_uri, self._interval, self._warn = state_uri, interval, warn
        self._owns, self._left = owns, False
        self._warned = False
        self._saved, self._saved_at = b"", 0.0
        self._delivered = self._load(run_id)
        # where an earlier start of this job left each series
        self._earlier = dict(self._delivered.series)
        self._client: Any = None
        self._connected = self._closed = False
        self._status: Status | None = None
        # guards what waits, and the counts of begun and ended deliveries
        self._changed = threading.Condition()
        self._shards: dict[int, Point] = {}
        self._series: list[Point] = []
        self._items: list[_Item] = []
        self._new_tags = dict(self._tags)
        self._begun = self._ended = 0
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)

    @classmethod
    def open(
        cls,
        uri: str,
        experiment: str,
        run_name: str,
        run_id: str | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
        *,
        state_uri: str | None = None,
        interval: float = 2.0,
        warn: Callable[[str], None] = _log.warning,
        owns: Callable[[], bool] = lambda: True,
    ) -> "RunTracker":
        """A tracker for this job; the connection is made in the background.

        Goes on with `run_id`, else with the run that the state file names; where the server knows neither, a
        new run begins, and counts as empty. A parameter with another value than in the continued run becomes
        a tag `changed.NAME`, since MLflow's parameters cannot change.
        state_uri: JSON file, local or remote, that remembers what was delivered; None: only while this
        process lives. interval: seconds between deliveries. warn: told one sentence, once, when something
        stays behind. owns: whether the job still is this process's, by a fresh look; once it is not, the run is
        left to whom it belongs to. uri: `none` gives a tracker that sends nothing.
        """
        if uri == NOBODY:
            return Untracked()
        _quieten()
        _mlflow()  # here, so that the thread does not import it while the caller imports something else
        given = (params or {}, tags or {}, state_uri, interval, warn, owns)
        tracker = cls(uri, experiment, run_name, run_id, *given)
        tracker._thread.start()
        return tracker

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and self._status is None:
            self.finish("KILLED" if issubclass(kind, (KeyboardInterrupt, SystemExit)) else "FAILED")

    @property
    def run_id(self) -> str | None:
        """The run's id, once the server has given one."""
        return self._delivered.run_id

    def log_shard(self, step: int, metrics: Mapping[str, float], timestamp_ms: int) -> None:
        """Numbers of one settled shard; passed over when the run has them.

        `step` is the shard's place in the plan and `timestamp_ms` the time at which it was finished, so that
        a later start of the job gives the same point. A newer time means that the shard was done again.
        """
        with self._changed:
            self._shards[step] = make_point(step, timestamp_ms, _named(metrics))

    def log_metrics(self, step: int, metrics: Mapping[str, float], timestamp_ms: int | None = None) -> None:
        """Numbers of one step of series that only go forward, such as a training's.

        Passed over up to the last step that an earlier start of this job delivered, series by series.
        """
        now = time.time_ns() // 1_000_000 if timestamp_ms is None else timestamp_ms
        with self._changed:
            self._series.append(make_point(step, now, _named(metrics)))

    def log_artifact(self, uri: str, name: str) -> None:
        """A local or remote file, read when it is delivered, as `name`, which may hold folders."""

        def digest() -> str:
            return hashlib.sha256(store.read_bytes(uri)).hexdigest()

        def send(client: Any, run_id: str) -> None:
            folder, _, file = name.rpartition("/")
            with tempfile.TemporaryDirectory() as temporary:
                copy = Path(temporary, file)
                copy.write_bytes(store.read_bytes(uri))
                client.log_artifact(run_id, str(copy), folder or None)

        self._put(_Item(name, digest, send))

    def log_image(self, key: str, array: NDArray[np.uint8], step: int = 0) -> None:
        """A picture, [H, W, 3] uint8 RGB; the UI shows a key's pictures by step."""
        key, array = re.sub(r"[^A-Za-z0-9_\-./ ]", "_", key), array.copy()
        digest = hashlib.sha256(repr(array.shape).encode() + array.tobytes()).hexdigest()

        def send(client: Any, run_id: str) -> None:
            client.log_image(run_id, array, key=key, step=step)

        self._put(_Item(f"image {key} {step}", lambda: digest, send))

    def log_input(self, uri: str, digest: str, context: str = "input") -> None:
        """Where the job's input lies, and its fingerprint."""
        uri = escape_surrogates(redact(uri))

        def send(client: Any, run_id: str) -> None:
            # the entity that MLflow makes of a MetaDataset: an address and a digest, not the data
            entities = _mlflow().entities
            source = json.dumps({"uri": uri})
            kind = urlsplit(uri).scheme or "local"
            dataset = entities.Dataset(store.name_of(uri) or uri, digest[:DIGEST_LENGTH], kind, source)
            tag = entities.InputTag("mlflow.data.context", context)
            client.log_inputs(run_id, [entities.DatasetInput(dataset, [tag])])

        self._put(_Item(f"{context} {uri}", lambda: digest, send))

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """More tags, or new values of tags."""
        with self._changed:
            self._new_tags |= _texts(tags, TAG_LENGTH)

    def flush(self, timeout: float = 30.0) -> int:
        """Try to deliver now, for at most `timeout` seconds; how many things still wait."""
        with self._changed:
            # a delivery that is under way may have begun before the caller's last word
            wanted = self._begun + 1
            self._wake.set()
            self._changed.wait_for(lambda: self._ended >= wanted or not self._thread.is_alive(), timeout)
        return self.undelivered

    def finish(self, status: Status = "FINISHED", timeout: float = 30.0) -> int:
        """Deliver what waits and close the run, in at most `timeout` seconds; how many things were left."""
        self._status = status
        self._wake.set()
        self._thread.join(timeout)
        return self.undelivered

    @property
    def undelivered(self) -> int:
        """How many shards, steps, artifacts, images and inputs wait.

        A run that could not be made, or not be closed, counts as one more.
        """
        if self._left:
            return 0
        with self._changed:
            waiting = len(self._shards) + len(self._series) + len(self._items)
        return waiting + (self.run_id is None or (self._status is not None and not self._closed))

    def _put(self, item: _Item) -> None:
        with self._changed:
            self._items.append(item)

    def _load(self, run_id: str | None) -> Delivered:
        """What the state file says. One that cannot be read counts as empty: everything is sent again."""
        delivered = Delivered()
        try:
            if self._state_uri is not None and store.exists(self._state_uri):
                delivered = Delivered.from_json(store.read_bytes(self._state_uri))
        except (store.StoreError, OSError, ValueError) as error:
            self._warn(
                f"{redact(self._state_uri or '')}: wanted the tracking state of an earlier start, but "
                f"{reason_of(error)}; everything is sent to MLflow again"
            )
        delivered.token = delivered.token or uuid.uuid4().hex
        if run_id is not None and run_id != delivered.run_id:
            delivered = Delivered(delivered.token, run_id)
        return delivered

    def _save(self) -> None:
        """Write the state file where something has changed."""
        body = self._delivered.to_json()
        if self._state_uri is None or body == self._saved:
            return
        try:
            store.write_bytes(self._state_uri, body)
            self._saved, self._saved_at = body, time.monotonic()
        except (store.StoreError, OSError) as error:
            self._complain(error)

    def _complain(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            self._warn(
                f"MLflow at {redact(self._uri)} did not take everything ({reason_of(error)}); "
                "the job goes on, and what was not delivered is kept and sent later"
            )

    def _work(self) -> None:
        """The background thread: a delivery every few seconds, less often while the server is away."""
        wait, failures = 0.0, 0
        while True:
            self._wake.wait(wait)
            self._wake.clear()
            last = self._status is not None
            with self._changed:
                self._begun += 1
            began = time.monotonic()
            failure = self._deliver(last)
            # one call in many fails under load; a server that keeps silent costs its time-out only once
            if failure is not None and not failures and time.monotonic() - began < RETRY_FIRST:
                time.sleep(0.5)
                failure = self._deliver(last)
            if failure is not None:
                self._complain(failure)
            failures = 0 if failure is None else failures + 1
            with self._changed:
                self._ended = self._begun
                self._changed.notify_all()
            if last or self._left:
                return
            wait = min(RETRY_FIRST * 2 ** (failures - 1), RETRY_LAST) if failures else self._interval

    def _deliver(self, last: bool) -> Exception | None:
        """Deliver everything that waits; what kept some of it from arriving, or None."""
        try:
            if self._is_left():
                return None
            run_id = self._connect()
            self._send_tags(run_id)
            self._send_shards(run_id)
            self._send_series(run_id)
            failure = self._send_items(run_id)
            if last and not self._closed and not self._is_left():
                self._client.set_terminated(run_id, self._status)
                self._closed = True
        except Exception as error:  # whatever server, network or database do, the job goes on
            self._connected, failure = False, error
        if not self._left:
            self._save()
        return failure

    def _is_left(self) -> bool:
        """Whether the job is somebody else's by now, who has the run's state and delivers the rest."""
        self._left = self._left or not self._owns()
        return self._left

    def _connect(self) -> str:
        """The id of our run, found or made."""
        if self._client is None:
            _make_database(self._uri)
            self._client = _mlflow().MlflowClient(_openable(self._uri))
        if not self._connected:
            self._save()  # the token, before a run carries it
            run = self._known_run() or self._made_run()
            self._client.update_run(run.info.run_id, status="RUNNING")
            self._send_params(run.info.run_id, run.data.params)
            self._connected = True
        assert self._delivered.run_id is not None
        return self._delivered.run_id

    def _known_run(self) -> Any | None:
        """The run to go on with, where the server knows one."""
        if self._delivered.run_id is not None:
            try:
                run = self._client.get_run(self._delivered.run_id)
            except _mlflow().exceptions.MlflowException as error:
                if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    raise
            else:
                if run.info.lifecycle_stage == "active":
                    return run
        query = f"tags.`{TOKEN_TAG}` = '{self._delivered.token}'"
        found = self._client.search_runs([self._experiment_id()], query, max_results=1)
        return self._begin(found[0]) if found else None

    def _made_run(self) -> Any:
        tags = {TOKEN_TAG: self._delivered.token}
        return self._begin(self._client.create_run(self._experiment_id(), tags=tags, run_name=self._run_name))

    def _begin(self, run: Any) -> Any:
        """Take `run` as ours, with nothing delivered to it."""
        self._delivered = Delivered(self._delivered.token, run.info.run_id)
        self._earlier = {}
        with self._changed:
            self._new_tags = self._tags | self._new_tags
        self._save()
        return run

    def _experiment_id(self) -> str:
        """The experiment's id; it is made, or brought back, where needed."""
        found = self._client.get_experiment_by_name(self._experiment)
        if found is None:
            location = None
            if (database := database_path(self._uri)) is not None:
                location = database.resolve().with_name("mlartifacts").as_uri()
            return str(self._client.create_experiment(self._experiment, artifact_location=location))
        if found.lifecycle_stage != "active":
            self._client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def _send_params(self, run_id: str, known: Mapping[str, str]) -> None:
        param = _mlflow().entities.Param
        new = [param(k, v) for k, v in self._params.items() if k not in known]
        for i in range(0, len(new), BATCH_PARAMS):
            self._client.log_batch(run_id, params=new[i : i + BATCH_PARAMS])
        with self._changed:
            self._new_tags |= {f"changed.{k}": v for k, v in self._params.items() if known.get(k, v) != v}

    def _send_tags(self, run_id: str) -> None:
        tag = _mlflow().entities.RunTag
        with self._changed:
            waiting = dict(self._new_tags)
        tags = [tag(k, v) for k, v in waiting.items()]
        for i in range(0, len(tags), BATCH_TAGS):
            self._client.log_batch(run_id, tags=tags[i : i + BATCH_TAGS])
        with self._changed:
            self._new_tags = {k: v for k, v in self._new_tags.items() if waiting.get(k) != v}

    def _send_shards(self, run_id: str) -> None:
        with self._changed:
            self._shards = {s: p for s, p in self._shards.items() if not self._delivered.has(p)}
            waiting = sorted(self._shards.values(), key=lambda p: p.step)

        def done(points: Sequence[Point]) -> None:
            self._delivered.add(points)
            with self._changed:
                for point in points:
                    if self._shards.get(point.step) is point:
                        del self._shards[point.step]

        self._send_points(run_id, waiting, done)

    def _send_series(self, run_id: str) -> None:
        earlier = self._earlier
        with self._changed:
            waiting = [
                p._replace(metrics={k: v for k, v in p.metrics.items() if p.step > earlier.get(k, -1)})
                for p in self._series
            ]

        def done(points: Sequence[Point]) -> None:
            for point in points:
                self._delivered.series |= dict.fromkeys(point.metrics, point.step)
            with self._changed:
                del self._series[: len(points)]

        self._send_points(run_id, waiting, done)

    def _send_points(
        self, run_id: str, points: Sequence[Point], done: Callable[[Sequence[Point]], None]
    ) -> None:
        """Deliver points, several to a call, and tell `done` of each call's points once they are there."""
        metric = _mlflow().entities.Metric
        for group in grouped(points, BATCH_METRICS):
            metrics = [metric(k, v, p.timestamp_ms, p.step) for p in group for k, v in p.metrics.items()]
            for i in range(
                0, len(metrics), BATCH_METRICS
            ):  # twice only where one point is larger than a call
                self._client.log_batch(run_id, metrics=metrics[i : i + BATCH_METRICS])
            done(group)
            if time.monotonic() - self._saved_at > SAVE_EVERY:
                self._save()

    def _send_items(self, run_id: str) -> Exception | None:
        """Deliver artifacts, images and inputs, each by itself; the first failure, or None."""
        with self._changed:
            waiting = list(self._items)
        failure = None
        for item in waiting:
            try:
                digest = item.digest()
                if self._delivered.items.get(item.name) != digest:
                    item.send(self._client, run_id)
                    self._delivered.items[item.name] = digest
            except Exception as error:  # a file that is gone or refused does not keep the others back
                failure = failure or error
            else:
                with self._changed:
                    self._items.remove(item)
        return failure


class Untracked(RunTracker):
    """A run that nobody is told of."""

    def __init__(self) -> None:
        """Connects to nothing."""

    _status = None
    run_id = None
    undelivered = 0

    def log_shard(self, step: int, metrics: Mapping[str, float], timestamp_ms: int) -> None:
        """Nothing."""

    def log_metrics(self, step: int, metrics: Mapping[str, float], timestamp_ms: int | None = None) -> None:
        """Nothing."""

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Nothing."""

    def flush(self, timeout: float = 30.0) -> int:
        """Nothing waits."""
        return 0

    def finish(self, status: Status = "FINISHED", timeout: float = 30.0) -> int:
        """Nothing is left."""
        return 0

    def _put(self, item: _Item) -> None:
        pass


def _quieten() -> None:
    """Before mlflow is imported."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # what mlflow asks of its libraries is not ours to change
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"mlflow\.")


def _mlflow() -> Any:
    """The mlflow package; imported when first used, because that takes seconds."""
    import mlflow

    return mlflow


def _make_database(uri: str) -> None:
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


def _name(name: str) -> str:
    """A name in the letters that MLflow takes."""
    return re.sub(r"[^\w.\-/ :]", "_", name)[:NAME_LENGTH]


def _named(metrics: Mapping[str, float]) -> dict[str, float]:
    return {_name(k): v for k, v in metrics.items()}


def _texts(values: Mapping[str, Any], length: int) -> dict[str, str]:
    """Parameters or tags as MLflow takes them, without credentials."""
    return {_name(k): escape_surrogates(redact(str(v)))[:length] for k, v in values.items()}
