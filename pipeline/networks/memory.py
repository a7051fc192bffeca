"""How much memory a face in the engine takes, and how many therefore fit."""

import weakref
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pipeline.networks.inference_unet import InferenceUNet
from pipeline.networks.presets import NetworkSpec, build
from pipeline.networks.unet import UNet

# Training in float32: the weight, its average, its gradient, and AdamW's two moments.
BYTES_PER_WEIGHT = 20


class _PeakOfTensors(TorchDispatchMode):
    """Notes the most bytes that tensors made under it took together at any time."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = self._now = 0
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._note(tensor.untyped_storage())
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        if storage in self._seen:
            return
        self._seen.add(storage)
        size = storage.nbytes()
        self._now += size
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._forget, size)

    def _forget(self, size: int) -> None:
        self._now -= size


def bytes_per_slot(prior: NetworkSpec, side: int, precision: torch.dtype) -> int:
    """Bytes that one face adds to a call of the prior: counted on shapes alone, without computing."""
    with torch.device("meta"):
        unet = build(prior)
        assert isinstance(unet, UNet)
        network = InferenceUNet(unet, [0], precision)
        x, t = torch.empty(1, 3, side, side), torch.empty(1, dtype=torch.int64)
    with torch.inference_mode(False), torch.no_grad(), _PeakOfTensors() as tensors:
        network(x, t)
    # x, x̂_0 of the step before, the estimate, and what the step makes
    state: int = 4 * x.numel() * x.element_size()
    return int(tensors.peak) + state


def bytes_of_training(spec: NetworkSpec, side: int, channels: int, precision: str) -> tuple[int, int]:
    """Bytes that a training takes for the network itself, and for each face that goes through it at once.

    Counted on shapes alone, forward and backward; channels: of the input. precision: the autocast type, by its name.
    """
    with torch.device(
        "cpu" if spec.kind == "swinir" else "meta"
    ):  # spandrel's SwinIR can not be built without values
        network = build(spec).train()
    with FakeTensorMode(allow_non_fake_inputs=True):
        network.to_empty(device="cpu")
        size = sum(p.numel() * p.element_size() for p in network.parameters())

        def peak(faces: int) -> int:
            inputs = [torch.empty(faces, channels, side, side)]
            inputs += [torch.zeros(faces, dtype=torch.int64)] if isinstance(network, UNet) else []
            half = precision != "float32"
            with _PeakOfTensors() as tensors:
                # float16 takes what bfloat16 does, which every CPU's autocast knows
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
                    loss = network(*inputs).float().mean()
                loss.backward()
            network.zero_grad(set_to_none=True)
            return int(tensors.peak)

        one, two = peak(1), peak(2)
    return size // 4 * BYTES_PER_WEIGHT, two - one
