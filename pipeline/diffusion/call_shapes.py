"""Which calls of a network change no bit of any face: fewer faces and more threads on a CPU, any slot on a GPU."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# Variables of the environment that choose kernels begin so.
KERNEL_SETTINGS = ("ATEN_", "DNNL_", "KMP_", "MKL_", "OMP_", "ONEDNN_", "TORCH")


@dataclass(frozen=True)
class CallShapes:
    """Which network calls give a face the same bits as a full batch in one thread does."""

    # batches of fewer faces
    partial: bool = False
    # threads that may share a call
    threads: int = 1


@dataclass(frozen=True)
class ShapesCache:
    """Call shapes that were found before, one small file each: to find them takes dozens of network calls."""

    folder: Path
    # all that chooses kernels: processor, libraries, number type and networks
    about: Mapping[str, Any]

    def get(self, find: Callable[[], CallShapes], **call: Any) -> CallShapes:
        """The shapes of a call, found anew unless this environment knows them. call: what else they depend on."""
        chosen = {name: os.environ[name] for name in sorted(os.environ) if name.startswith(KERNEL_SETTINGS)}
        key = json.dumps([dict(self.about), call, chosen], sort_keys=True, default=str)
        path = self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
        try:
            known = json.loads(path.read_text())
            return CallShapes(bool(known["partial"]), int(known["threads"]))
        except (OSError, ValueError, KeyError, TypeError):
            found = find()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f".{path.name}.{os.getpid()}")
            partial.write_text(json.dumps(asdict(found)))
            partial.replace(path)
        except OSError:
            pass  # found anew next time
        return found


def find_call_shapes(call: Callable[[int], Tensor], batch: int, threads: int) -> CallShapes:
    """The call shapes that agree bit for bit with a call of `batch` faces in one thread, on this CPU.

    call: n → the network's output for the first n of the same random faces, [n, ...]. A kernel is chosen by shapes and
    threads, never by values: a call shape that agrees on random faces always does. Restores the calling thread's number
    of threads.
    """
    power_of_two = 1 << (threads.bit_length() - 1)

    def agree(counts: Sequence[int], threads: int) -> bool:
        torch.set_num_threads(threads)
        return all(torch.equal(call(n), full[:n]) for n in counts)

    before = torch.get_num_threads()
    try:
        with torch.inference_mode():
            torch.set_num_threads(1)
            full = call(batch)
            partial = agree(range(1, batch), 1)
            counts = range(1, batch + 1) if partial else [batch]
            shared = power_of_two > 1 and agree(counts, power_of_two)
            return CallShapes(partial, power_of_two if shared else 1)
    finally:
        torch.set_num_threads(before)


def slots_agree(call: Callable[[Tensor], Tensor], batch: int, shape: Sequence[int]) -> bool:
    """Whether a face has the same bits in every slot of a call of `batch` faces, beside whatever others.

    call: [batch, *shape] float32 → the network's output, a row per face. A library may choose a kernel that divides the
    sum of one face otherwise than that of the next; it chooses by shapes, so that one test of a shape settles it.
    """
    faces = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        first = call(faces)[0]
        everywhere = call(faces[:1].expand(batch, *shape).contiguous())
        return bool(torch.equal(everywhere, first.expand_as(everywhere)))
