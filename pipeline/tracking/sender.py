"""Delivery of what waits: finds or makes the job's run, and sends what the run does not have."""

from collections.abc import Mapping
from typing import NamedTuple

from pipeline.tracking.client import BATCH_METRICS, Client, Run, Status, make_database
from pipeline.tracking.delivery import Delivered, StateFile, grouped
from pipeline.tracking.outbox import Outbox

# By its value a run is found again of which the answer to its making was lost.
TOKEN_TAG = "difface.delivery"


class Job(NamedTuple):
    """Where a job is tracked, and as what."""

    uri: str
    experiment: str
    run_name: str
    # as MLflow takes them
    params: Mapping[str, str]
    tags: Mapping[str, str]


class Sender:
    """A job's connection to its run, for one thread. Whatever server, network or database raise comes through."""

    def __init__(self, job: Job, delivered: Delivered, state: StateFile, outbox: Outbox) -> None:
        self._job, self._delivered, self._state, self._outbox = job, delivered, state, outbox
        # where an earlier start of this job left each series
        self._earlier = dict(delivered.series)
        self._client: Client | None = None
        self._connected = False

    @property
    def run_id(self) -> str | None:
        """The run's id, once the server has given one."""
        return self._delivered.run_id

    def send(self) -> Exception | None:
        """Send everything that waits; what kept an artifact, image or input from arriving, or None."""
        client, run_id = self._connect()
        self._send_tags(client, run_id)
        self._send_shards(client, run_id)
        self._send_series(client, run_id)
        return self._send_items(client, run_id)

    def close(self, status: Status) -> None:
        """Show the run as ended."""
        client, run_id = self._connect()
        client.close_run(run_id, status)

    def disconnect(self) -> None:
        """Look for the run again before the next delivery."""
        self._connected = False

    def save(self) -> None:
        """Write the state file where something has changed."""
        self._state.save(self._delivered)

    def _connect(self) -> tuple[Client, str]:
        """The client, and the id of our run, found or made."""
        if self._client is None:
            make_database(self._job.uri)
            self._client = Client(self._job.uri)
        if not self._connected:
            self.save()  # the token, before a run carries it
            run = self._known_run(self._client) or self._made_run(self._client)
            self._client.reopen_run(run.run_id)
            self._send_params(self._client, run)
            self._connected = True
        assert self._delivered.run_id is not None
        return self._client, self._delivered.run_id

    def _known_run(self, client: Client) -> Run | None:
        """The run to go on with, where the server knows one."""
        if self._delivered.run_id is not None and (run := client.get_run(self._delivered.run_id)) is not None:
            return run
        found = client.find_run(self._job.experiment, TOKEN_TAG, self._delivered.token)
        return self._begin(found) if found else None

    def _made_run(self, client: Client) -> Run:
        tags = {TOKEN_TAG: self._delivered.token}
        return self._begin(client.create_run(self._job.experiment, self._job.run_name, tags))

    def _begin(self, run: Run) -> Run:
        """Take `run` as ours, with nothing delivered to it."""
        self._delivered = Delivered(self._delivered.token, run.run_id)
        self._earlier = {}
        self._outbox.add_missing_tags(self._job.tags)
        self.save()
        return run

    def _send_params(self, client: Client, run: Run) -> None:
        """Those that the run does not have; one of another value becomes a tag."""
        params, known = self._job.params, run.params
        client.log_params(run.run_id, {k: v for k, v in params.items() if k not in known})
        self._outbox.add_tags({f"changed.{k}": v for k, v in params.items() if known.get(k, v) != v})

    def _send_tags(self, client: Client, run_id: str) -> None:
        tags = self._outbox.tags()
        client.log_tags(run_id, tags)
        self._outbox.remove_tags(tags)

    def _send_shards(self, client: Client, run_id: str) -> None:
        for points in grouped(self._outbox.shards(self._delivered.has), BATCH_METRICS):
            client.log_points(run_id, points)
            self._delivered.add(points)
            self._outbox.remove_shards(points)
            self._state.save_at_times(self._delivered)

    def _send_series(self, client: Client, run_id: str) -> None:
        earlier = self._earlier
        new = [
            point._replace(
                metrics={k: v for k, v in point.metrics.items() if point.step > earlier.get(k, -1)}
            )
            for point in self._outbox.steps()
        ]
        for points in grouped(new, BATCH_METRICS):
            client.log_points(run_id, points)
            self._delivered.add_steps(points)
            self._outbox.remove_steps(len(points))
            self._state.save_at_times(self._delivered)

    def _send_items(self, client: Client, run_id: str) -> Exception | None:
        """Send artifacts, images and inputs, each by itself; the first failure, or None."""
        failure = None
        for item in self._outbox.items():
            try:
                digest = item.digest()
                if self._delivered.items.get(item.name) != digest:
                    item.send(client, run_id)
                    self._delivered.items[item.name] = digest
            except Exception as error:  # a file that is gone or refused does not keep the others back
                failure = failure or error
            else:
                self._outbox.remove_item(item)
        return failure
