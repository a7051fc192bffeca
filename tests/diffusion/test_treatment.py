"""What is done with a face follows from how far the estimator changes it, and from nothing else."""

import numpy as np
import pytest

from pipeline.diffusion.schedule import Chain
from pipeline.diffusion.treatment import ESTIMATOR, Treatment, Treatments, estimated_change

LEFT, SHORT, LONG = (
    Treatment("left"),
    Treatment("chain", Chain(3, (2, 1, 0)), 1.5),
    Treatment("chain", Chain(9, (8, 4, 0))),
)
TABLE = Treatments(((0, LEFT), (0.6, ESTIMATOR), (1.0, SHORT), (4.0, LONG)))


@pytest.mark.parametrize(
    ("delta", "wanted"),
    [
        (0.0, LEFT), (0.599, LEFT), (0.6, ESTIMATOR), (0.999, ESTIMATOR), (1.0, SHORT), (1.001, SHORT),
        (3.999, SHORT), (4.0, LONG), (255.0, LONG),
    ],
)  # fmt: skip
def test_the_last_row_whose_bound_is_not_above_the_change_is_taken(delta, wanted):
    assert TABLE(delta) is wanted


def test_a_table_of_one_row_treats_every_face_alike():
    assert {Treatments(((0, SHORT),))(delta) for delta in (0.0, 0.001, 90.0)} == {SHORT}


@pytest.mark.parametrize(
    "rows",
    [
        (),
        ((0.5, LEFT),),
        ((-1, LEFT), (1, SHORT)),
        ((0, LEFT), (2, SHORT), (1, LONG)),
        ((0, LEFT), (0, SHORT)),
    ],
)
def test_bounds_that_do_not_rise_from_0_are_refused(rows):
    with pytest.raises(ValueError, match="bounds that rise from 0 were wanted, got "):
        Treatments(rows)


@pytest.mark.parametrize(
    "arguments", [("chain",), ("left", Chain(3, (2, 1, 0))), ("estimator", Chain(1, (0,)))]
)
def test_a_chain_belongs_to_its_own_kind_alone(arguments):
    with pytest.raises(ValueError, match="a chain belongs to the kind 'chain' alone"):
        Treatment(*arguments)


def faces(size=4) -> tuple[np.ndarray, np.ndarray]:
    """A crop of level 100, and an estimate that is 51 brighter in the upper half."""
    crop = np.full((size, size, 3), 100, np.uint8)
    estimated = np.full((3, size, size), 100 / 255, np.float32)
    estimated[:, : size // 2] += np.float32(51 / 255)
    return crop, estimated


def test_the_change_is_the_mean_difference_in_levels():
    crop, estimated = faces()
    assert estimated_change(crop, estimated) == 25.5
    estimated[0] = 100 / 255  # two of three channels change
    assert estimated_change(crop, estimated) == 17.0
    # darker counts as brighter
    assert estimated_change(crop, 200 / 255 - estimated) == 17.0
    assert estimated_change(crop, np.full((3, 4, 4), 100 / 255, np.float32)) == 0.0


def test_each_channel_is_compared_with_its_own():
    crop = np.zeros((2, 2, 3), np.uint8)
    crop[0, 1] = (10, 20, 30)
    estimated = crop.transpose(2, 0, 1).astype(np.float32) / 255
    assert estimated_change(crop, estimated) == 0.0
    assert estimated_change(crop[..., ::-1], estimated) == round(40 / 12, 3)


def test_the_change_of_what_lies_beyond_the_picture_does_not_count():
    crop, estimated = faces()
    inside = np.zeros((4, 4), bool)
    inside[2:] = True
    assert estimated_change(crop, estimated, inside) == 0.0
    assert estimated_change(crop, estimated, ~inside) == 51.0
    inside[1, 0] = True
    assert estimated_change(crop, estimated, inside) == round(51 / 9, 3)
    # a face of which nothing shows the picture is judged by what there is
    assert estimated_change(crop, estimated, np.zeros((4, 4), bool)) == 25.5


def test_the_change_is_rounded_to_a_thousandth():
    crop, estimated = faces()
    estimated[0, 0, 0] += 0.0123 / 255
    assert estimated_change(crop, estimated) == 25.5
    estimated[:, 0, 0] += 0.1 / 255
    assert estimated_change(crop, estimated) == 25.507
