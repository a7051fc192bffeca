"""Random weights under published names, the same on every machine, to compare a network with its official program."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor


def seeded_state(state: Mapping[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
    """Tensors of these names and shapes, whose sizes keep a network's activations near 1. state: any state dict."""
    random = np.random.default_rng(seed)
    found = {}
    for name in sorted(state):
        shape = tuple(state[name].shape)
        if not state[name].is_floating_point():
            found[name] = torch.zeros(shape, dtype=state[name].dtype, device="cpu")
            continue
        drawn = np.asarray(random.random(shape, dtype=np.float32))
        if name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight")):
            values = 0.5 + drawn
        elif len(shape) < 2:
            values = 0.2 * drawn - 0.1
        else:
            values = (2 * drawn - 1) * np.sqrt(3 / np.prod(shape[1:]))
        found[name] = torch.from_numpy(np.asarray(values, np.float32))
    return found
