"""Starts of the restore job, each in a fresh process, without importing torch, Ray and MLflow for every one.

`python -m crash.starter` imports them once and forks for each line of its input, a JSON list: the log's path, then the
job's arguments. It answers with the process's number, and at its end with its exit code (-9: killed).
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from crash.hooks.crash_points import ARMED

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


class Starter:
    """The program that forks. A context manager; the folder `armed` holds the crash points that are armed."""

    def __init__(self, armed: Path) -> None:
        self.armed = armed
        path = os.pathsep.join(map(str, (HERE / "hooks", ROOT, HERE.parent)))
        env = os.environ | {"PYTHONPATH": path, ARMED: str(armed)}
        self._program = subprocess.Popen(
            [sys.executable, "-m", "crash.starter"],
            cwd=ROOT,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "Starter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._program.stdin is not None
        self._program.stdin.close()
        self._program.wait()

    def run(self, arguments: list[str], log: Path) -> int:
        """Exit code of one start of the job; what it says is added to `log`."""
        assert self._program.stdin is not None and self._program.stdout is not None
        self._program.stdin.write(json.dumps([str(log), *arguments]) + "\n")
        self._program.stdin.flush()
        return int(self._program.stdout.readline())


def serve() -> None:
    """Fork for every line of the input; the child leaves as the job does."""
    import mlflow  # noqa: F401  # only imported, so that no child has to

    from jobs import restore

    for line in sys.stdin:
        log, *arguments = json.loads(line)
        child = os.fork()
        if not child:
            said = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
            for stream in (1, 2):
                os.dup2(said, stream)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            sys.exit(restore.main(arguments))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    serve()
