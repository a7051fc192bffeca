"""What is done with a face follows from how far the estimator changes it, and from nothing else."""

import numpy as np
import pytest

from pipeline.diffusion.method import Method
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


def method(**changed) -> Method:
    values = {
        "eta": 0.5,
        "steps": "ddim250",
        "start_rule": "paper",
        "start_step": 252,
        "calls": 4,
        "hold": 2.0,
    }
    return Method(**values | changed)


def test_gentler_treatments_hold_more_then_begin_lower_then_leave_the_chain_out():
    gentle = method()
    asked = gentle.treatments(gentle.schedule)
    names, treatments = zip(*gentle.ladder(asked, 128), strict=True)
    assert names == ("asked", "held", "lower_n", "estimator")
    held, lower = treatments[1:3]
    assert treatments[0] is asked and (held.chain, held.hold) == (asked.chain, 1.0)
    assert int(gentle.schedule.t[lower.chain.start]) == 124 and (lower.steps, lower.hold) == (2, 1.0)
    assert treatments[3] == ESTIMATOR


def test_a_last_step_holds_for_every_chain_and_is_named_where_there_is_one():
    ending = method(last_step=8)
    ladder = dict(ending.ladder(ending.treatments(ending.schedule), 128))
    for name in ("asked", "held", "lower_n"):
        assert int(ending.schedule.t[ladder[name].chain.indices[-1]]) == 8
    assert ending.resolved == method().resolved | {"last_step": 8}
    assert "last_step" not in method().resolved


def test_what_holds_nothing_is_held_by_the_crops_side_and_all_keep_their_randomness():
    free = method(hold=0.0)
    asked = Treatment("chain", Chain(63, (63, 30, 0)), eta=0.2)
    assert [t.hold for _, t in free.ladder(asked, 128)] == [0.0, 2.0, 2.0, 0.0]
    assert [t.eta for _, t in free.ladder(asked, 128)] == [0.2, 0.2, 0.2, None]


@pytest.mark.parametrize("treatment", [LEFT, ESTIMATOR])
def test_nothing_is_gentler_than_the_estimator_alone(treatment):
    assert method().ladder(treatment, 128) == [("asked", treatment)]


def test_a_chain_from_the_first_kept_step_has_no_lower_one():
    lowest = Treatment("chain", Chain(1, (1, 0)), 2.0)
    assert [name for name, _ in method().ladder(lowest, 128)] == ["asked", "held", "estimator"]


ROWS = (
    {"above": 0.0, "way": "left"},
    {"above": 2.0, "way": "estimator"},
    {"above": 4.0, "start_step": 240, "calls": 6, "hold": 2.0},
)
METHOD = Method(0.5, "ddim250", "official", 400, 11, 1.5, ROWS, seed=3)


@pytest.mark.parametrize(
    ("least", "kinds"),
    [(1.0, "left left estimator chain"), (3.0, "left left estimator chain"), (4.5, "left left left chain")],
)
def test_faces_below_a_bound_are_left_and_others_treated_as_before(least, kinds):
    table = METHOD.treatments(METHOD.schedule)
    less = table.leaving_below(least)
    deltas = (0.5, 1.9, 3.0, 5.0)
    assert [less(delta).kind for delta in deltas] == kinds.split()
    assert all(less(delta) == table(delta) for delta in deltas if delta >= least)


def test_a_face_has_settings_of_its_own_and_else_what_the_table_says():
    same = METHOD.adjusted({"seed": 9})
    assert (same.seed, same.treatment) == (9, METHOD.treatment)
    held = METHOD.adjusted({"hold": 1.0}).treatments(METHOD.schedule)
    assert [held(delta).kind for delta in (1, 3, 5)] == ["left", "estimator", "chain"]
    assert (held(5).hold, held(5).steps) == (1.0, 6)


@pytest.mark.parametrize(
    ("settings", "step", "hold", "steps"),
    [({"start_step": 240}, 240, 1.5, 11), ({"method": "difface"}, 400, 1.5, 11),
     ({"start_step": 240, "calls": 4, "hold": 0.0}, 240, 0.0, 4)],
)  # fmt: skip
def test_who_names_a_chain_has_it_whatever_the_damage(settings, step, hold, steps):
    method = METHOD.adjusted(settings)
    treatment = method.treatments(method.schedule)
    assert isinstance(treatment, Treatment) and (treatment.hold, treatment.steps) == (hold, steps)
    assert int(method.schedule.t[treatment.chain.start]) == step


def test_the_estimator_alone_is_a_setting_too():
    method = METHOD.adjusted({"method": "estimator"})
    assert method.treatments(method.schedule) == Treatment("estimator")
