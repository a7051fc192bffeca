"""The fixed batch gives the same loss every time, and a grid of the right shape."""

import pytest
import torch

from pipeline.networks.zoo import build, find_preset
from pipeline.training.objectives import EstimatorL1, PriorEps
from pipeline.training.samples import degrade_face, find_shards, list_faces
from pipeline.training.validation import EstimatorPreview, FixedBatch, PriorPreview

CPU = torch.device("cpu")


@pytest.mark.parametrize("task", ["estimator", "prior"])
def test_loss_does_not_depend_on_the_batch_and_the_grid_has_a_row_per_face(preset, shards, task):
    estimates = task == "estimator"
    objective, preview = (
        (EstimatorL1(), EstimatorPreview()) if estimates else (PriorEps(0), PriorPreview(160))
    )
    torch.manual_seed(0)
    network = build(find_preset(preset).estimator if estimates else find_preset(preset).prior)
    fixed = FixedBatch(
        list_faces(find_shards(shards)), 32, seed=0, spoil=degrade_face if estimates else None, count=5
    )
    whole, parts = (fixed.loss(network, objective, CPU, batch) for batch in (5, 2))
    assert whole == pytest.approx(parts, rel=1e-5)
    grid = fixed.grid(network, preview, CPU)
    assert grid.shape == (5 * 32, 3 * 32, 3) and grid.dtype == "uint8"
