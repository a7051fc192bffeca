"""DISTS against torchmetrics, with the published weights of its features and a random network."""

import pytest
import torch
from degraded_pair import DEGRADED, PICTURE
from seeded_weights import seeded_state

from pipeline.io.weights import resolve
from pipeline.metrics.dists import Dists, stages
from pipeline.metrics.inputs import as_batch
from pipeline.networks.checkpoint import CheckpointError


def test_values_are_those_of_torchmetrics_one_for_each_pair(tmp_path):
    """Expected: torchmetrics 1.9.0 with this network. The file is torchvision's, with layers that are not wanted."""
    with torch.device("meta"):
        names = {f"features.{name}": value for name, value in stages().state_dict().items()}
    path = tmp_path / "vgg16-397923af.pth"
    torch.save(seeded_state(names) | {"classifier.0.bias": torch.zeros(4096)}, path)
    truth = as_batch(PICTURE, "cpu")
    found = Dists(path)(torch.cat([as_batch(DEGRADED, "cpu"), truth]), torch.cat([truth, truth]))
    assert found.tolist() == pytest.approx([9.1985e-02, 0], abs=1e-5)


def test_another_networks_file_is_refused():
    with pytest.raises(CheckpointError, match="as VGG-16's features"):
        Dists(resolve("small_srcnn.safetensors").path)
