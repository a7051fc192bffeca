"""Weights files as data: what is in them is read, checked and loaded strictly, and never run."""

import pickle
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline import Refusal

# Where published files keep their weights; the first that is there is taken, averaged weights before others.
WRAPPERS = ("params_ema", "params", "state_dict")
# What wrappers of a module leave in front of every name.
PREFIXES = ("module.", "_orig_mod.")
# How many names an error lists before it only counts.
NAMED = 5


class CheckpointError(Refusal, ValueError):
    """A weights file that can not be read, or that does not fit its network."""


def read_state(path: Path | str) -> dict[str, Tensor]:
    """The tensors of a weights file by name; floating-point ones are float32, on the CPU.

    Reads safetensors and PyTorch files, recognised by their content. Wrappers and prefixes are taken off. Raises
    CheckpointError when the file is no weights file, holds more than weights, or holds numbers that are not finite.
    """
    path = Path(path)
    return checked_state(_read_file(path), path)


def checked_state(content: Any, path: Path) -> dict[str, Tensor]:
    """The tensors by name of what a file holds, as `read_state` gives them. Raises CheckpointError."""
    state = _unwrapped(content, path)
    for name, value in state.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise CheckpointError(
                f"{path}: tensor {name!r} holds numbers that are not finite; use another copy of the file"
            )
    return state


def load_strict(module: nn.Module, state: Mapping[str, Tensor], what: str, assign: bool = False) -> None:
    """Load weights whose names and shapes are exactly the module's.

    what: names network and file in the error. assign: take the tensors instead of copying them, for a module on
    the meta device. Raises CheckpointError naming missing keys, surplus keys and wrong shapes.
    """
    wanted = module.state_dict()
    missing = [key for key in wanted if key not in state]
    surplus = [key for key in state if key not in wanted]
    shapes = [
        f"{key} {_shape(state[key])} instead of {_shape(tensor)}"
        for key, tensor in wanted.items()
        if key in state and state[key].shape != tensor.shape
    ]
    found = [
        f"{len(names)} {problem} ({_some(names)})"
        for problem, names in (("missing", missing), ("surplus", surplus), ("of another shape", shapes))
        if names
    ]
    if found:
        raise CheckpointError(
            f"{what}: wanted exactly the network's {len(wanted)} tensors, got {', '.join(found)}; "
            "give the file that belongs to this network or correct the preset's options"
        )
    module.load_state_dict(state, strict=True, assign=assign)


def write_state(state: Mapping[str, Tensor], path: Path | str, half: bool = True) -> None:
    """Write weights as safetensors, whole or not at all; half: floating-point tensors as float16."""
    from safetensors.torch import save

    path = Path(path)
    tensors = {}
    for name, value in state.items():
        kept = value.detach().cpu()
        if half and kept.is_floating_point():
            kept = kept.half()
            if not bool(kept.isfinite().all()):
                raise CheckpointError(
                    f"{path}: tensor {name!r} does not fit into float16; write it with half=False"
                )
        # A copy, since two names may share one storage, which the format refuses.
        tensors[name] = kept.contiguous().clone()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    # Written by us and not by the library, which makes files that only their owner may read.
    partial.write_bytes(save(tensors))
    partial.replace(path)


def _read_file(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise CheckpointError(
            f"{path}: wanted a weights file, but it can not be read ({error.strerror}); check the path"
        ) from error
    # safetensors: eight bytes of length, then JSON. PyTorch: a zip archive, or in the old format a bare pickle.
    if start[8:] == b"{" or not (zipfile.is_zipfile(path) or start[:1] == b"\x80"):
        return _read_safetensors(path)
    return _read_torch(path)


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: wanted tensors only, but the file holds Python objects that would run as code, so it was "
            "refused; save it again as a plain state dict or as safetensors"
        ) from error
    except Exception as error:  # torch raises many kinds for a damaged archive
        raise _unreadable(path) from error


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise _unreadable(path) from error


def _unreadable(path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path}: wanted a safetensors or PyTorch weights file, got {path.stat().st_size} bytes that are neither, "
        "or only a part of one; fetch the file again"
    )


def _unwrapped(content: Any, path: Path) -> dict[str, Tensor]:
    while isinstance(content, Mapping):
        inner = next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    tensors = isinstance(content, Mapping) and all(isinstance(v, Tensor) for v in content.values())
    if not tensors or not content:
        got = f"a {type(content).__name__}"
        if isinstance(content, Mapping):
            got = f"entries {_some(str(key) for key in content)}" if content else "no entry at all"
        raise CheckpointError(
            f"{path}: wanted tensors by name, bare or under one of {', '.join(WRAPPERS)}, got {got}; "
            "save the network's state dict alone"
        )
    state = {str(name): v.float() if v.is_floating_point() else v for name, v in content.items()}
    while prefix := next((p for p in PREFIXES if all(name.startswith(p) for name in state)), None):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _shape(tensor: Tensor) -> str:
    return "x".join(str(n) for n in tensor.shape) or "scalar"


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - NAMED} more" if len(listed) > NAMED else ""
    return ", ".join(listed[:NAMED]) + more
