"""Faces that are left, estimated and restored share an engine, and each ends as it does alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.diffusion.constraints import Constraint, Grey, Hold
from pipeline.diffusion.difface import face_noise, restore, to_signed
from pipeline.diffusion.engine import Engine
from pipeline.diffusion.noise import noise_key
from pipeline.diffusion.request import FaceJob
from pipeline.diffusion.schedule import chain_from, make_schedule
from pipeline.diffusion.transfers import to_bytes
from pipeline.diffusion.treatment import ESTIMATOR, Treatment, Treatments
from tests import golden_data

SIDE, BATCH = 32, 4
SCHEDULE = make_schedule("ddim50")
LEFT = Treatment("left")
SHORT, LONG, FREE = (
    Treatment("chain", chain_from(SCHEDULE, step, "paper", calls), hold)
    for step, calls, hold in ((80, 2, 1.0), (200, 5, 2.0), (400, 9, 0.0))
)
CHAINS = {SHORT: (80, 2), LONG: (200, 5), FREE: (400, 9)}


def make_engine(slots=0, threads=1, estimator_batch=1):
    networks = golden_data.network("srcnn"), golden_data.network("unet")
    return Engine(*networks, SCHEDULE, SIDE, BATCH, slots, threads=threads, estimator_batch=estimator_batch)


def crop(number):
    """A face of noise, the weaker the smaller its number."""
    noise = np.random.default_rng(number).integers(-128, 128, (SIDE, SIDE, 3))
    return (128 + noise * number / 12).astype(np.uint8)


def run(jobs, *engine_of):
    engine = make_engine(*engine_of)
    results = [f.result(timeout=60) for f in [engine.submit(j) for j in jobs]]
    engine.close()
    return results


def delivered(result):
    """Everything of a result but what its slots were shared with."""
    return (
        result.estimated.tobytes(), result.restored.tobytes(), result.treatment, result.estimated_change,
        result.start_step, result.steps,
    )  # fmt: skip


@pytest.fixture(scope="module")
def table():
    """A table by which two each of ten faces get every treatment."""
    changes = sorted(r.estimated_change for r in run([make_job(i, ESTIMATOR) for i in range(1, 11)]))
    assert len(set(changes)) == 10
    treatments = (LEFT, ESTIMATOR, SHORT, LONG, FREE)
    return Treatments(
        tuple((changes[2 * i] if i else 0, treatment) for i, treatment in enumerate(treatments))
    )


def make_job(number, treatment):
    return FaceJob(crop(number), noise_key(0, f"{number:02x}", 0), 0.5, treatment)


@pytest.fixture(scope="module")
def alone(table):
    """Each of ten faces in an engine of its own."""
    return {i: run([make_job(i, table)])[0] for i in range(1, 11)}


def test_every_treatment_occurs_and_ends_as_it_says(alone, table):
    found = [r.treatment for r in alone.values()]
    assert {treatment: found.count(treatment) for treatment in found} == dict.fromkeys(
        (LEFT, ESTIMATOR, SHORT, LONG, FREE), 2
    )
    for number, result in alone.items():
        treatment, picture = result.treatment, result.restored
        assert treatment == table(result.estimated_change)
        assert (result.start_step, result.steps) == CHAINS.get(treatment, (None, 0))
        assert np.array_equal(picture, crop(number)) == (treatment == LEFT)
        assert np.array_equal(picture, result.estimated) == (treatment == ESTIMATOR)
        levels = np.abs(result.estimated.astype(float) - crop(number)).mean()
        assert result.estimated_change == pytest.approx(
            levels, abs=0.3
        )  # of the estimate before it is rounded


@settings(max_examples=10, deadline=None)
@given(
    order=st.permutations(range(1, 11)),
    count=st.integers(2, 10),
    slots=st.sampled_from([0, 1, 3, 9]),
    threads=st.sampled_from([1, 2]),
)
def test_a_face_has_the_same_bits_whatever_is_done_with_its_neighbours(
    alone, table, order, count, slots, threads
):
    chosen = order[:count]
    results = run([make_job(i, table) for i in chosen], slots, threads)
    assert [delivered(r) for r in results] == [delivered(alone[i]) for i in chosen]


@pytest.mark.parametrize("order", [range(1, 11), range(10, 0, -1), (9, 1, 5, 2, 10, 3, 7, 4, 8, 6)])
def test_faces_of_one_estimator_call_may_be_treated_differently_and_end_as_they_do_alone(table, order):
    """Calls of four faces, of which some enter chains and some are at their end."""
    jobs = [make_job(i, table) for i in order]
    each = [delivered(run([job], 0, 1, 4)[0]) for job in jobs]
    assert len({treatment for _, _, treatment, *_ in each}) == 5
    assert [delivered(r) for r in run(jobs, 3, 1, 4)] == each


def test_a_given_treatment_restores_a_face_as_one_that_its_change_has_chosen_does(alone):
    for result, number in ((alone[i], i) for i in (1, 5, 10)):
        assert delivered(run([make_job(number, result.treatment)])[0]) == delivered(result)


@pytest.mark.parametrize("treatment", CHAINS)
def test_a_held_chain_agrees_with_algorithm_1(alone, treatment):
    """Its step's x̂_0 takes the low frequencies of the estimate; without a hold it is the paper's."""
    number = next(i for i, result in alone.items() if result.treatment == treatment)
    restored, job = alone[number].restored, make_job(number, treatment)
    faces = torch.from_numpy(job.crop.transpose(2, 0, 1)[None].copy()).float() / 255
    networks = golden_data.network("srcnn"), golden_data.network("unet")

    def reference(sigma):
        with torch.inference_mode():
            estimated = to_signed(networks[0](faces).clamp(0, 1))[0]
            held = {"refine": Hold.to(estimated, sigma).refine} if sigma else {}
            _, found = restore(
                faces, *networks, SCHEDULE, treatment.chain, job.eta, face_noise([job.key], SIDE), **held
            )
        return to_bytes(found[0]).numpy().astype(int)

    assert np.abs(restored - reference(treatment.hold)).max() <= 1
    assert np.abs(restored - reference(0.0 if treatment.hold else 2.0)).max() > 3


def test_what_a_task_knows_of_a_face_is_held_instead_of_its_estimate():
    job = make_job(8, SHORT)
    signed = torch.from_numpy(job.crop.transpose(2, 0, 1).copy()).float() / 127.5 - 1
    known = replace(job, constraint=Constraint(Grey(), Grey().observe(signed)))
    free = replace(known, treatment=replace(SHORT, hold=0.0))
    held, unheld = run([known, free])
    assert np.array_equal(held.restored, unheld.restored)


def test_a_face_is_judged_by_what_it_shows_of_the_picture(table):
    """The half that is mirrored beyond the border is of noise, and the estimator would change it much."""
    inside = np.zeros((SIDE, SIDE), bool)
    inside[: SIDE // 2] = True
    plain = np.where(inside[..., None], crop(1), crop(10)).astype(np.uint8)
    whole = replace(make_job(1, table), crop=plain)
    judged_whole, judged_inside = run([whole, replace(whole, inside=inside)])
    assert judged_inside.estimated_change < judged_whole.estimated_change
    assert judged_whole.treatment.kind == "chain"
    assert judged_inside.treatment == table(judged_inside.estimated_change)
