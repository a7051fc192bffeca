"""What is measured of a face to predict its error."""

import math

import numpy as np
import pytest

from pipeline.faces.error_features import FEATURES, LEAST, ErrorModel, error_features

SIDE = 64
EVERYWHERE = np.ones((SIDE, SIDE), bool)


@pytest.fixture
def faces():
    """Four crops and their estimates, [4, S, S, 3] each."""
    rng = np.random.default_rng(0)
    smooth = np.linspace(40, 200, SIDE)[None, None, :, None] + rng.normal(0, 12, (4, SIDE, SIDE, 3))
    estimated = smooth + rng.normal(0, 4, smooth.shape)
    return tuple(np.rint(v).clip(0, 255).astype(np.uint8) for v in (smooth, estimated))


def value(features, name):
    return math.exp(features[name]) - LEAST[name]


def test_a_face_measures_the_same_alone_and_within_a_batch(faces):
    crops, estimated = faces
    for i in range(len(crops)):
        within = error_features(crops[i], estimated[i], 3.2, 1.5, 80, EVERYWHERE)
        alone = error_features(crops[i].copy(), estimated[i].copy(), 3.2, 1.5, 80, EVERYWHERE)
        assert within == alone and tuple(within) == FEATURES


def test_a_correction_by_a_constant_is_low_and_without_chroma(faces):
    crop = np.clip(faces[0][0], 0, 250)
    features = error_features(crop, crop + 5, 5.0, 1.0, None, EVERYWHERE)
    found = {name: value(features, name) for name in ("change", "change_low", "change_fine", "change_chroma")}
    assert found == pytest.approx(
        {"change": 5, "change_low": 5, "change_fine": 0, "change_chroma": 0}, abs=0.01
    )
    red = error_features(crop, crop + np.array([5, 0, 0], np.uint8), 5 / 3, 1.0, None, EVERYWHERE)
    assert value(red, "change_chroma") > 2


def test_what_lies_outside_the_picture_does_not_count_as_a_correction(faces):
    crop = faces[0][0]
    estimated, inside = crop.copy(), EVERYWHERE.copy()
    inside[:, :16] = False
    estimated[:, :12] = 0
    found = error_features(crop, estimated, 0.0, 1.0, None, inside)
    assert (
        value(found, "change_fine")
        < 0.1
        < value(error_features(crop, estimated, 0.0, 1.0, None, EVERYWHERE), "change_fine")
    )


def test_a_file_that_is_no_jpeg_counts_as_the_finest_one(faces):
    crop, estimated = faces[0][0], faces[1][0]
    none, finest, coarse = (error_features(crop, estimated, 1.0, 1.0, q, EVERYWHERE) for q in (None, 100, 50))
    assert none == finest and none["coarseness"] < coarse["coarseness"]


def test_a_model_is_a_sum_of_logarithms_and_their_squares_within_the_range_of_its_fit():
    model = ErrorModel(0.1, {"change": (-1.0, 2.0, 0.5, 0.25)})
    assert model({"change": 1.0}) == pytest.approx(0.1 + 0.5 + 0.25)
    assert model({"change": 9.0}) == model({"change": 2.0}) == pytest.approx(0.1 + 1 + 1)


def test_a_model_predicts_the_error_in_levels(faces):
    crop, estimated = faces[0][0], faces[1][0]
    model = ErrorModel(math.log(2), {"change": (-9.0, 9.0, 1.0, 0.0)})
    assert model.error(crop, estimated, 3.0, 1.0, None) == pytest.approx(2 * (3 + LEAST["change"]), abs=1e-3)
    assert model.error(crop, estimated, 3.0, 1.0, None) == model.error(crop, estimated, 3.0, 9.0, EVERYWHERE)


def test_a_table_of_a_preset_is_read_back():
    table = {"offset": 0.5, "change": [-1.5, 2.0, 0.3, 0.1], "detail": [0, 1, 2, 3]}
    assert ErrorModel.from_table(table).as_table == table


@pytest.mark.parametrize(
    "table",
    [
        {"change": [0.0, 1.0, 1.0, 0.0]},
        {"offset": 0.5, "change": [0.0, 1.0, 1.0]},
        {"offset": 0.5, "change": 1.0},
        {"offset": 0.5, "beauty": [0.0, 1.0, 1.0, 0.0]},
        {"offset": "0.5"},
        {"offset": 0.5, "change": [0.0, 1.0, "1", True]},
    ],
)
def test_a_table_that_is_no_model_is_refused(table):
    with pytest.raises(ValueError, match=r"\[error\] must hold offset and, by the name of a measurement"):
        ErrorModel.from_table(table)
