"""Gates are fitted to allow nearly all that happens to one person, and never what lies between two."""

import numpy as np
import pytest

from pipeline.evaluation.calibration import ESTIMATOR, LEFT, Bin
from pipeline.evaluation.gate_fit import Restored, between, chosen, curve, draw_gates, fit_gates
from pipeline.faces.gates import Bounds


def rotated(vector: np.ndarray, degrees: float, rng: np.random.Generator) -> np.ndarray:
    """A vector at this angle from another one, of length 1."""
    away = rng.normal(size=vector.shape)
    away -= away @ vector / (vector @ vector) * vector
    turn = np.radians(degrees)
    return np.cos(turn) * vector / np.linalg.norm(vector) + np.sin(turn) * away / np.linalg.norm(away)


@pytest.fixture(scope="module")
def faces() -> list[Restored]:
    """120 persons, the more turned the larger δ is: 2 degrees a level, give or take a tenth."""
    rng = np.random.default_rng(0)
    mean = rng.normal(size=128)
    found = []
    for number, delta in enumerate(rng.uniform(1.5, 8, 120)):
        came = rotated(mean, 20, rng)
        turned = 2 * delta * rng.normal(1, 0.1)
        gates = {
            "identity": turned,
            "landmarks": delta / 50 * rng.normal(1, 0.1),
            "colour": 3.0,
            "gain": 0.4 * delta,
        }
        found.append(Restored(delta, number, gates, came, rotated(came, turned, rng)))
    return found


def test_normal_gates_let_nearly_all_pass_and_strict_ones_fewer(faces):
    tables = fit_gates(faces)
    passed = {}
    for level, table in tables.items():
        bounds = Bounds.from_table(table)
        passed[level] = np.mean([f.gates["identity"] <= bounds.at("identity", f.delta) for f in faces])
        assert bounds.at("identity", 1.5) < bounds.at("identity", 8) < 22
    assert passed["normal"] > 0.97 > passed["strict"] > 0.85
    normal, strict = (Bounds.from_table(tables[level]) for level in ("normal", "strict"))
    most = max(f.gates["landmarks"] for f in faces)
    assert strict.landmarks < most < normal.landmarks
    assert normal.gain < min(f.gates["gain"] for f in faces) and strict.colour < 3 < normal.colour


def test_the_identity_allows_no_more_than_few_pairs_of_two_persons_have(faces):
    wild = [
        Restored(f.delta, f.photograph, dict(f.gates) | {"identity": 60.0}, f.came, f.embedding)
        for f in faces
    ]
    tables = fit_gates(wild)
    others = between(sorted(wild, key=lambda face: face.delta))
    for level, share in (("normal", 0.05), ("strict", 0.01)):
        most = Bounds.from_table(tables[level]).at("identity", 8)
        assert (others <= most).mean() <= share + 0.02 and most == pytest.approx(
            np.quantile(others, share), abs=0.1
        )


def test_a_curve_rises_and_leaves_out_what_was_not_measured():
    delta = np.arange(18.0)
    values = np.where(delta == 3, np.nan, 18 - delta)
    rows = curve(delta, values, 2.0, 100.0)
    assert [b for _, b in rows] == sorted(b for _, b in rows) and len(rows) == 6
    assert np.isfinite(rows).all()


def test_the_treatment_of_a_face_is_that_of_its_bin():
    bins = [Bin(0.2, 1.0, 9, LEFT, {}), Bin(1.2, 3.0, 9, ESTIMATOR, {})]
    assert [chosen(d, bins) for d in (0.0, 1.0, 1.2, 9.0)] == [LEFT, LEFT, ESTIMATOR, ESTIMATOR]


def test_the_plot_is_a_picture(faces):
    assert draw_gates(faces, fit_gates(faces)).startswith(b"\x89PNG")
