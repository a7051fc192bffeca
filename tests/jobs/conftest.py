"""What the tests of the jobs may ask for."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import ray
from servers import S3Server

# The cheapest real method: the embedded networks, three network calls a face, and every face delivered.
QUICK = ("--preset", "small-srcnn", "--steps", "ddim50", "--start-step", "60", "--gate", "off")


@dataclass(frozen=True)
class RestoreJob:
    """The restore job in this process, on one local Ray and with one MLflow database for the module's runs."""

    mlflow_uri: str

    def __call__(self, source: Path, output: Path, *options: str) -> int:
        """Exit code of the job with the quick method; later options win."""
        from jobs import restore as job

        return job.main(self.arguments(source, output, *options))

    def arguments(self, source: Path, output: Path, *options: str) -> list[str]:
        """The job's command line, without the program."""
        places = ["--input", str(source), "--output", str(output), "--mlflow-uri", self.mlflow_uri]
        return [*places, *QUICK, *options]


@pytest.fixture(scope="session")
def restore(tmp_path_factory: pytest.TempPathFactory, s3: S3Server) -> Iterator[RestoreJob]:
    """The job; its Ray is the one that the first run starts, and ends with the session.

    Ray's workers have the environment of that moment, so that the S3 server is up before.
    """
    yield RestoreJob(f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db")
    ray.shutdown()


@pytest.fixture(scope="module")
def without_ray() -> Iterator[None]:
    """For modules whose tests are not about Ray: their jobs do everything in this process."""
    from in_process import flows

    with flows():
        yield


@pytest.fixture(scope="module")
def own_ray() -> Iterator[None]:
    """For modules with an environment of their own: they start a Ray that sees it, and the next ones another."""
    ray.shutdown()
    yield
    ray.shutdown()
