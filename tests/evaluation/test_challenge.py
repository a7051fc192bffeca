"""The score of the NTIRE challenge on real-world face restoration, and its identity rule."""

import numpy as np
import pytest

from pipeline.evaluation import real_metrics
from pipeline.evaluation.challenge import (
    ADAFACE,
    DLIB,
    NAMES,
    TERMS,
    ChallengeRow,
    cosine_rows,
    distance_to,
    fid_to,
)
from pipeline.evaluation.challenge import (
    test_set_of as set_of,
)
from pipeline.evaluation.challenge_report import ChallengeReport, draw_faces
from pipeline.evaluation.rows import Pictures
from pipeline.evaluation.scores import Score
from pipeline.metrics.distribution import FeatureStatistics, FeatureSums

RNG = np.random.default_rng(0)
# by metric, of two faces
MEASURED = {
    "clipiqa": [0.6, 0.8], "maniqa": [0.5, 0.7], "musiq": [70, 74], "niqe": [4, 6], "qalign": [3, 5],
}  # fmt: skip


def row(name="ours", without=(), fid=60.0, cosines=None, thresholds=(0.3, 0.3)):
    values = {n: np.array(v, float) for n, v in MEASURED.items() if n not in without}
    found = None if fid is None else Score(fid, 2.0, 2)
    return ChallengeRow(name, values, found, cosines, np.asarray(thresholds, float), {})


def report(rows, rule):
    return ChallengeReport(rows, "2 faces", [], rule, b"")


def test_the_score_is_the_sum_of_the_challenges_terms():
    total = row().total
    assert total.score.value == pytest.approx(0.7 + 0.6 + 0.72 + 0.5 + 0.8 + 0.4)
    assert total.is_whole and str(total).startswith("3.720 ± ")


def test_terms_of_niqe_and_fid_do_not_fall_below_zero():
    bad = ChallengeRow("bad", {"niqe": np.array([12.0, 14])}, Score(150, 3, 2), None, np.zeros(2), {})
    assert bad.total.score.value == bad.total.score.half == 0


def test_the_interval_takes_what_metrics_share_face_by_face():
    """Two metrics that undo each other leave a sum without any spread."""
    ups = np.array([0.2, 0.4, 0.6])
    opposed = ChallengeRow("o", {"clipiqa": ups, "maniqa": 1 - ups}, None, None, np.zeros(3), {})
    assert opposed.total.score.half == pytest.approx(0, abs=1e-12)
    alone = ChallengeRow("a", {"clipiqa": ups}, None, None, np.zeros(3), {})
    assert alone.total.score.half == pytest.approx(1.96 * ups.std(ddof=1) / 3**0.5)
    with_fid = ChallengeRow("f", {"clipiqa": ups}, Score(50, 10, 3), None, np.zeros(3), {})
    assert with_fid.total.score.half == pytest.approx(np.hypot(alone.total.score.half, 0.1))


@pytest.mark.parametrize("missing", list(TERMS))
def test_a_sum_without_a_term_is_never_called_the_score(missing):
    partial = row(without=(missing,), fid=None if missing == "fid" else 60.0)
    assert not partial.total.is_whole and str(partial.total).startswith(
        f"partial, without {NAMES[missing]}: "
    )
    found = report([partial], ADAFACE)
    (values,) = found.values()
    assert "score" not in values["total"] and len(values["total"]["without"]) == 1
    assert "ours/partial score" in found.metrics() and "ours/score" not in found.metrics()


def test_a_row_without_any_metric_has_no_total():
    nothing = ChallengeRow("n", {"niqe": np.full(2, np.nan)}, None, None, np.zeros(2), {})
    assert nothing.total is None and report([nothing], None).values()[0]["total"] is None


@pytest.mark.parametrize(
    ("path", "threshold"),
    [
        ("/sets/WIDER-Test/0001", 0.3),
        ("test/Wider-Test/0001", 0.3),
        ("WebPhoto-Test/a/b", 0.3),
        ("/lfw/CelebChild-Test/0001", 0.6),
        ("/data/lfw_test/x", 0.6),
        ("CelebA/000123", 0.5),
        ("holidays/wider_face", 0.3),
        ("holidays/0001", 0.3),
    ],
)
def test_the_threshold_is_that_of_the_test_set_in_the_pictures_path(path, threshold):
    assert ADAFACE.threshold(path) == threshold


def test_a_path_of_no_test_set_names_none():
    assert set_of("holidays/0001") is None
    assert DLIB.threshold("holidays/0001") < DLIB.threshold("LFW-Test/0001") < 1


def test_more_than_ten_changed_faces_are_refused_and_faces_without_an_embedding_are_not_changed():
    cosines = np.array([0.29] * 10 + [np.nan, 0.31])
    passes = row(cosines=cosines, thresholds=[0.3] * 12)
    assert passes.changed.sum() == 10 and not passes.is_refused
    fails = row(cosines=cosines, thresholds=[0.3] * 11 + [0.6])
    assert fails.is_refused
    found = report([row("input"), passes, fails], ADAFACE)
    assert [line.get("identity rule") for line in found.table] == [None, "passes", "fails"]
    assert found.values()[2]["identity"]["passes"] is False
    assert found.metrics()["ours/faces below"] == 11


def test_another_embedding_gives_no_verdict_and_says_that_it_is_not_the_challenges():
    found = report([row("input"), row(cosines=np.array([0.1, 0.1]))], DLIB)
    assert all("identity rule" not in line for line in found.table)
    assert found.table[1]["faces below"] == "2" and "passes" not in found.values()[1]["identity"]
    assert "not the challenge's rule, which needs AdaFace's weights" in found.markdown()


def test_the_page_has_the_table_the_formula_and_what_is_missing():
    found = ChallengeReport(
        [row("input"), row()], "2 faces", ["MUSIQ is not measured: no weights."], ADAFACE, b"x"
    )
    for text in (found.markdown(), found.html("Title")):
        assert "MUSIQ/100" in text and "no weights" in text and "NIQE ↓" in text and "2 faces" in text


def test_the_sheet_shows_every_face_beside_its_input():
    faces = [RNG.integers(0, 255, (512, 512, 3), np.uint8) for _ in range(2)]
    pictures = [Pictures(name, "", faces.__getitem__, {}) for name in ("input", "ours")]
    sheet = draw_faces([row("input"), row(cosines=np.array([0.1, 0.9]))], pictures)
    assert sheet.startswith(b"\x89PNG") and len(sheet) > 4 * 192 * 192


def test_cosines_are_those_of_rows_and_undefined_for_nothing():
    ours, theirs = np.array([[3.0, 4], [1, 0], [0, 0]]), np.array([[6.0, 8], [0, 2], [1, 1]])
    assert cosine_rows(ours, theirs) == pytest.approx([1, 0, np.nan], nan_ok=True)


@pytest.mark.parametrize("count", [3, 12])
def test_the_distance_to_statistics_is_that_of_two_gaussians(count):
    """With fewer and with more faces than dimensions."""
    ours, theirs = RNG.normal(0, 1, (count, 6)), RNG.normal(0.5, 2, (40, 6))
    sums = FeatureSums.nothing(6) + FeatureSums.of(theirs)
    mine = (FeatureSums.nothing(6) + FeatureSums.of(ours)).statistics
    assert distance_to(ours, sums.statistics) == pytest.approx(mine.distance(sums.statistics))


def test_fid_has_an_interval_over_the_faces():
    reference = FeatureStatistics(0, np.zeros(6), np.eye(6))
    score = fid_to(RNG.normal(0, 1, (50, 6)), reference)
    assert 0 < score.half < score.value < 1.5 and score.faces == 50


def test_adaface_compares_the_identity_where_its_weights_are(tmp_path, monkeypatch):
    (tmp_path / "adaface_ir50_ms1mv2.ckpt").write_bytes(b"weights")
    monkeypatch.setattr(real_metrics, "load_no_reference", lambda *_: ({}, {}))
    picture, seen = RNG.integers(0, 255, (512, 512, 3), np.uint8), []
    with monkeypatch.context() as patch:
        patch.setattr(
            real_metrics, "load_adaface", lambda path: lambda face: seen.append(face.shape) or np.ones(512)
        )
        official = real_metrics.RealFaceMetrics(str(tmp_path), "cpu", has_reference=False)
    assert official.rule is ADAFACE and len(official(picture)["embedding"]) == 512
    assert seen == [(112, 112, 3)]
    own = real_metrics.RealFaceMetrics(str(tmp_path), "cpu", has_reference=False)
    assert own.rule is DLIB and len(own(picture)["embedding"]) == 128 and "AdaFace" in own.left_out
    assert own.method != official.method
