"""The weights that a training starts from, where they are not random."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from pipeline.io import store
from pipeline.io.weights import resolve
from pipeline.networks import presets
from pipeline.networks.checkpoint import load_strict, read_state
from pipeline.training.options import TrainingOptions
from pipeline.training.task import Task

# The weights of a NAFNet's first convolution.
INTRO = "intro.weight"


def find_init(options: TrainingOptions, task: Task) -> presets.NetworkSpec:
    """The weights to start from, checked to fit, with the digest that every worker verifies."""
    name = options.init or ""
    if name in presets.preset_names() or name.endswith(".toml"):
        spec: presets.NetworkSpec = getattr(presets.find_preset(name), task.role)
    else:
        file = store.absolute(name) if Path(name).expanduser().exists() else name
        spec = presets.NetworkSpec(task.spec.kind, task.spec.options, file)
    spec = replace(spec, kind=task.spec.kind, options=task.spec.options)
    spec = replace(spec, sha256=resolve(spec.file, spec.url, spec.sha256, options.weights_dir).sha256)
    load_init(spec, options.weights_dir)
    return spec


def load_init(init: presets.NetworkSpec, weights_dir: str | None) -> nn.Module:
    """The network that a training starts from. Raises WeightsError or CheckpointError."""
    path = resolve(init.file, init.url, init.sha256, weights_dir).path
    if init.kind == "nafnet" and presets.unknown_channels(init):
        return _widened(init, path)
    return presets.load_network(init, path)


def _widened(init: presets.NetworkSpec, path: Path) -> nn.Module:
    """A NAFNet that fills holes, from the weights of such a one, or of one without channels for what is unknown.

    The weights of channels that the file lacks are 0: the network begins as the other one.
    """
    network, state = presets.build(init), read_state(path)
    wanted, given = network.state_dict()[INTRO], state.get(INTRO)
    if given is not None and given.shape[1] < wanted.shape[1] and given.shape[::2] == wanted.shape[::2]:
        missing = torch.zeros_like(wanted[:, given.shape[1] :])
        state = dict(state) | {INTRO: torch.cat([given, missing], 1)}
    load_strict(network, state, f"{path} as {init.kind}")
    return network
