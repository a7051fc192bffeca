"""The data of the review page, from what a run left."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from finished_run import finish_run, picture
from photographs import write_folder

from pipeline.diffusion.method import Method
from pipeline.faces.gates import Bounds
from pipeline.faces.geometry import CropFrame
from pipeline.ledger.ledger import read_run
from pipeline.networks.presets import find_preset
from pipeline.restoration import review
from pipeline.restoration.method import Restorer

TABLE = (
    {"above": 0.0, "way": "left"},
    {"above": 4.0, "start_step": 252, "calls": 5, "hold": 2.0, "eta": 0.2},
)


class Plain(Restorer):
    """A method whose crops are those of finished_run.py."""

    frame = CropFrame(32)  # type: ignore[assignment]


def restorer(method: Method) -> Restorer:
    return Plain(find_preset("portrait"), method, {}, Bounds(identity=((0.0, 10.0), (10.0, 30.0))))


METHOD = Method(0.5, "ddim250", "official", 400, 11, 1.5, TABLE)


@pytest.fixture(scope="module")
def output(tmp_path_factory) -> Path:
    """Six faces; the first turned by 0 degrees, the last by 5; one is left, one is rejected."""
    folder = tmp_path_factory.mktemp("run")
    source = write_folder(folder / "in", {f"{i}.png": picture(40 * i) for i in range(6)})

    def restored(level: int, _: int) -> tuple[int, dict[str, Any]]:
        number = level // 40
        values: dict[str, Any] = {
            "tried": [{"rung": "asked", "identity": float(number), "gain": 2.0}],
            "rung": "asked",
        }
        if number == 1:
            values |= {
                "treatment": "left",
                "left_for": "sharp",
                "kept": "the face has nothing to gain",
                "rung": "",
            }
        if number == 2:
            values |= {
                "verdict": "redo",
                "verdict_by": "Ada",
                "verdict_at": "2026-11-27T17:00:00Z",
                "verdict_settings": {"seed": 1},
            }
        return 9, values | {"estimated_change": 5.0}

    return finish_run(source, folder / "out", restored, unit_images=2)


def shown(output: Path, method: Method = METHOD) -> dict[str, Any]:
    review.write_review(str(output), read_run(str(output)), restorer(method))
    page = (output / "review/index.html").read_text()
    return json.loads(re.search(r"<script[^>]*application/json[^>]*>(.*?)</script>", page, re.S)[1])


def faces(data: dict[str, Any]) -> dict[str, dict[str, Any]]:
    every = [dict(zip(data["columns"], row, strict=True)) for row in data["faces"]]
    return {face["picture"]: face for face in every}


def test_a_face_has_what_was_measured_what_was_allowed_and_what_was_said(output):
    data = shown(output)
    found = faces(data)
    assert list(found) == ["5.png", "4.png", "3.png", "2.png", "1.png", "0.png"] and data["title"] == "out"
    last = found["5.png"]
    assert (last["identity"], last["allowed"], last["gain"], last["outcome"]) == (5, 20, 2, "restored")
    assert last["src"].startswith("data:image/jpeg;base64,") and last["tile"] == [120, 120]
    assert (found["1.png"]["outcome"], found["1.png"]["why"]) == (
        "left",
        "as good already as the preset can make it",
    )
    assert found["2.png"]["applied"] == {
        "verdict": "redo", "who": "Ada", "at": "2026-11-27T17:00:00Z", "settings": {"seed": 1},
    }  # fmt: skip
    assert "--verdicts" in data["command"] and data["run"] == read_run(str(output)).run


def test_a_large_run_shows_the_faces_that_turned_most_and_says_so(output, monkeypatch):
    monkeypatch.setattr(review, "MOST_FACES", 2)
    assert list(faces(shown(output))) == ["5.png", "4.png"]
    assert shown(output)["title"] == "out: 2 of 6 faces in 3 of 3 units"
    monkeypatch.setattr(review, "MOST_FILES", 2)
    data = shown(output)
    assert data["title"] == "out: 2 of 4 faces in 2 of 3 units"
    # its pictures lie beside it
    assert [f["src"] for f in faces(data).values()] == [
        f"tiles/images-00000-0002/000{i}-00.jpg" for i in (1, 0)
    ]


def test_what_a_face_can_be_redone_with_follows_the_method():
    def settings(method: Method) -> dict[str, Any]:
        return {choice.label: choice.settings for choice in review.choices(method, 128)}

    found = settings(METHOD)
    whole = {"start_step": 252, "calls": 5, "hold": 2.0, "eta": 0.2}
    assert found["the whole chain"] == whole and found["held more"] == whole | {"hold": 1.0}
    assert found["from a smaller N"] == whole | {"start_step": 124, "calls": 3, "hold": 1.0}
    assert found["another sample"] == {"seed": 1} and found["as the run does it"] == {}
    plain = settings(Method(0.5, "ddim250", "official", 400, None, 0.0))
    assert plain["held more"] == {"start_step": 400, "hold": 2.0, "eta": 0.5}
    without = settings(Method(0.0, "ddim250", "official", 0, None, 0.0, without_prior=True))
    assert set(without) == {"as the run does it", "half of the change"}
