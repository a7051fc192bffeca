"""The prediction of a face's error: fitted to some people, tested on others."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.evaluation import error_fit
from pipeline.evaluation.error_fit import (
    CROP,
    DELTA,
    ErrorSample,
    Predictions,
    describe_predictions,
    draw_predictions,
    explained,
    fit_model,
    folds_of,
    ordered,
    predict_held_out,
)
from pipeline.faces.error_features import FEATURES

LEVELS = ("clean", "slight", "mild", "medium", "heavy")


@pytest.fixture(autouse=True)
def few_resamplings(monkeypatch):
    monkeypatch.setattr(error_fit, "RESAMPLED", 60)


def drawn(count, seed=0):
    """Measurements of faces that know nothing of each other."""
    rng = np.random.default_rng(seed)
    return [
        {name: float(v) for name, v in zip(FEATURES, rng.normal(1, 1, len(FEATURES)), strict=True)}
        for _ in range(count)
    ]


def people(count, weights, noise=0.05):
    """Damaged faces at every level, two people to a photograph's name, whose log error follows these weights."""
    rng = np.random.default_rng(1)
    found = []
    for i, features in enumerate(drawn(count)):
        level = LEVELS[i % len(LEVELS)]
        features["change"] = LEVELS.index(level) + features["change"] / 4
        log_error = sum(w * features[name] for name, w in weights.items()) + rng.normal(0, noise)
        found.append(
            ErrorSample(i // 10, f"person-{i // 10}", level, False, float(np.exp(log_error)), features)
        )
    return found


def test_a_fit_recovers_the_relation_that_made_the_errors():
    features = drawn(400)
    rng = np.random.default_rng(2)
    target = np.array(
        [0.3 + 0.9 * f["change"] - 0.4 * f["crispness"] + 0.2 * f["detail"] ** 2 for f in features]
    )
    model = fit_model(features, target + rng.normal(0, 0.1, 400), (*FEATURES, "detail²"))
    weights = {name: a for name, (_, _, a, _) in model.terms.items()}
    assert weights == pytest.approx(dict.fromkeys(FEATURES, 0) | {"change": 0.9, "crispness": -0.4}, abs=0.04)
    squares = {name: b for name, (_, _, _, b) in model.terms.items()}
    assert squares == pytest.approx(dict.fromkeys(FEATURES, 0) | {"detail": 0.2}, abs=0.03)
    assert model(features[0]) == pytest.approx(target[0], abs=0.1)


def test_a_measurement_that_is_the_same_for_all_gets_no_weight():
    features = [one | {"coarseness": 0.0} for one in drawn(50)]
    target = np.array([one["change"] for one in features])
    terms = fit_model(features, target, ("change", "coarseness")).terms
    assert terms["change"][2] == pytest.approx(1, abs=0.05) and terms["coarseness"][2:] == (0, 0)


def test_a_measurement_beyond_those_of_the_fit_counts_as_the_outermost():
    features = drawn(200)
    model = fit_model(features, np.array([one["noise"] ** 2 for one in features]), ("noise", "noise²"))
    far, most = ({"noise": value} for value in (50.0, model.terms["noise"][1]))
    assert model(far) == model(most) < 30


def test_all_faces_of_a_person_are_predicted_by_models_of_other_people():
    names = [f"person-{i // 4}" for i in range(200)]
    folds = folds_of(names)
    assert len(set(folds)) == error_fit.FOLDS
    assert all(len(set(folds[i : i + 4])) == 1 for i in range(0, 200, 4))
    # each person's error is their own, and the measurements name the person: nothing of it may be predicted
    rng = np.random.default_rng(3)
    target = np.repeat(rng.normal(0, 1, 50), 4)
    features = [
        {name: float(v) for name, v in zip(FEATURES, rng.normal(0, 1, len(FEATURES)), strict=True)}
        for _ in range(50)
    ]
    found = predict_held_out([features[i // 4] for i in range(200)], target, names, FEATURES)
    assert explained(target, found) < 0.1


def test_the_faces_that_are_not_fitted_to_are_predicted_all_the_same():
    features, names = drawn(100), [str(i) for i in range(100)]
    target = np.array([one["change"] for one in features])
    spoilt = np.where(np.arange(100) % 2, target, 50.0)
    found = predict_held_out(features, spoilt, names, ("change",), np.arange(100) % 2 == 1)
    assert np.median(np.abs(found - target)) < 0.02


def test_explained_variance():
    target = np.array([1.0, 2.0, 3.0, 4.0])
    assert explained(target, target) == 1 and explained(target, np.full(4, 2.5)) == 0
    assert explained(target, target + 10) < 0, "a prediction that is off explains nothing"
    assert ordered(target, 2 * target + 10) == pytest.approx(1)
    assert ordered(target, -target) == pytest.approx(-1)
    assert ordered(target, np.ones(4)) == 0


def test_what_adds_to_delta_is_marked_at_every_level_and_nothing_else_is():
    found = Predictions.of(people(400, {"change": 0.5, "crispness": 0.3}))
    lines = {line.split("|")[1].strip(): line for line in describe_predictions(found).splitlines()[2:]}
    assert lines["crispness"].count("*") == 5 and lines[CROP].count("*") == 5
    assert "*" not in lines[DELTA] and lines["JPEG"].count("*") == 0
    assert found.levels == ["slight", "mild", "medium", "heavy"], "the error of a clean face is δ"
    assert found.share("crispness", found.levels).value > 0.95


def test_the_plot_is_a_png_of_all_damaged_levels():
    samples = people(60, {"change": 0.5})
    plotted = draw_predictions(Predictions.of(samples))
    moved = [replace(s, error=s.error * 2) if s.level == "heavy" else s for s in samples]
    assert plotted[:4] == b"\x89PNG" and plotted != draw_predictions(Predictions.of(moved))
