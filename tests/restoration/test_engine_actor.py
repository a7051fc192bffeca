"""What becomes of a process whose engine has stopped."""

import pytest

from pipeline.diffusion.request import EngineFailure
from pipeline.restoration import engine_actor
from pipeline.restoration.engine_actor import ENGINE_LOST, EngineActor


class Left(BaseException):
    """In the place of the end of the process."""


def failing_from(first):
    """A stage whose engine stops at its unit of this number."""
    numbers = iter(range(100))

    def stage(row):
        if next(numbers) >= first:
            raise EngineFailure("the engine has stopped: CUDA error: device-side assert triggered")
        return row | {"restored": b"x"}

    return lambda settings: stage


@pytest.fixture
def ended(monkeypatch):
    codes = []

    def leave(code):
        codes.append(code)
        raise Left

    monkeypatch.setattr(engine_actor.os, "_exit", leave)
    return codes


@pytest.mark.parametrize("restarted", [False, True])
def test_after_units_that_it_restored_its_process_ends_so_that_ray_starts_another(
    monkeypatch, ended, restarted
):
    monkeypatch.setattr(engine_actor, "was_restarted", lambda: restarted)
    actor = EngineActor(failing_from(1), None)
    assert actor({"unit": "a"})["restored"] == b"x"
    with pytest.raises(Left):
        actor({"unit": "b"})
    assert ended == [ENGINE_LOST]


def test_one_that_fails_at_its_first_unit_is_started_again_once_and_then_delivers_nothing(monkeypatch, ended):
    monkeypatch.setattr(engine_actor, "was_restarted", lambda: False)
    with pytest.raises(Left):
        EngineActor(failing_from(0), None)({"unit": "a"})
    monkeypatch.setattr(engine_actor, "was_restarted", lambda: True)
    row = EngineActor(failing_from(0), None)({"unit": "a"})
    assert row["unit"] == "a" and "device-side assert" in row["undelivered"]
    assert ended == [ENGINE_LOST]


def test_other_errors_are_not_its_own(ended):
    def stage(row):
        raise KeyError("crops")

    with pytest.raises(KeyError):
        EngineActor(lambda settings: stage, None)({"unit": "a"})
    assert ended == []
