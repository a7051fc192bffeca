"""With several noise keys a treatment is carried out with each, and one of the samples is judged and delivered."""

from concurrent.futures import Future
from dataclasses import replace

import numpy as np
import pytest

from pipeline.diffusion.noise import noise_key
from pipeline.diffusion.request import EngineFailure, FaceJob, FaceResult, NonFiniteFace
from pipeline.diffusion.schedule import Chain
from pipeline.diffusion.treatment import ESTIMATOR, Treatment, Treatments
from pipeline.faces.gates import Bounds, Measurements
from pipeline.stages.ladder import Ladder

CHAIN = Treatment("chain", Chain(3, (2, 1, 0)), 2.0)
HELD = replace(CHAIN, hold=1.0)
LEFT = Treatment("left")
RUNGS = [("asked", CHAIN), ("held", HELD), ("estimator", ESTIMATOR)]
TABLE = Treatments(((0.0, LEFT), (1.0, ESTIMATOR), (2.0, CHAIN)))
KEYS = tuple(noise_key(k, "aa", 0) for k in range(3))
# what each treatment adds to the crop's level; the noise adds more
ADDED = {CHAIN: 40, HELD: 20, ESTIMATOR: 5}


class Engine:
    """Adds to a face's level what treatment and key say; answers on request, or at once.

    noise: level that each key adds, or what it raises. delta: of every face.
    """

    def __init__(self, noise, delta=3.0, at_once=True):
        self.noise, self.delta, self.at_once = dict(zip(KEYS, noise, strict=True)), delta, at_once
        self.jobs, self.futures = [], []

    def submit(self, job):
        self.jobs.append(job)
        self.futures.append(Future())
        if self.at_once:
            self.answer(len(self.jobs) - 1)
        return self.futures[-1]

    def answer(self, i):
        job, noise = self.jobs[i], self.noise[self.jobs[i].key]
        treatment = job.treated(self.delta)
        if isinstance(noise, Exception) and treatment != HELD and treatment.chain:
            self.futures[i].set_exception(noise)
            return
        estimated = job.crop + np.uint8(ADDED[ESTIMATOR])
        added = 0 if treatment == LEFT else ADDED[treatment]
        if treatment.chain:
            added += 0 if isinstance(noise, Exception) else noise
        restored = (job.crop + added).astype(np.uint8)
        self.futures[i].set_result(
            FaceResult(
                estimated, restored, treatment, self.delta, 7 if treatment.chain else None, treatment.steps
            )
        )


class Gates:
    """A face may become brighter by so many levels."""

    def __init__(self, most):
        self.bounds = Bounds(identity=((0.0, most),))

    def face(self, crop, estimated):
        return crop

    def measure(self, came, restored):
        return Measurements(float(restored[0, 0, 0]) - float(came[0, 0, 0]), None, 0.0, 9.0)

    def failed(self, found, delta):
        return "identity" if found.identity > self.bounds.at("identity", delta) else None


def job(treatment=CHAIN, level=100):
    return FaceJob(np.full((4, 4, 3), level, np.uint8), KEYS[0], 0.5, treatment)


def ladder(engine, most=99, choose=lambda samples: 0, finish=lambda came, restored: restored):
    return Ladder(
        engine,
        lambda asked: RUNGS if asked == CHAIN else [("asked", asked)],
        None if most is None else Gates(most),
        finish,
        choose,
    )


def climb(engine, treatment=CHAIN, **how):
    [(_, done)] = ladder(engine, **how).restore([job(treatment)], [KEYS[1:]])
    return done


def brightest(samples):
    return int(np.argmax([sample.mean() for sample in samples]))


def levels(pictures):
    return [int(picture[0, 0, 0]) for picture in pictures]


def test_each_key_gives_a_sample_and_the_chosen_one_is_delivered():
    engine = Engine((1, 9, 4))
    done = climb(engine, choose=brightest)
    assert levels(done.samples) == [141, 149, 144] and done.chosen == 1
    assert levels([done.outcome.restored]) == [149]
    assert [(j.key, j.treatment) for j in engine.jobs] == [(key, CHAIN) for key in KEYS]
    assert [t.to_json() for t in done.tried] == [
        {"rung": "asked", "start_step": 7, "calls": 3, "hold": 2.0, "sample": 1, "identity": 49.0,
         "colour": 0.0, "gain": 9.0}
    ]  # fmt: skip
    assert len(done.results) == 3


def test_the_choice_is_among_the_finished_crops():
    darker = climb(
        Engine((1, 9, 4)), choose=brightest, finish=lambda came, restored: np.uint8(255) - restored
    )
    assert darker.chosen == 0 and levels([darker.outcome.restored]) == [255 - 141]


@pytest.mark.parametrize(("delta", "kind"), [(0.5, "left"), (1.5, "estimator")])
def test_a_face_without_a_chain_is_not_sampled(delta, kind):
    engine = Engine((1, 9, 4), delta)
    done = climb(engine, TABLE)
    assert len(engine.jobs) == 1 and done.outcome.treatment.kind == kind


def test_a_face_whose_damage_asks_for_a_chain_has_its_further_samples_once_that_is_known():
    engine = Engine((1, 9, 4))
    done = climb(engine, TABLE)
    assert [j.treatment for j in engine.jobs] == [TABLE, CHAIN, CHAIN]
    assert levels(done.samples) == [141, 149, 144]


def test_where_the_delivered_sample_fails_a_gate_the_gentler_treatment_has_as_many():
    engine = Engine((1, 9, 4))
    done = climb(engine, most=30, choose=brightest)
    assert [(t.rung, t.sample, t.failed) for t in done.tried] == [("asked", 1, "identity"), ("held", 1, None)]
    assert [j.treatment for j in engine.jobs] == [CHAIN] * 3 + [HELD] * 3
    assert [j.key for j in engine.jobs[3:]] == [*KEYS]
    # those of the delivered treatment
    assert levels(done.samples) == [121, 129, 124] and levels([done.outcome.restored]) == [129]


def test_the_delivered_sample_alone_is_judged():
    """The first passes the gate, the brightest does not."""
    assert [t.rung for t in climb(Engine((1, 9, 4)), most=45).tried] == ["asked"]
    assert [t.rung for t in climb(Engine((1, 9, 4)), most=45, choose=brightest).tried] == ["asked", "held"]


def test_the_estimators_picture_is_not_sampled():
    done = climb(Engine((1, 9, 4)), most=10)
    assert [t.rung for t in done.tried] == ["asked", "held", "estimator"]
    assert levels(done.samples) == [105] and done.tried[-1].sample is None and len(done.results) == 6


@pytest.mark.parametrize("place", [1, 2])
def test_a_sample_that_leaves_the_finite_numbers_fails_its_treatment(place):
    noise = [1, 9, 4]
    noise[place] = NonFiniteFace("nan")
    done = climb(Engine(noise))
    assert [(t.rung, t.failed) for t in done.tried] == [("asked", "non_finite"), ("held", None)]
    assert len(done.samples) == 3 and len(done.results) == 5
    alone = climb(Engine(noise), most=None)
    assert isinstance(alone.error, NonFiniteFace) and alone.outcome is None


def test_a_sample_that_raises_fails_its_face_alone():
    engine = Engine((1, ValueError("broken"), 4))
    found = dict(
        ladder(engine).restore([job(), job(ESTIMATOR, 50)], [KEYS[1:], KEYS[1:]]),
    )
    assert isinstance(found[0].error, ValueError) and levels([found[1].outcome.restored]) == [55]


def test_a_lost_engine_ends_it_whatever_else_failed():
    with pytest.raises(EngineFailure):
        climb(Engine((1, ValueError("broken"), EngineFailure("lost"))))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_the_order_in_which_samples_arrive_changes_nothing(order):
    engine = Engine((1, 9, 4), at_once=False)
    found = ladder(engine, most=30, choose=brightest).restore([job()], [KEYS[1:]])
    # the generator waits for an answer: give one whenever it has submitted
    submit = engine.submit

    def submit_and_answer(job):
        future = submit(job)
        if len(engine.jobs) == 1:
            engine.answer(0)
        elif len(engine.jobs) in (3, 6):
            first = len(engine.jobs) - 3
            for k in order:
                if not engine.futures[first + k].done():
                    engine.answer(first + k)
        return future

    engine.submit = submit_and_answer
    [(_, done)] = found
    assert [(t.rung, t.sample) for t in done.tried] == [("asked", 1), ("held", 1)]
    assert levels(done.samples) == [121, 129, 124] and len(engine.jobs) == 6


def test_a_face_with_samples_does_not_hold_up_another():
    engine = Engine((1, 9, 4), at_once=False)
    submit, given = engine.submit, []

    def answer_others(job):
        future = submit(job)
        given.append(future)
        # the second sample of the first face is never answered before the other face is done
        if job.key != KEYS[1]:
            engine.answer(len(engine.jobs) - 1)
        return future

    engine.submit = answer_others
    found = ladder(engine).restore([job(), job(ESTIMATOR, 50)], [KEYS[1:], ()])
    first, _ = next(found)
    assert first == 1
    found.close()
    assert any(future.cancelled() for future in given)


def test_what_is_asked_of_the_engine_beyond_the_first_of_each_face_is_reported():
    reported = []
    one = replace(ladder(Engine((1, 9, 4)), most=30), report=reported.append)
    dict(one.restore([job(), job(ESTIMATOR, 50)], [KEYS[1:], KEYS[1:]]))
    # two further samples, and three of the gentler treatment
    assert reported == [2, 3]
