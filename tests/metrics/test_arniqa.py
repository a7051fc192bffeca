"""ARNIQA against torchmetrics, with random weights under the published names."""

import numpy as np
import pytest
import torch
from degraded_pair import DEGRADED, PICTURE
from seeded_weights import seeded_state
from skimage import data
from torch import nn
from torchvision.models import resnet50

from pipeline.metrics.arniqa import Arniqa
from pipeline.networks.checkpoint import CheckpointError


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("arniqa")
    with torch.device("meta"):
        encoder = nn.Sequential(*list(resnet50(weights=None).children())[:-1]).state_dict()
    named = {f"model.{name}": value for name, value in seeded_state(encoder).items()}
    torch.save(named | {"projector.0.weight": torch.zeros(2, 2)}, folder / "ARNIQA.pth")
    regression = {"weights": torch.linspace(-3, 4, 4096)[None], "biases": torch.tensor(50.0)}
    torch.save(regression, folder / "regressor_koniq10k.pth")
    return folder / "ARNIQA.pth", folder / "regressor_koniq10k.pth"


def test_values_are_those_of_torchmetrics(files):
    """Expected: torchmetrics 1.9.0 with these weights; the third picture has odd sides."""
    arniqa = Arniqa(*files)
    assert arniqa(PICTURE) == pytest.approx(0.8408387, abs=1e-5)
    assert arniqa(DEGRADED) == pytest.approx(0.8350670, abs=1e-5)
    assert arniqa(data.astronaut()[41:150, 161:256]) == pytest.approx(0.8346369, abs=1e-5)
    assert np.isnan(arniqa(PICTURE[:63]))


def test_files_in_the_wrong_order_are_refused(files):
    with pytest.raises(CheckpointError, match="as ARNIQA's encoder"):
        Arniqa(*files[::-1])
