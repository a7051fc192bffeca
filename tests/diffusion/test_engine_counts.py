"""What an engine reports while it works: the same steps at the end as its results, whatever happened."""

import threading

import numpy as np
import pytest
import torch

from pipeline.console.work_counts import WorkCounts
from pipeline.diffusion.engine import Engine
from pipeline.diffusion.estimator_engine import EstimatorEngine
from pipeline.diffusion.noise import noise_key
from pipeline.diffusion.request import FaceJob
from pipeline.diffusion.schedule import chain_from, make_schedule
from pipeline.diffusion.treatment import ESTIMATOR, Treatment
from tests import golden_data

SIDE, BATCH = 32, 4
SCHEDULE = make_schedule("ddim50")


class Heard:
    """The sum of what was reported, by whichever thread."""

    def __init__(self) -> None:
        self.sums, self.each, self._lock = WorkCounts(), [], threading.Lock()

    def __call__(self, **counts: int) -> None:
        increment = WorkCounts(**counts)
        with self._lock:
            self.sums += increment
            self.each.append(increment)


class Ruled(torch.nn.Module):
    """The prior, with a rule that may raise before each call."""

    def __init__(self, rule) -> None:
        super().__init__()
        self.rule, self.inner = rule, golden_data.network("unet")

    def forward(self, x, t):
        self.rule(x, t)
        return self.inner(x, t)


def engine_with(heard, slots=0, rule=lambda x, t: None, threads=1):
    prior = Ruled(rule)
    return Engine(
        golden_data.network("srcnn"), prior, SCHEDULE, SIDE, BATCH, slots, threads=threads, report=heard
    )


def make_job(number, start_step=80, treatment=None):
    crop = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
    chain = treatment or Treatment("chain", chain_from(SCHEDULE, start_step))
    return FaceJob(crop, noise_key(0, f"{number:02x}", 0), 0.5, chain)


@pytest.mark.parametrize("threads", [1, 3])
def test_steps_are_reported_as_they_are_taken_and_sum_to_those_of_the_results(threads):
    heard = Heard()
    engine = engine_with(heard, slots=4, threads=threads)
    jobs = [make_job(i, start_step=(80, 200)[i % 2]) for i in range(6)]
    jobs.append(make_job(6, treatment=ESTIMATOR))
    results = [f.result(timeout=60) for f in [engine.submit(j) for j in jobs]]
    engine.close()
    steps = sum(r.steps for r in results)
    assert steps > 0
    assert heard.sums == WorkCounts(decided=7, steps_planned=steps, steps=steps)
    # one report a call of the network, and none of more faces than a call has
    assert max(h.steps for h in heard.each) <= BATCH and len(heard.each) > 10


def test_a_face_that_fails_or_is_cancelled_takes_its_steps_back():
    heard, there, go = Heard(), threading.Event(), threading.Event()
    steps = []

    def rule(x, t):
        steps.append(int(t[0]))
        if steps[-1] == 900:
            there.set()
            go.wait(timeout=60)

    engine = engine_with(heard, slots=1, rule=rule)
    running = engine.submit(make_job(1, start_step=960))
    assert there.wait(timeout=60)
    assert heard.sums.steps_planned == len(chain_from(SCHEDULE, 960).indices)
    assert running.cancel()
    go.set()
    engine.submit(make_job(2)).result(timeout=60)
    engine.close()
    assert heard.sums.steps == heard.sums.steps_planned > 0


def test_a_call_that_raises_takes_back_what_its_face_had_planned():
    heard = Heard()

    def rule(x, t):
        if 140 < int(t[0]) < 200:
            raise RuntimeError("a broken call")

    engine = engine_with(heard, slots=1, rule=rule)
    with pytest.raises(RuntimeError, match="a broken call"):
        engine.submit(make_job(1, start_step=300)).result(timeout=60)
    engine.close()
    assert heard.sums.decided == 1
    assert heard.sums.steps == heard.sums.steps_planned > 0


def test_faces_that_begin_again_for_want_of_memory_are_counted_again():
    heard, refused = Heard(), []

    def rule(x, t):
        if (t > 0).any() and len(x) > 2:
            refused.append(len(x))
            raise torch.OutOfMemoryError("CUDA out of memory")

    engine = engine_with(heard, slots=4, rule=rule)
    results = [f.result(timeout=60) for f in [engine.submit(make_job(i)) for i in range(4)]]
    engine.close()
    assert refused and heard.sums.decided == 4
    assert heard.sums.steps == heard.sums.steps_planned >= sum(r.steps for r in results) > 0


def test_a_report_that_nobody_asked_for_goes_nowhere():
    engine = Engine(golden_data.network("srcnn"), golden_data.network("unet"), SCHEDULE, SIDE, BATCH)
    assert engine.submit(make_job(0)).result(timeout=60).steps > 0
    engine.close()
    alone = EstimatorEngine(golden_data.network("srcnn"), SIDE, 1)
    assert alone.submit(make_job(0, treatment=ESTIMATOR)).result(timeout=60).steps == 0
    alone.close()
