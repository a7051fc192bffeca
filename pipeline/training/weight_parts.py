"""Weights as float16 safetensors files of bounded size, for machines that give back small files only."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor

from pipeline.networks.checkpoint import CheckpointError, read_state, write_state

MIB = 1 << 20
# Of a file's header, for each tensor and for the whole.
HEADER_BYTES = 256


def write_parts(state: Mapping[str, Tensor], folder: Path, name: str, most: int = 16 * MIB) -> list[Path]:
    """Write NAME.safetensors, or NAME-1-of-2.safetensors and so on where a file would be over `most` bytes."""
    parts = list(_parts(state, most))
    if len(parts) == 1:
        paths = [folder / f"{name}.safetensors"]
    else:
        paths = [folder / f"{name}-{i}-of-{len(parts)}.safetensors" for i in range(1, len(parts) + 1)]
    for path, part in zip(paths, parts, strict=True):
        write_state(part, path)
    return paths


def read_parts(folder: Path, name: str) -> dict[str, Tensor]:
    """The float32 tensors that `write_parts` wrote. Raises CheckpointError where a part is missing."""
    whole, parts = folder / f"{name}.safetensors", sorted(folder.glob(f"{name}-*-of-*.safetensors"))
    if whole.is_file():
        return read_state(whole)
    if not parts or len(parts) != int(parts[0].stem.rpartition("-")[2]):
        raise CheckpointError(f"{folder}: expected all parts of {name}.safetensors, got {len(parts)}")
    return {key: value for part in parts for key, value in read_state(part).items()}


def _parts(state: Mapping[str, Tensor], most: int) -> Iterator[dict[str, Tensor]]:
    """The tensors in order, in parts whose float16 files stay below `most` bytes."""
    part: dict[str, Tensor] = {}
    size = HEADER_BYTES
    for key, value in state.items():
        # float16 takes 2 bytes, and no integer tensor more than 8
        taken = value.numel() * (2 if value.is_floating_point() else 8) + HEADER_BYTES
        if part and size + taken > most:
            yield part
            part, size = {}, HEADER_BYTES
        part[key] = value
        size += taken
    yield part
