"""A face takes the first treatment whose result passes the gates, and no face waits for another's second attempt."""

from concurrent.futures import Future
from dataclasses import replace

import numpy as np
import pytest

from pipeline.diffusion.noise import noise_key
from pipeline.diffusion.request import EngineFailure, FaceJob, FaceResult, NonFiniteFace
from pipeline.diffusion.schedule import Chain
from pipeline.diffusion.treatment import ESTIMATOR, Treatment
from pipeline.faces.gates import Bounds, Measurements
from pipeline.stages.ladder import Ladder, Tried

CROP = np.full((8, 8, 3), 100, np.uint8)
CHAIN = Treatment("chain", Chain(3, (2, 1, 0)), 2.0)
HELD = replace(CHAIN, hold=1.0)
LOWER = Treatment("chain", Chain(1, (0,)), 1.0)
LEFT = Treatment("left")
RUNGS = [("asked", CHAIN), ("held", HELD), ("lower_n", LOWER), ("estimator", ESTIMATOR)]
# what each treatment adds to a crop of level 100, and what the estimator does
LEVELS = {CHAIN: 40, HELD: 30, LOWER: 20, ESTIMATOR: 10}


class Engine:
    """Answers at once; a face of level 0 leaves the finite numbers, one of level 1 breaks a network."""

    def __init__(self, treatment=CHAIN):
        self.treatment, self.submitted, self.futures = treatment, [], []

    def submit(self, job):
        self.submitted.append(job)
        future = Future()
        self.futures.append(future)
        level, treatment = int(job.crop[0, 0, 0]), job.treatment
        if level == 0 and treatment.kind == "chain":
            future.set_exception(NonFiniteFace("nan"))
        elif level == 1:
            future.set_exception(ValueError("broken"))
        elif level == 2:
            future.set_exception(EngineFailure("lost"))
        elif level != 3:  # that one never answers
            estimated = job.crop + np.uint8(LEVELS[ESTIMATOR])
            restored = job.crop if treatment == LEFT else job.crop + np.uint8(LEVELS[treatment])
            future.set_result(
                FaceResult(estimated, restored, treatment, 3.0, start_step=7, steps=treatment.steps)
            )
        return future


class Gates:
    """A face may become brighter by so many levels, and must by more than 5."""

    def __init__(self, most):
        self.bounds = Bounds(identity=((0.0, most),), gain=5)

    def face(self, crop, estimated):
        return crop

    def measure(self, came, restored):
        change = float(restored[0, 0, 0]) - float(came[0, 0, 0])
        return Measurements(change, None, 0.0, change)

    def failed(self, found, delta):
        return (
            "identity"
            if found.identity > self.bounds.at("identity", delta)
            else "gain"
            if found.gain <= 5
            else None
        )


def job(level=100, treatment=CHAIN):
    return FaceJob(np.full_like(CROP, level), noise_key(0, f"{level:02x}", 0), 0.5, treatment)


def climb(most, *jobs, engine=None, finish=lambda came, restored: restored):
    engine = engine or Engine()
    ladder = Ladder(
        engine, lambda asked: RUNGS if asked == CHAIN else [("asked", asked)], Gates(most), finish
    )
    if most is None:
        ladder = replace(ladder, gates=None)
    return dict(ladder.restore(jobs or [job()])), engine


@pytest.mark.parametrize(
    ("most", "rung", "level", "calls"), [(50, "asked", 140, 1), (35, "held", 130, 2), (25, "lower_n", 120, 3)]
)
def test_the_first_treatment_that_passes_is_delivered(most, rung, level, calls):
    done, engine = climb(most)
    assert done[0].outcome.restored[0, 0, 0] == level
    assert [t.rung for t in done[0].tried] == [name for name, _ in RUNGS][:calls] and done[0].tried[
        -1
    ].rung == rung
    assert [t.failed for t in done[0].tried] == ["identity"] * (calls - 1) + [None]
    assert [j.treatment for j in engine.submitted] == [t for _, t in RUNGS][:calls]


def test_the_estimators_picture_is_there_and_needs_no_further_call():
    done, engine = climb(15)
    assert done[0].outcome.restored[0, 0, 0] == 110 and done[0].outcome.treatment == ESTIMATOR
    assert [t.rung for t in done[0].tried] == ["asked", "held", "lower_n", "estimator"] and len(
        engine.submitted
    ) == 3
    assert done[0].outcome.start_step is None


def test_a_face_that_nothing_passes_is_left_as_it_was_for_the_first_gates_reason():
    (found,), _ = climb(8)
    done = climb(8)[0][0]
    assert np.array_equal(done.outcome.restored, CROP) and done.outcome.treatment == LEFT
    assert done.tried[0].failed == "identity" and [t.measured["identity"] for t in done.tried] == [
        40,
        30,
        20,
        10,
    ]
    assert found == 0


def test_a_face_that_gains_nothing_is_left_at_once():
    done, engine = climb(50, finish=lambda came, restored: came)
    assert (
        done[0].tried[0].failed == "gain" and done[0].outcome.treatment == LEFT and len(engine.submitted) == 1
    )


def test_a_face_that_is_left_by_its_table_is_not_judged():
    done, _ = climb(50, job(treatment=LEFT))
    assert done[0].outcome.treatment == LEFT and done[0].tried == []


def test_without_gates_what_comes_out_is_delivered():
    done, engine = climb(None)
    assert done[0].outcome.restored[0, 0, 0] == 140 and len(engine.submitted) == 1
    assert [t.to_json() for t in done[0].tried] == [
        {"rung": "asked", "start_step": 7, "calls": 3, "hold": 2.0}
    ]


def test_a_chain_that_leaves_the_finite_numbers_falls_back_to_the_estimator():
    done, _ = climb(15, job(0))
    assert [(t.rung, t.failed) for t in done[0].tried] == [("asked", "non_finite"), ("estimator", None)]
    assert done[0].outcome.restored[0, 0, 0] == 10
    failed, _ = climb(None, job(0))
    assert isinstance(failed[0].error, NonFiniteFace) and failed[0].outcome is None


def test_a_face_that_raises_fails_alone():
    done, _ = climb(50, job(), job(1), job(101))
    assert [type(done[i].error) for i in range(3)] == [type(None), ValueError, type(None)]
    assert done[2].outcome.restored[0, 0, 0] == 141


def test_a_gate_that_raises_fails_its_face_alone():
    class Broken(Gates):
        def face(self, crop, estimated):
            if crop[0, 0, 0] == 101:
                raise ValueError("no wavelet")
            return crop

    ladder = Ladder(Engine(), lambda asked: [("asked", asked)], Broken(50), lambda came, restored: restored)
    done = dict(ladder.restore([job(101), job()]))
    assert isinstance(done[0].error, ValueError) and done[1].outcome.restored[0, 0, 0] == 140


def test_a_face_that_is_not_found_any_more_has_no_number_in_the_records():
    lost = Tried("asked", measured={"landmarks": float("inf"), "gain": 1.0}, failed="landmarks", bound=0.1)
    assert lost.to_json() == {
        "rung": "asked", "landmarks": None, "gain": 1.0, "failed": "landmarks", "bound": 0.1
    }  # fmt: skip


def test_a_lost_engine_ends_it_and_gives_the_other_faces_up():
    engine = Engine()
    with pytest.raises(EngineFailure):
        climb(50, job(3), job(2), engine=engine)
    assert engine.futures[0].cancelled()


def test_what_was_tried_is_recorded_with_the_gate_and_its_bound():
    tried = climb(35)[0][0].tried
    assert tried[0].to_json() == {
        "rung": "asked", "start_step": 7, "calls": 3, "hold": 2.0, "identity": 40.0, "colour": 0.0, "gain": 40.0,
        "failed": "identity", "bound": 35.0,
    }  # fmt: skip
    assert "failed" not in tried[1].to_json()
