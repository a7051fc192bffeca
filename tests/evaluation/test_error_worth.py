"""Uses of a prediction of the error: treatments chosen by it, and harm predicted."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.evaluation import error_fit
from pipeline.evaluation.calibration import ESTIMATOR, LEFT, Bounds
from pipeline.evaluation.error_fit import ErrorSample, Predictions
from pipeline.evaluation.error_worth import (
    DELTA,
    PREDICTED,
    SHIPPED,
    TRUE,
    choose_treatments,
    describe_choices,
    describe_harm,
    separation,
)
from pipeline.faces.error_features import FEATURES

ROWS = [{"above": 0, "way": "left"}, {"above": 20, "way": "estimator"}]
LEVELS = ("medium", "heavy")


@pytest.fixture(autouse=True)
def few_resamplings(monkeypatch):
    monkeypatch.setattr(error_fit, "RESAMPLED", 60)


def faces(count=200):
    """Faces whose error depends on crispness alone, not on δ; the estimator helps those of large error only.

    It turns every face that is crisp from its person.
    """
    rng = np.random.default_rng(0)
    found = []
    for i in range(count):
        features = {
            name: float(v) for name, v in zip(FEATURES, rng.normal(1, 0.5, len(FEATURES)), strict=True)
        }
        error = float(np.exp(features["crispness"]))
        helps = error > np.e
        came = {"psnr": 30.0, "angle": 10.0, "lpips": 0.4}
        out = (
            {"psnr": 31.0, "angle": 9.0, "lpips": 0.3}
            if helps
            else {"psnr": 29.0, "angle": 14.0, "lpips": 0.5}
        )
        measured = {LEFT.name: came, ESTIMATOR.name: out}
        found.append(ErrorSample(i // 2, f"person-{i // 2}", LEVELS[i % 2], False, error, features, measured))
    return found


@pytest.fixture(scope="module")
def choices():
    found = Predictions.of(faces())
    return found, choose_treatments(found, ROWS, 20, Bounds())


def test_treatments_by_a_prediction_of_the_error_come_near_to_those_by_the_error(choices):
    lpips = {rule: choices[1].delivered(rule)["lpips"].mean() for rule in choices[1].chosen}
    assert lpips[TRUE] <= lpips[PREDICTED] < lpips[DELTA] - 0.02
    assert lpips[TRUE] == pytest.approx(0.35, abs=0.01)
    assert set(choices[1].chosen[SHIPPED]) == {LEFT} and lpips[SHIPPED] == pytest.approx(0.4)
    assert choices[1].harmed(PREDICTED, "any").mean() < 0.1 and not choices[1].harmed(SHIPPED, "any").any()


def test_the_table_has_each_rule_at_each_level_and_in_all(choices):
    rows = describe_choices(choices[1]).splitlines()[2:]
    assert [row.split("|")[1].strip() for row in rows] == [
        level for level in (*LEVELS, "all") for _ in range(4)
    ]
    assert all(row.split("|")[-3].strip() == "0" for row in rows if f"| {DELTA} |" in row)


def test_faces_without_measured_treatments_are_left_out():
    some = faces(40)
    bare = [ErrorSample(9, f"other-{i}", s.level, False, s.error, s.features) for i, s in enumerate(some)]
    found = choose_treatments(Predictions.of(some + bare), ROWS, 20, Bounds())
    assert list(found.samples) == some


def test_separation_is_the_area_under_the_curve():
    harmed = np.array([False, False, True, True])
    assert separation(harmed, np.array([1.0, 2, 3, 4])) == 1
    assert separation(harmed, np.array([4.0, 3, 2, 1])) == 0
    assert separation(harmed, np.ones(4)) == 0.5
    assert np.isnan(separation(np.zeros(4, bool), np.arange(4.0)))


def test_harm_that_a_measurement_decides_is_predicted_by_it_and_by_no_other():
    found = Predictions.of(faces())
    every = choose_treatments(found, [{"above": 0, "way": "estimator"}], 20, Bounds())
    lines = describe_harm(every, found, LEVELS).splitlines()
    area = {line.split("|")[1].strip(): float(line.split("|")[2].split()[0]) for line in lines[4:]}
    assert area["crispness"] == 0 and area["true error"] == 0 and area["predicted error"] < 0.1
    assert area["predicted growth of the angle"] > 0.95 and 0.35 < area["noise"] < 0.65


def test_where_none_is_harmed_nothing_can_predict_it():
    unharmed = [replace(s, measured={n: s.measured[LEFT.name] for n in s.measured}) for s in faces(40)]
    found = Predictions.of(unharmed)
    every = choose_treatments(found, [{"above": 0, "way": "estimator"}], 20, Bounds())
    assert describe_harm(every, found, LEVELS) == (
        "0 of 40 restored faces of medium and heavy damage lie more than 2 degrees further from the true face than "
        "they came\n"
    )


def test_without_a_restored_face_there_is_no_table_of_harm(choices):
    assert describe_harm(choices[1], choices[0], LEVELS) == "no face of these levels is restored\n"
