"""The weights that a training starts from, where they are not random."""

from dataclasses import replace
from pathlib import Path

from torch import nn

from pipeline.io import store
from pipeline.io.weights import resolve
from pipeline.networks import presets
from pipeline.training.options import TrainingOptions
from pipeline.training.task import Task


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
    return presets.load_network(init, resolve(init.file, init.url, init.sha256, weights_dir).path)
