"""Weights inside files that hold more than weights: TorchScript programs, and checkpoints with objects of a trainer.

Only the tensors are read. Classes and functions that such a file names are never imported: an empty object stands for
each, so that nothing of the file's program runs.
"""

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from pipeline.networks.checkpoint import CheckpointError, checked_state, read_state

# Number types by the storage classes that files name.
STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def read_archive(path: Path | str) -> dict[str, Tensor]:
    """The tensors of a weights file by name, as `read_state` gives them, whatever else the file holds.

    A TorchScript program gives its parameters and buffers under the names of its state dict. Raises CheckpointError
    when the file is no weights file, holds no tensors by name, or numbers that are not finite.
    """
    path = Path(path)
    if not zipfile.is_zipfile(path):
        return read_state(path)
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(n for n in archive.namelist() if n.rsplit("/", 1)[-1] == "data.pkl")
            with archive.open(name) as file:
                content = _Reader(file, archive, name.removesuffix("data.pkl")).load()
    except Exception as error:  # a damaged pickle raises errors of any kind
        raise CheckpointError(
            f"{path}: wanted a PyTorch file, but its contents can not be read ({type(error).__name__}: {error}); "
            "fetch the file again"
        ) from error
    if isinstance(content, _Empty):
        content = dict(_named(content, ""))
    return checked_state(content, path)


class _Empty(dict[Any, Any]):
    """Stands for an object of a class that is not imported."""

    state: Any = None

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def __hash__(self) -> int:  # type: ignore[override]  # some files have objects as keys
        return id(self)

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def append(self, _: Any) -> None:
        """For objects that were lists or sets: what they held is not kept."""

    extend = add = append


class _Reader(pickle.Unpickler):
    """Reads a pickle of tensors without importing anything it names."""

    def __init__(self, file: IO[bytes], archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(file)
        self._archive, self._folder = archive, folder

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        known: Mapping[tuple[str, str], Callable[..., Any]] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            ("torch._utils", "_rebuild_parameter"): _parameter,
        }
        # a class and not an object, since some files have classes as keys
        return known.get((module, name)) or type("Empty", (_Empty,), {})

    def persistent_load(self, pid: Any) -> Tensor:
        """[N] the numbers of a storage."""
        _, kind, key, _, _ = pid
        data = bytearray(self._archive.read(f"{self._folder}data/{key}"))
        return torch.frombuffer(data, dtype=kind) if data else torch.empty(0, dtype=kind)


def _tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    return storage.as_strided(size, stride, offset).clone()


def _parameter(data: Tensor, *_: Any) -> Tensor:
    return data


def _named(module: _Empty, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a TorchScript module and of those inside it, by dotted names."""
    for name, value in (module.state or {}).items():
        if isinstance(value, Tensor):
            yield prefix + name, value
        elif isinstance(value, _Empty):
            yield from _named(value, f"{prefix}{name}.")
