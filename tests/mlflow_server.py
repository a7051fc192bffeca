"""A real MLflow server on a loopback port, which a test may kill and start again over the same database."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from servers import START_SECONDS, answers, free_ports


class MlflowServer:
    """One worker over SQLite in `folder`; it is not running until `start`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_ports(1)[0]
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def database(self) -> str:
        """The store behind the server, which can be read without it."""
        return f"sqlite:///{self._folder}/mlflow.db"

    def start(self) -> None:
        """Return once the server answers. Raises RuntimeError with its log when it does not."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port)]
        command += ["--workers", "1", "--backend-store-uri", self.database]
        command += ["--artifacts-destination", str(self._folder / "artifacts")]
        env = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        log = self._folder / "server.log"
        with log.open("ab") as output:
            # a group of its own, because the program starts the processes that serve
            self._child = subprocess.Popen(
                command, env=env, cwd=self._folder, stdout=output, stderr=output, start_new_session=True
            )
        give_up = time.monotonic() + START_SECONDS
        while not answers(f"{self.uri}/health"):
            if self._child.poll() is not None or time.monotonic() > give_up:
                self.kill()
                raise RuntimeError(
                    f"mlflow server did not answer; its log ends with:\n{log.read_text()[-4000:]}"
                )
            time.sleep(0.1)

    def kill(self) -> None:
        """Take the server away as a crash would."""
        if self._child is not None:
            os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait()
            self._child = None
