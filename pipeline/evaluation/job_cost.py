"""What a job takes of the processors: CPU time of all its processes, by what they do."""

import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from pipeline.io import layout
from pipeline.records.marker import Marker

# Seconds between two looks at the processes.
INTERVAL = 0.25
ENGINE = "engine"
# What a process of a restore job is by what its titles contain, the first that fits; the rest are Ray's daemons.
ROLES = (
    ("RestoreFaces", ENGINE),
    ("ray::Map(", "reading and publishing"),
    ("ray::Sums", "progress board"),
    ("Agent", "Ray's daemons"),
    ("ray::", "Ray Data's actors, idle workers"),
)


@dataclass
class ProcessTimes:
    """CPU seconds of a process so far, at rising times, and what it was called."""

    # seconds since 1970
    times: list[float]
    seconds: list[float]
    titles: set[str] = field(default_factory=set)

    @property
    def role(self) -> str:
        """What it does for a restore job."""
        return next(
            (role for sign, role in ROLES if any(sign in title for title in self.titles)), "Ray's daemons"
        )

    def between(self, begin: float, end: float) -> float:
        """CPU seconds between two times; what lies between two looks is shared out evenly."""
        first, last = np.interp((begin, end), self.times, self.seconds)
        return float(last - first)


class CpuHistory:
    """CPU seconds, user and system, of a process and of all below it."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._processes: dict[tuple[int, float], ProcessTimes] = {}

    def sample(self) -> None:
        """Look at the processes that there are."""
        with suppress(psutil.Error):  # the root has ended
            for process in [self._root, *self._root.children(recursive=True)]:
                with suppress(psutil.Error):  # it has ended meanwhile
                    self._note(process)

    def _note(self, process: psutil.Process) -> None:
        with process.oneshot():
            born, spent, line = process.create_time(), process.cpu_times(), process.cmdline()
        known = self._processes.setdefault((process.pid, born), ProcessTimes([born], [0.0]))
        known.times.append(time.time())
        known.seconds.append(spent.user + spent.system)
        # Ray writes what a worker does over its command line
        if line and line[0].startswith("ray::"):
            known.titles.add(line[0])

    def between(self, begin: float, end: float) -> dict[str, float]:
        """CPU seconds by role between two times, in seconds since 1970."""
        sums: dict[str, float] = defaultdict(float)
        for (pid, _), process in self._processes.items():
            role = "driver" if pid == self._root.pid else process.role
            sums[role] += process.between(begin, end)
        return dict(sums)


@dataclass(frozen=True)
class FaceCost:
    """What a face takes."""

    # wall time
    seconds: float
    # CPU seconds by role of the processes
    cpu: Mapping[str, float]
    # of a job: wall time in the stages, by the markers' names
    stages: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, history: CpuHistory, markers: Sequence[Marker]) -> "FaceCost":
        """The cost in a restore job that is under way.

        Measured between the ends of two units, a quarter of all from the first and from the last: as many faces are
        then begun and not finished at either end.
        """
        ended = sorted(markers, key=lambda marker: marker.finished_at)
        first, last = len(ended) // 4, len(ended) - 1 - len(ended) // 4
        begin, end = ended[first].finished_at, ended[last].finished_at
        faces = sum(marker.counts.faces for marker in ended[first + 1 : last + 1])
        stages = ("seconds_read", "seconds_restore", "seconds_paste")
        every = sum(marker.counts.faces for marker in ended)
        return cls(
            (end - begin) / faces,
            {role: spent / faces for role, spent in history.between(begin, end).items()},
            {name: sum(marker.sums.get(name, 0.0) for marker in ended) / every for name in stages},
        )

    @property
    def cpu_seconds(self) -> float:
        """CPU seconds of all processes."""
        return sum(self.cpu.values())


def watch_restoration(options: Mapping[str, str | int], source: Path, output: Path) -> FaceCost:
    """The cost of jobs.restore on a folder of crops. options: by flag. Raises RuntimeError where it fails."""
    history = watch([sys.executable, "-m", "jobs.restore", *restore_arguments(options, source, output)])
    markers = [Marker.from_json(m.read_bytes()) for m in sorted((output / layout.DONE).rglob("*.json"))]
    return FaceCost.of(history, markers)


def restore_arguments(options: Mapping[str, str | int], source: Path, output: Path) -> list[str]:
    """The command line of jobs.restore for a folder of the preset's own crops."""
    arguments = ["--input", str(source), "--output", str(output), "--aligned", "--alignment", "preset"]
    for flag, value in options.items():
        arguments += [f"--{flag.replace('_', '-')}", str(value)]
    return arguments


def watch(command: Sequence[str]) -> CpuHistory:
    """Run a command to its end, and note what its processes take. Raises RuntimeError where it fails."""
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said) as process,
    ):
        history = CpuHistory(process.pid)
        try:
            while process.poll() is None:
                history.sample()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(INTERVAL)
        except BaseException:
            process.kill()
            raise
        said.seek(0)
        if process.returncode:
            text = said.read().decode(errors="replace")[-2000:]
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}: {text}")
    return history
