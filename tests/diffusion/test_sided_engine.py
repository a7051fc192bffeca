"""Crops of several sides in one engine: each face ends as it does among faces of its own side alone."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pipeline.diffusion.engine import Engine
from pipeline.diffusion.estimator_engine import EstimatorEngine
from pipeline.diffusion.noise import noise_key
from pipeline.diffusion.request import FaceJob
from pipeline.diffusion.schedule import chain_from, make_schedule
from pipeline.diffusion.sided_engine import SidedEngine
from pipeline.diffusion.treatment import ESTIMATOR, Treatment
from tests import golden_data

SIDES = (32, 64)
SCHEDULE = make_schedule("ddim50")
CHAIN = Treatment("chain", chain_from(SCHEDULE, 40))


def make_engine(side, slots=0, threads=1):
    networks = golden_data.network("srcnn"), golden_data.network("unet")
    return Engine(*networks, SCHEDULE, side, 2, slots, threads=threads)


def make_job(number, side, treatment=CHAIN):
    crop = np.random.default_rng(number).integers(0, 256, (side, side, 3)).astype(np.uint8)
    return FaceJob(crop, noise_key(0, f"{number:02x}", 0), 0.5, treatment)


def run(engine, jobs):
    results = [future.result(timeout=60) for future in [engine.submit(job) for job in jobs]]
    engine.close()
    return [r.restored.tobytes() + r.estimated.tobytes() for r in results]


@pytest.fixture(scope="module")
def jobs():
    return [make_job(number, SIDES[number % 2]) for number in range(4)]


@pytest.fixture(scope="module")
def alone(jobs):
    """Each face in an engine of its own side that has no other face."""
    return [run(make_engine(len(job.crop)), [job])[0] for job in jobs]


@pytest.mark.parametrize(("slots", "threads"), [(1, 1), (4, 2)])
def test_a_face_has_the_same_bits_whatever_sides_its_neighbours_have(jobs, alone, slots, threads):
    order = [3, 0, 1, 2]
    engine = SidedEngine(lambda side: make_engine(side, slots, threads), SIDES)
    assert run(engine, [jobs[i] for i in order]) == [alone[i] for i in order]


def test_the_engine_of_a_side_is_made_once_when_its_first_face_comes():
    made = []

    def make(side):
        made.append(side)
        return EstimatorEngine(lambda faces: 1 - faces, side, 1)

    engine = SidedEngine(make, SIDES)
    assert made == [32]
    later = [make_job(number, 64, ESTIMATOR) for number in range(8)]
    with ThreadPoolExecutor(4) as pool:
        results = [future.result(timeout=60) for future in pool.map(engine.submit, later)]
    engine.close()
    assert made == [32, 64]
    assert all(np.array_equal(r.restored, 255 - job.crop) for r, job in zip(results, later, strict=True))


def test_a_crop_of_no_known_side_is_refused():
    engine = SidedEngine(lambda side: EstimatorEngine(lambda faces: faces, side, 1), SIDES)
    with pytest.raises(ValueError, match="a 32x32 RGB face was wanted, got an array of"):
        engine.submit(make_job(0, 48, ESTIMATOR))
    engine.close()
