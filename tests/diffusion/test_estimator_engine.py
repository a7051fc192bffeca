"""The estimator's picture alone: the bits that the engine diffuses, in any batch, and a fault fails one face."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.diffusion import estimator_engine
from pipeline.diffusion.engine import Engine
from pipeline.diffusion.estimator_engine import EstimatorEngine
from pipeline.diffusion.noise import noise_key
from pipeline.diffusion.request import FaceJob, NonFiniteFace
from pipeline.diffusion.schedule import chain_from, make_schedule
from pipeline.diffusion.treatment import ESTIMATOR, Treatment, Treatments
from tests import golden_data

SIDE = 32
SCHEDULE = make_schedule("ddim50")
WHITE = np.full((SIDE, SIDE, 3), 255, np.uint8)


def make_job(number):
    crop = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
    return FaceJob(crop, noise_key(0, f"{number:02x}", 0), 0.5, ESTIMATOR)


def run(engine, jobs):
    results = [f.result(timeout=60) for f in [engine.submit(j) for j in jobs]]
    engine.close()
    return results


@pytest.fixture(scope="module")
def diffused():
    """What an engine estimates of each of eight faces before it diffuses them."""
    engine = Engine(golden_data.network("srcnn"), golden_data.network("unet"), SCHEDULE, SIDE, 4)
    chain = Treatment("chain", chain_from(SCHEDULE, 20))
    jobs = [replace(make_job(i), treatment=chain) for i in range(8)]
    return [r.estimated.tobytes() for r in run(engine, jobs)]


@pytest.mark.parametrize("workers", [1, 3])
def test_a_face_gets_the_estimate_that_the_engine_diffuses(diffused, workers):
    results = run(
        EstimatorEngine(golden_data.network("srcnn"), SIDE, 1, workers=workers),
        [make_job(i) for i in range(8)],
    )
    assert [r.restored.tobytes() for r in results] == diffused
    assert [r.estimated.tobytes() for r in results] == diffused
    assert {(r.treatment, r.start_step, r.steps, r.capacity) for r in results} == {(ESTIMATOR, None, 0, 0.0)}


def test_a_face_that_the_estimator_hardly_changes_is_left_where_it_may_be():
    left = Treatments(((0, Treatment("left")), (2.0, ESTIMATOR)))
    jobs = [replace(make_job(i), treatment=left) for i in range(3)]
    dark = np.full((SIDE, SIDE, 3), 10, np.uint8)
    jobs.append(replace(jobs[0], crop=dark))  # darker by a tenth: by 1 level of 10
    results = run(EstimatorEngine(lambda faces: faces * 0.9, SIDE, 4), jobs)
    assert [r.treatment.kind for r in results] == ["estimator"] * 3 + ["left"]
    assert (results[3].estimated_change, results[3].estimated.max()) == (1.0, 9)
    assert np.array_equal(results[3].restored, dark)
    assert all(np.array_equal(r.restored, r.estimated) for r in results[:3])


def test_a_call_of_many_gives_each_face_its_own_picture():
    shapes = []

    def estimator(faces):
        shapes.append(faces.shape)
        return 1 - faces

    jobs = [make_job(i) for i in range(7)]
    results = run(EstimatorEngine(estimator, SIDE, 4), jobs)
    assert all(np.array_equal(r.restored, 255 - j.crop) for r, j in zip(results, jobs, strict=True))
    assert set(shapes) == {(4, 3, SIDE, SIDE)}


def test_an_estimator_that_fills_holes_is_given_their_mask():
    hole = np.zeros((SIDE, SIDE), bool)
    hole[:8] = True
    engine = EstimatorEngine(lambda faces: faces[:, 3:].expand(-1, 3, -1, -1), SIDE, 2, unknown=1)
    (result,) = run(engine, [replace(make_job(0), hole=hole)])
    assert np.array_equal(result.restored == 255, np.repeat(hole[..., None], 3, axis=2))


@pytest.mark.parametrize(("fault", "kind"), [("raise", RuntimeError), ("nan", NonFiniteFace)])
def test_a_face_that_can_not_be_estimated_fails_alone(fault, kind):
    def estimator(faces):
        white = (faces == 1).flatten(1).all(dim=1)
        if fault == "raise" and white.any():
            raise RuntimeError("too bright")
        return torch.where(white[:, None, None, None], torch.nan, faces)

    engine = EstimatorEngine(estimator, SIDE, 4)
    jobs = [make_job(0), replace(make_job(1), crop=WHITE), make_job(2)]
    futures = [engine.submit(j) for j in jobs]
    with pytest.raises(kind):
        futures[1].result(timeout=60)
    for place in (0, 2):
        assert np.array_equal(futures[place].result(timeout=60).restored, jobs[place].crop)
    engine.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_out_of_memory_makes_the_calls_smaller_and_loses_no_face(monkeypatch, workers):
    logged = []
    monkeypatch.setattr(estimator_engine.log, "warning", lambda text, *numbers: logged.append(text % numbers))

    def estimator(faces):
        if len(faces) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return faces

    jobs = [make_job(i) for i in range(9)]
    results = run(EstimatorEngine(estimator, SIDE, 8, workers=workers), jobs)
    assert all(np.array_equal(r.restored, j.crop) for r, j in zip(results, jobs, strict=True))
    assert "out of memory: calls of 2 faces, whose last bits may differ" in logged


def test_a_face_that_never_fits_fails_and_the_next_is_tried():
    def estimator(faces):
        if (faces == 1).all():
            raise torch.OutOfMemoryError("CUDA out of memory")
        return faces

    engine = EstimatorEngine(estimator, SIDE, 1)
    futures = [engine.submit(j) for j in (replace(make_job(0), crop=WHITE), make_job(1))]
    with pytest.raises(torch.OutOfMemoryError):
        futures[0].result(timeout=60)
    assert np.array_equal(futures[1].result(timeout=60).restored, make_job(1).crop)
    engine.close()


def test_a_closed_engine_and_a_face_of_another_size_are_refused():
    engine = EstimatorEngine(lambda faces: faces, SIDE, 1)
    with pytest.raises(ValueError, match="a 32x32 RGB face was wanted"):
        engine.submit(replace(make_job(0), crop=np.zeros((8, 8, 3), np.uint8)))
    engine.close()
    with pytest.raises(RuntimeError, match="closed"):
        engine.submit(make_job(0))
