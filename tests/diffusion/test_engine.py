"""The engine gives every face the same bits in any company, and agrees with Algorithm 1."""

import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.diffusion.difface import face_noise, restore
from pipeline.diffusion.engine import Engine, FaceJob, NonFiniteFace, to_bytes
from pipeline.diffusion.noise import noise_key
from pipeline.diffusion.schedule import chain_from, make_schedule
from tests import golden_data

SIDE, LANES = 32, 4
SCHEDULE = make_schedule("ddim50")


def make_engine(slots=0, prior=None, lanes=LANES, threads=1):
    networks = golden_data.network("srcnn"), prior or golden_data.network("unet")
    return Engine(*networks, SCHEDULE, SIDE, lanes, slots, threads=threads)


def make_job(number, eta=0.5, start_step=80):
    crop = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
    return FaceJob(crop, noise_key(0, f"{number:02x}", 0), eta, chain_from(SCHEDULE, start_step))


def run(engine, jobs):
    results = [f.result(timeout=60) for f in [engine.submit(j) for j in jobs]]
    engine.close()
    return [r.restored.tobytes() + r.estimated.tobytes() for r in results]


@pytest.fixture(scope="module")
def alone():
    """Each of eight faces restored in an engine of its own."""
    return [run(make_engine(), [make_job(i)])[0] for i in range(8)]


def test_the_engine_agrees_with_algorithm_1():
    job = make_job(3)
    faces = torch.from_numpy(job.crop.transpose(2, 0, 1)[None].copy()).float() / 255
    with torch.inference_mode():
        estimated, restored = restore(
            faces, golden_data.network("srcnn"), golden_data.network("unet"), SCHEDULE, job.chain, job.eta,
            face_noise([job.key], SIDE),
        )  # fmt: skip
    engine = make_engine()
    result = engine.submit(job).result(timeout=60)
    engine.close()
    assert np.abs(result.restored.astype(int) - to_bytes(restored[0])).max() <= 1
    assert np.abs(result.estimated.astype(int) - to_bytes(estimated[0])).max() <= 1


@settings(max_examples=8, deadline=None)
@given(
    order=st.permutations(range(8)),
    count=st.integers(1, 8),
    slots=st.sampled_from([0, 1, 4, 8, 12]),
    threads=st.sampled_from([1, 3]),
)
def test_a_face_has_the_same_bits_in_any_company_order_and_number_of_slots(
    alone, order, count, slots, threads
):
    chosen = order[:count]
    engine = make_engine(slots, threads=threads)
    assert run(engine, [make_job(i) for i in chosen]) == [alone[i] for i in chosen]


def test_without_a_wish_there_are_slots_for_a_full_call_of_every_thread():
    for slots, threads, expected in (
        (0, 1, LANES),
        (0, 3, 3 * LANES),
        (1, 3, LANES),
        (LANES + 1, 1, 2 * LANES),
    ):
        engine = make_engine(slots, threads=threads)
        engine.close()
        assert engine.slots == expected


def test_faces_with_different_eta_and_start_share_batches_without_harm(alone):
    odd = [make_job(20, eta=1.0, start_step=200), make_job(21, eta=0.0, start_step=40)]
    mixed = run(make_engine(4), [odd[0], make_job(0), odd[1], make_job(1)])
    assert [mixed[1], mixed[3]] == alone[:2]


def test_many_threads_may_submit_at_once(alone):
    engine, results = make_engine(8), {}

    def work(i):
        result = engine.submit(make_job(i)).result(timeout=60)
        results[i] = result.restored.tobytes() + result.estimated.tobytes()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    engine.close()
    assert [results[i] for i in range(8)] == alone


def test_a_face_that_leaves_the_finite_numbers_fails_alone(alone):
    class Poisoned(torch.nn.Module):
        """Predicts NaN for the face whose chain visits the steps above 80."""

        def __init__(self):
            super().__init__()
            self.inner = golden_data.network("unet")

        def forward(self, x, t):
            return torch.where((t > 80)[:, None, None, None], torch.nan, self.inner(x, t))

    engine = make_engine(4, Poisoned())
    good, bad = engine.submit(make_job(0)), engine.submit(make_job(1, start_step=200))
    with pytest.raises(NonFiniteFace, match="finite"):
        bad.result(timeout=60)
    result = good.result(timeout=60)
    engine.close()
    assert result.restored.tobytes() + result.estimated.tobytes() == alone[0]


def test_a_network_that_raises_fails_its_faces_and_not_the_engine():
    class Broken(torch.nn.Module):
        calls = 0

        def forward(self, x, t):
            self.calls += 1
            if self.calls == 1:
                raise RuntimeError("no kernel")
            return torch.zeros_like(x)

    engine = make_engine(4, Broken())
    with pytest.raises(RuntimeError, match="no kernel"):
        engine.submit(make_job(0)).result(timeout=60)
    assert engine.submit(make_job(1)).result(timeout=60).restored.shape == (SIDE, SIDE, 3)
    engine.close()


def test_a_cancelled_face_takes_no_slot():
    engine = make_engine(4)
    waiting = [engine.submit(make_job(i)) for i in range(8)]
    cancelled = waiting[-1].cancel()
    done = [f.result(timeout=60) for f in waiting[:-1]]
    engine.close()
    assert len(done) == 7 and cancelled == waiting[-1].cancelled()


def test_a_crop_of_another_size_is_refused_with_one_sentence():
    engine = make_engine()
    wrong = FaceJob(np.zeros((16, 16, 3), np.uint8), noise_key(0, "00", 0), 0.5, chain_from(SCHEDULE, 80))
    with pytest.raises(ValueError, match="32x32 RGB face was wanted"):
        engine.submit(wrong)
    engine.close()


def test_a_full_engine_reports_full_calls_and_a_lone_face_reports_the_room_it_left():
    engine = make_engine(4)
    results = [f.result(timeout=60) for f in [engine.submit(make_job(i)) for i in range(4)]]
    engine.close()
    lone_engine = make_engine(4)
    lone = lone_engine.submit(make_job(0)).result(timeout=60)
    lone_engine.close()
    assert lone.room == lone.steps * LANES
    assert sum(r.room for r in results) >= sum(r.steps for r in results)
