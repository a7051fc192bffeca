"""Networks with random weights, for measurements of their time and memory."""

import torch
from torch import nn

from pipeline.networks.presets import NetworkSpec, build


def drawn_network(spec: NetworkSpec) -> nn.Module:
    """The specification's network with random weights, float32, on the CPU, in evaluation mode.

    The weights are the same in every process. Layers that training begins with at zero are drawn as well: without that
    a prior's output is zero, and products with matrices of zeros take less time than those of a trained network. Raises
    PresetError where the file alone says what the network is.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = build(spec)
        for parameter in network.parameters():
            if not parameter.any():
                nn.init.normal_(parameter, std=0.02)
    return network
