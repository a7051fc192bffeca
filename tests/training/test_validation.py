"""The fixed batch gives the same loss every time, and a grid of the right shape."""

import pytest
import torch

from pipeline.datasets.faces import find_shards, list_faces
from pipeline.networks.presets import build, find_preset
from pipeline.training.objectives import EstimatorL1, PriorEps
from pipeline.training.samples import degrade_face
from pipeline.training.validation import (
    EstimatorPreview,
    EstimatorScores,
    FixedBatch,
    PriorPreview,
    PriorScores,
)

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
        list_faces(find_shards(shards)), 32, seed=0, degrade=degrade_face if estimates else None, count=5
    )
    scores = EstimatorScores() if estimates else PriorScores(objective)
    whole, parts = (fixed.measure(network, objective, scores, CPU, batch) for batch in (5, 2))
    assert whole == pytest.approx(parts, rel=1e-5)
    assert set(whole) >= ({"loss", "psnr", "ssim"} if estimates else {"loss", "loss_steps_000_249"})
    grid = fixed.grid(network, preview, CPU)
    assert grid.shape == (5 * 32, 3 * 32, 3) and grid.dtype == "uint8"


def test_the_loss_of_a_band_is_of_its_steps_alone():
    def network(x, t):
        assert (t >= 0).all() and (t < 400).all()
        return torch.where((t < 100)[:, None, None, None], 0.0, 10.0).expand(x.shape)

    batch = {"hq": torch.zeros(3, 3, 8, 8), "index": torch.arange(3)}
    found = PriorScores(PriorEps(0, max_step=400))(network, batch)
    assert list(found) == [f"loss_steps_{b}" for b in ("000_099", "100_199", "200_299", "300_399")]
    assert (found["loss_steps_000_099"] < 2).all() and (found["loss_steps_100_199"] > 50).all()


def test_a_perfect_estimate_scores_so():
    truth = torch.rand(2, 3, 32, 32)
    found = EstimatorScores()(lambda lq: lq, {"lq": truth, "hq": truth})
    assert (found["psnr"] == 100).all() and found["ssim"].min() > 0.999
