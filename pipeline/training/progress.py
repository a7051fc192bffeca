"""Reports of a running training: terminal, metrics.jsonl, and the experiment tracker."""

import json
import time
from collections.abc import Mapping
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.io import images, store
from pipeline.training.loop import Metrics

# Seconds between two writes of metrics.jsonl, which is always rewritten completely.
WRITE_EVERY = 10.0


Status = Literal["FINISHED", "FAILED", "KILLED"]


class Tracker(Protocol):
    """The part of `pipeline.tracking.tracker.RunTracker` that a training uses."""

    def log_metrics(self, step: int, metrics: Mapping[str, float], timestamp_ms: int | None = None) -> None:
        """Log the metrics of one step."""

    def log_image(self, key: str, array: NDArray[np.uint8], step: int = 0) -> None:
        """Log a picture of one step."""

    def finish(self, status: Status = "FINISHED", timeout: float = 30.0) -> int:
        """Deliver everything that is queued."""


class MetricsLog:
    """metrics.jsonl: one line per report. Lines after the step that a run resumes from are dropped."""

    def __init__(self, uri: str, from_step: int) -> None:
        self._uri = uri
        self._lines: list[str] = []
        self._written = time.monotonic()
        if store.exists(uri):
            lines = store.read_bytes(uri).decode().splitlines()
            self._lines = [line for line in lines if line and json.loads(line)["step"] <= from_step]

    def add(self, step: int, metrics: Metrics) -> None:
        """Add the metrics of a step; lines are written every few seconds."""
        finite = {name: value if np.isfinite(value) else None for name, value in metrics.items()}
        self._lines.append(json.dumps({"step": step} | finite))
        if time.monotonic() - self._written > WRITE_EVERY:
            self.write()

    def write(self) -> None:
        """Write all lines now."""
        if self._lines:
            store.write_bytes(self._uri, ("\n".join(self._lines) + "\n").encode())
        self._written = time.monotonic()


class Progress:
    """Reports of one training, from its reporting worker."""

    def __init__(self, output: str, first: int, last: int, tracker: Tracker | None) -> None:
        self._output = output
        self._first, self._last = first, last
        self._tracker = tracker
        self._log = MetricsLog(store.join(output, "metrics.jsonl"), first)
        self._began = time.monotonic()
        if first:
            print(f"continuing from step {first:,} of {last:,}", flush=True)

    def metrics(self, step: int, metrics: Metrics) -> None:
        """Report the metrics of a window of steps."""
        rate = (step - self._first) / (time.monotonic() - self._began)
        print(progress_line(step, self._last, metrics, rate), flush=True)
        self._log.add(step, metrics)
        if self._tracker:
            self._tracker.log_metrics(step, metrics)

    def validation(self, step: int, scores: Metrics, grid: NDArray[np.uint8]) -> None:
        """Report a validation: its loss and scores, and its grid of samples."""
        text = "  ".join(f"{name.replace('_', ' ')} {value:.5f}" for name, value in scores.items())
        print(f"step {step:,}: validation {text}", flush=True)
        named = {f"validation_{name}": value for name, value in scores.items()}
        self._log.add(step, named)
        store.write_bytes(
            store.join(self._output, "samples", f"step-{step:08d}.png"), images.encode_png(grid)
        )
        if self._tracker:
            self._tracker.log_metrics(step, named)
            self._tracker.log_image("samples", grid, step)

    def left_out(self, faces: Mapping[str, str]) -> None:
        """Report members that are not trained on, name → reason; left_out.json has all of them."""
        uri = store.join(self._output, "left_out.json")
        known = json.loads(store.read_bytes(uri)) if store.exists(uri) else {}
        new = {name: why for name, why in faces.items() if name not in known}
        for name, why in new.items():
            print(f"left out: {name}: {why}", flush=True)
        if new:
            store.write_bytes(uri, json.dumps(known | new, indent=1, sort_keys=True).encode())

    def checkpoint(self) -> None:
        """Write the metrics before the checkpoint that they lead to."""
        self._log.write()

    def finish(self, finished: bool) -> None:
        """Write and deliver the rest; finished: whether the training is complete."""
        try:
            self._log.write()
        finally:
            if self._tracker:
                self._tracker.finish("FINISHED" if finished else "FAILED")


def progress_line(step: int, last: int, metrics: Metrics, rate: float) -> str:
    """One line: step, loss, speed, time left. rate: steps per second."""
    left = (last - step) / rate if rate > 0 else float("inf")
    bad = f"  left out {metrics['left_out_steps']:.0f}" if metrics.get("left_out_steps") else ""
    return (
        f"step {step:,} of {last:,} ({step / last:.1%})  loss {metrics['loss']:.5f}  lr {metrics['lr']:.2e}{bad}  "
        f"{metrics['faces_per_second']:,.1f} faces/s  {duration(left)} left"
    )


def duration(seconds: float) -> str:
    """Seconds as text: `2 h 05 min`, `3 min 20 s`, `12 s`."""
    if not np.isfinite(seconds):
        return "unknown time"
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"
