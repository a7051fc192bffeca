"""The start of a run names what is left out of its measurements, and what restricts their models."""

from pipeline.metrics.landmarks import Dlib68Landmarks
from pipeline.restoration.config import RestoreConfig
from pipeline.restoration.method import settle_metrics


def settled(names: str) -> tuple[tuple[str, ...], list[str]]:
    """The metrics that are measured, and what is said of them."""
    said: list[str] = []
    return settle_metrics(RestoreConfig.of("in", "out", metrics=names), said.append), said


def test_landmarks_are_by_a_free_model_unless_another_is_named(monkeypatch):
    opened = []
    monkeypatch.setattr(Dlib68Landmarks, "__init__", lambda self, models, frame: opened.append(models.name))
    assert settled("landmarks,quality") == (("landmarks", "quality"), []) and opened == []
    names, [note] = settled("landmarks-dlib68")
    assert names == ("landmarks-dlib68",) and opened == ["models"]
    assert (
        note.startswith("note: the metric landmarks-dlib68: its model") and "excludes commercial use" in note
    )


def test_without_its_packages_dlibs_model_is_left_out_with_the_extra_that_has_them(monkeypatch):
    monkeypatch.setattr("pipeline.metrics.landmarks.find_spec", lambda name: None)
    names, [warning] = settled("landmarks-dlib68")
    assert names == () and "difface-pipeline[dlib68]" in warning
