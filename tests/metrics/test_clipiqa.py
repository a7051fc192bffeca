"""CLIP-IQA against another implementation of CLIP, with random weights."""

import numpy as np
import pytest
import torch
from degraded_pair import DEGRADED, PICTURE
from seeded_weights import seeded_state

from pipeline.io.weights import resolve
from pipeline.metrics.clipiqa import ClipIqa, descriptions
from pipeline.networks import clip
from pipeline.networks.checkpoint import CheckpointError


@pytest.fixture(scope="module")
def clipiqa(tmp_path_factory):
    """The metric with a smaller network; the file has what OpenAI's has besides the weights."""
    path = tmp_path_factory.mktemp("clip") / "RN50.pt"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clip, "LAYERS", (1, 1, 1, 1))
        for name, value in (("WIDTH", 16), ("TEXT_LAYERS", 2), ("TEXT_WIDTH", 64)):
            patch.setattr(clip, name, value)
        with torch.device("meta"):
            state = seeded_state(clip.CLIP().state_dict())
        state |= {"logit_scale": torch.tensor(4.6052), "input_resolution": torch.tensor(224)}
        torch.save(state, path)
        return ClipIqa(path)


def test_values_are_those_of_another_implementation(clipiqa):
    """Expected: piq 0.8.0's CLIP with these weights, its softmax of each pair averaged over the pairs."""
    assert clipiqa(PICTURE) == pytest.approx(0.3159137, abs=1e-5)
    assert clipiqa(DEGRADED) == pytest.approx(0.3108038, abs=1e-5)


def test_descriptions_are_token_ids_between_start_and_end():
    assert descriptions()[0] == [49406, 886, 2867, 49407]
    assert descriptions()[8] == [49406, 9307, 268, 1139, 2867, 49407]
    assert len(descriptions()) == 10


def test_a_picture_smaller_than_the_networks_step_has_no_value(clipiqa):
    assert np.isnan(clipiqa(PICTURE[:31])) and np.isfinite(clipiqa(PICTURE[:32, :33]))


def test_another_networks_file_is_refused():
    with pytest.raises(CheckpointError, match="as CLIP RN50"):
        ClipIqa(resolve("small_srcnn.safetensors").path)
