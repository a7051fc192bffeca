"""Checkpoints of a training, and the averaged weights in them."""

import io
import os
import tempfile
from pathlib import Path
from typing import Any

import torch

from pipeline import Refusal
from pipeline.io import store
from pipeline.networks.checkpoint import write_state

# names of both files in the output of a training
CHECKPOINT, WEIGHTS = "checkpoint.pt", "weights.safetensors"


class UnusableCheckpoint(Refusal, ValueError):
    """A checkpoint that is damaged, or of another training."""


def save_checkpoint(state: dict[str, Any], uri: Path | str) -> None:
    """Write atomically, so that a killed run never leaves a partial checkpoint. uri: local or remote."""
    if store.is_remote(str(uri)):
        buffer = io.BytesIO()
        torch.save(state, buffer)
        store.write_bytes(str(uri), buffer.getvalue())
        return
    path = Path(uri)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open(
        "wb"
    ) as file:  # directly to disk: a second copy of a large network's state may not fit in memory
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def load_checkpoint(uri: Path | str) -> dict[str, Any] | None:
    """The state of the last checkpoint, None without one. Raises UnusableCheckpoint."""
    remote = store.is_remote(str(uri))
    if not (store.exists(str(uri)) if remote else Path(uri).exists()):
        return None
    source = io.BytesIO(store.read_bytes(str(uri))) if remote else Path(uri)
    try:
        state: dict[str, Any] = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many exception types for damaged files
        raise UnusableCheckpoint(
            f"{uri} is not a training checkpoint; move it away to start from scratch"
        ) from error
    return state


def write_averaged(state: dict[str, Any], uri: str) -> None:
    """Write the averaged weights of a checkpoint as float16 safetensors."""
    if not store.is_remote(uri):
        write_state(state["ema"], Path(uri))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / WEIGHTS
        write_state(state["ema"], path)
        store.write_bytes(uri, path.read_bytes())
