"""Compiled networks, and the way back where the compiler fails. The compiler itself takes minutes on a CPU."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch._dynamo.exc import BackendCompilerFailed

from pipeline.networks import compiled as module
from pipeline.networks.compiled import CompiledNetwork, compiled


class Double(nn.Module):
    def forward(self, x, t):
        return 2 * x + t


class Broken(nn.Module):
    def forward(self, x):
        raise ValueError("no such shape")


def test_a_compiled_network_gives_what_the_network_gives():
    made = []

    def backend(graph, inputs):
        made.append(graph)
        return graph.forward

    network = CompiledNetwork(Double(), backend=backend)
    x = torch.rand(2, 3)
    for _ in range(2):
        assert torch.equal(network(x, torch.ones(2, 1)), 2 * x + 1)
    assert len(made) == 1 and network.is_compiled


def test_where_the_compiler_fails_the_network_itself_is_called_and_that_is_said_once(monkeypatch):
    def backend(graph, inputs):
        raise RuntimeError("no kernel for this device")

    said = []
    # MLflow switches loggers off that it does not know
    monkeypatch.setattr(module.log, "warning", lambda text, *values: said.append(text % values))
    network = CompiledNetwork(Double(), backend=backend)
    x = torch.rand(2, 3)
    for _ in range(3):
        assert torch.equal(network(x, torch.zeros(2, 1)), 2 * x)
    assert not network.is_compiled
    assert len(said) == 1 and "Double could not be compiled" in said[0] and "last bits differ" in said[0]


def test_an_error_of_the_network_is_raised_as_it_is_and_changes_nothing():
    network = CompiledNetwork(Broken(), backend="eager")
    with pytest.raises(ValueError, match="no such shape"):
        network(torch.ones(1))
    assert network.is_compiled


def test_out_of_memory_is_no_failure_of_the_compiler():
    network = CompiledNetwork(Double(), backend="eager")

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    network._call = full
    with pytest.raises(torch.OutOfMemoryError):
        network(torch.ones(1), torch.ones(1))
    assert network.is_compiled


def test_on_a_cpu_nothing_is_compiled():
    network = Double()
    assert compiled(network, torch.device("cpu"), Path("nowhere")) is network


def test_the_errors_of_the_compiler_are_known_by_their_module():
    assert BackendCompilerFailed.__module__.startswith("torch._dynamo")
