"""Any restoration network, for faces or for whole pictures: a wrapper of the architectures that spandrel knows.

What a network is, spandrel reads from the names and shapes in its file; what the file does not say stands in the
preset. Three things are put right here: the library hands networks out in training mode, it leaves GFPGAN and
CodeFormer without their range of [-1, 1], and it lets GFPGAN draw its noise anew at each call.
"""

import copy
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.networks.checkpoint import CheckpointError

RANGES = ("unit", "signed")

# Of the package spandrel_extra_arches, which is installed by those whose use its licences allow.
EXTRA = frozenset(
    [
        "AdaCode",
        "CodeFormer",
        "DDColor",
        "FeMaSR",
        "M3SNet",
        "MAT",
        "MIRNet2",
        "MPRNet",
        "Restormer",
        "SRFormer",
    ]
)
INSTALL_EXTRA = (
    "install it as difface-pipeline[extra-networks] where the networks' own licences, most of them "
    "non-commercial, allow your use"
)


@dataclass(frozen=True)
class SpandrelConfig:
    """What a weights file does not say of its network."""

    # side of the picture that the network is given, pixels; the face is resized to it, and what it gives back
    input_size: int
    # the architecture by spandrel's name, as GFPGAN, for a file of another one to be refused; empty: any
    architecture: str = ""
    # "unit": the network works in [0, 1]; "signed": in [-1, 1]; empty: as its architecture is known to
    range: str = ""
    # CodeFormer's w: 0 for the cleanest face, 1 for the one most like the input
    fidelity: float = 0.5

    def __post_init__(self) -> None:
        if self.input_size < 1:
            raise ValueError(f"input_size must be at least 1, got {self.input_size}")
        if self.range not in ("", *RANGES):
            raise ValueError(f"range must be {' or '.join(RANGES)}, got {self.range!r}")
        if not 0 <= self.fidelity <= 1:
            raise ValueError(f"fidelity must lie in [0, 1], got {self.fidelity}")


class SpandrelNetwork(nn.Module):
    """[B, 3, S, S] float32 in [0, 1] → the same shape and range, for every S.

    described: a descriptor of spandrel's for an image network.
    """

    def __init__(self, described: Any, config: SpandrelConfig) -> None:
        super().__init__()
        self.network: nn.Module = described.model
        self._described = described
        self._side = config.input_size
        keywords: dict[str, dict[str, Any]] = {
            "GFPGAN": {"return_rgb": False, "randomize_noise": False},
            "CodeFormer": {"weight": config.fidelity},
        }
        name = str(described.architecture.id)
        known = name in keywords
        self._signed = (config.range or ("signed" if known else "unit")) == "signed"
        self._plain = not known and not self._signed
        self._keywords = keywords.get(name, {})

    def forward(self, x: Tensor) -> Tensor:
        restored = self.run(resized(x, self._side)).float()
        return resized(restored, x.shape[-1]).clamp(0, 1)

    def run(self, x: Tensor) -> Tensor:
        """The network's output for [B, 3, input_size, input_size] in [0, 1]: [B, 3, T, T] in [0, 1], T of its own."""
        if self._plain:  # spandrel's call also pads to what the network needs
            y: Tensor = self._described(x)
            return y
        y = self.network(x * 2 - 1 if self._signed else x, **self._keywords)
        y = y[0] if isinstance(y, tuple) else y
        return (y + 1) / 2 if self._signed else y


class Upscaler(nn.Module):
    """[B, 3, T, T] float32 in [0, 1] → [B, 3, scale T, scale T] in [0, 1], for pictures of whatever is in them."""

    def __init__(self, network: SpandrelNetwork, scale: int) -> None:
        super().__init__()
        self.network = network
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self.network.run(x).float().clamp(0, 1)


def load_spandrel(config: SpandrelConfig, state: Mapping[str, Tensor], what: str) -> SpandrelNetwork:
    """The network of a file's tensors, in evaluation mode, float32, on the CPU.

    what: names the file in errors. Raises CheckpointError when the tensors are of another architecture than wanted,
    of none that is known, do not fit it exactly, or make no network that gives a face back.
    """
    described = _described(config.architecture, state, what)
    network = _checked(described, config, what)
    _try_out(network, what)
    return network


def load_upscaler(state: Mapping[str, Tensor], side: int, what: str) -> Upscaler:
    """The network of a file's tensors for square tiles of `side` pixels, as `load_spandrel` gives one for faces.

    Raises CheckpointError as that does, and for a network of faces or one that must see a picture whole.
    """
    described = _described("", state, what)
    network = _checked(described, SpandrelConfig(side), what)
    if described.purpose == "FaceSR" or described.tiling.name == "INTERNAL":
        raise CheckpointError(
            f"{what}: wanted a network that takes any part of any picture, got a {described.architecture.id}, which "
            f"{'restores faces' if described.purpose == 'FaceSR' else 'sees pictures whole'}; choose another"
        )
    made = _try_out(network, what, "choose another") or side * int(described.scale)
    if made < side or made % side:
        raise CheckpointError(
            f"{what}: wanted a network that gives {side}x{side} pixels back at that size or a whole number of times "
            f"larger, got {made}x{made}; choose another"
        )
    return Upscaler(network, made // side).eval()


def _described(architecture: str, state: Mapping[str, Tensor], what: str) -> Any:
    """spandrel's descriptor of the network that these tensors are; `architecture` as in the preset."""
    from spandrel import canonicalize_state_dict

    tensors = canonicalize_state_dict(dict(state))
    found = _recognised(tensors, architecture, what)
    with _quiet():
        try:
            return found.load(tensors)
        except Exception as error:  # each architecture reads its shape from the tensors by its own code
            raise CheckpointError(
                f"{what}: wanted exactly the tensors of a {found.id}, but these do not fit it "
                f"({_line(error)}); give the network's own file"
            ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's deprecation warnings of torch; no user can do anything about them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def resized(x: Tensor, side: int) -> Tensor:
    """[B, 3, side, side]: x itself where it has that size."""
    if x.shape[-2:] == (side, side):
        return x
    return nn.functional.interpolate(x, (side, side), mode="bicubic", antialias=True).clamp(0, 1)


def _recognised(state: dict[str, Tensor], wanted: str, what: str) -> Any:
    """spandrel's architecture of these tensors: the wanted one, or where none is named the first that fits."""
    known, extra = _architectures()
    if wanted and wanted not in known:
        if wanted in EXTRA:
            raise CheckpointError(
                f"{what}: {wanted} is in the package spandrel_extra_arches, which is not installed; {INSTALL_EXTRA}"
            )
        names = ", ".join(sorted([*(str(a.architecture.id) for a in known), *EXTRA]))
        raise CheckpointError(f"{what}: architecture {wanted!r} is not known; write one of {names}")
    if wanted and known[wanted].detect(state):
        return known[wanted].architecture
    found = next((a.architecture for a in known.architectures("detection") if a.detect(state)), None)
    if found is None or wanted:
        got = f"those of a {found.id}" if found else f"{len(state)} of none that is known here"
        more = "" if extra or wanted else f", or if they are of {', '.join(EXTRA)} {INSTALL_EXTRA}"
        raise CheckpointError(
            f"{what}: wanted the tensors of {f'a {wanted}' if wanted else 'a network that spandrel knows'}, "
            f"got {got}; give the network's own file{more}"
        )
    return found


def _architectures() -> tuple[Any, bool]:
    """A registry of what is installed, and whether that includes the extra architectures."""
    from spandrel import MAIN_REGISTRY

    known = MAIN_REGISTRY.copy()
    try:
        from spandrel_extra_arches import EXTRA_REGISTRY
    except ModuleNotFoundError as error:
        if error.name != "spandrel_extra_arches":
            raise
        return known, False
    known.add(*EXTRA_REGISTRY, ignore_duplicates=True)
    return known, True


def _checked(described: Any, config: SpandrelConfig, what: str) -> SpandrelNetwork:
    """The network in evaluation mode. Raises CheckpointError when it does not turn one RGB picture into another."""
    from spandrel import ImageModelDescriptor

    channels = (described.input_channels, described.output_channels)
    if not isinstance(described, ImageModelDescriptor) or channels != (3, 3):
        raise CheckpointError(
            f"{what}: wanted a network from RGB to RGB, got a {described.architecture.id} "
            f"({described.purpose}) from {channels[0]} to {channels[1]} channels; choose another"
        )
    return SpandrelNetwork(described, config).eval()


def _try_out(
    network: SpandrelNetwork, what: str, advice: str = "correct the preset's input_size"
) -> int | None:
    """Call a copy of the network on shapes alone; the side of what comes out, None where only values tell.

    Raises CheckpointError when its input size is not for it.
    """
    without_storage: dict[int, Any] = {
        id(p): nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=False)
        for p in network.parameters()
    }
    without_storage |= {id(b): torch.empty_like(b, device="meta") for b in network.buffers()}
    trial, side = copy.deepcopy(network, without_storage), network._side
    try:
        with torch.inference_mode(), _quiet():
            shape = tuple(trial.run(torch.empty(1, 3, side, side, device="meta")).shape)
    except Exception as error:
        if isinstance(error, NotImplementedError) or "meta" in str(error):
            return None  # it looks at values, which are not there
        raise CheckpointError(
            f"{what}: the network does not take {side}x{side} pixels ({_line(error)}); {advice}"
        ) from error
    if shape[:2] != (1, 3) or shape[2] != shape[3]:
        raise CheckpointError(
            f"{what}: wanted a square RGB picture of one of {side}x{side}, got a tensor of {shape}; choose another"
        )
    return shape[2]


def _line(error: Exception) -> str:
    """An error's text as one short line."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 300 else f"{text[:300]}…"
