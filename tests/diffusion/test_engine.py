"""The engine gives every face the same bits in any batch, and agrees with Algorithm 1."""

import threading
import weakref
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.diffusion.call_shapes import CallShapes, find_call_shapes
from pipeline.diffusion.constraints import Constraint, Grey, Inpaint, Shrink
from pipeline.diffusion.difface import face_noise, restore
from pipeline.diffusion.engine import Engine
from pipeline.diffusion.noise import noise_key
from pipeline.diffusion.request import EngineFailure, FaceJob, NonFiniteFace
from pipeline.diffusion.schedule import chain_from, make_schedule
from pipeline.diffusion.slots import Slots
from pipeline.diffusion.transfers import to_bytes
from pipeline.diffusion.treatment import Treatment
from pipeline.diffusion.worker import Worker
from pipeline.networks.inference_unet import InferenceUNet
from tests import golden_data

SIDE, BATCH = 32, 4
SCHEDULE = make_schedule("ddim50")


def make_engine(slots=0, prior=None, batch=BATCH, threads=1):
    networks = golden_data.network("srcnn"), prior or golden_data.network("unet")
    return Engine(*networks, SCHEDULE, SIDE, batch, slots, threads=threads)


def make_job(number, eta=0.5, start_step=80):
    crop = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
    treatment = Treatment("chain", chain_from(SCHEDULE, start_step))
    return FaceJob(crop, noise_key(0, f"{number:02x}", 0), eta, treatment)


def run(engine, jobs):
    results = [f.result(timeout=60) for f in [engine.submit(j) for j in jobs]]
    engine.close()
    return [r.restored.tobytes() + r.estimated.tobytes() for r in results]


@pytest.fixture(scope="module")
def alone():
    """Each of eight faces restored in an engine of its own."""
    return [run(make_engine(), [make_job(i)])[0] for i in range(8)]


@pytest.fixture(scope="module")
def inference_unet():
    return InferenceUNet(golden_data.network("unet"), range(0, 1000, 20))


def constrained(number):
    """The job of a face of which something else is known, or nothing."""
    job = make_job(number)
    signed = torch.from_numpy(job.crop.transpose(2, 0, 1).copy()).float() / 127.5 - 1
    known = torch.ones(1, SIDE, SIDE)
    known[:, :12] = 0
    how = (Inpaint(known), Grey(), Shrink(4), None)[number % 4]
    return job if how is None else replace(job, constraint=Constraint(how, how.observe(signed)))


def test_faces_of_different_tasks_share_calls_and_end_as_they_do_alone(alone):
    jobs = [constrained(i) for i in range(8)]
    each = [run(make_engine(), [job])[0] for job in jobs]
    assert run(make_engine(slots=8), jobs) == each
    assert [a == b for a, b in zip(each, alone, strict=True)] == [job.constraint is None for job in jobs]


def test_what_is_known_of_a_face_comes_out_of_the_engine():
    engine, jobs = make_engine(), [constrained(i) for i in range(3)]
    found = [f.result(timeout=60).restored for f in [engine.submit(j) for j in jobs]]
    engine.close()
    grey, shrunk = (torch.from_numpy(f.transpose(2, 0, 1).copy()).float() / 127.5 - 1 for f in found[1:])
    assert np.array_equal(found[0][12:], jobs[0].crop[12:])
    assert not np.array_equal(found[0][:12], jobs[0].crop[:12])
    # the last step clips colours to what a picture can hold
    assert float((Grey().observe(grey) - jobs[1].constraint.seen).abs().median()) < 0.01
    assert float((Shrink(4).observe(shrunk) - jobs[2].constraint.seen).abs().median()) < 0.01


def test_an_estimator_that_takes_a_mask_sees_nothing_in_the_hole():
    hole = np.zeros((SIDE, SIDE), bool)
    hole[4:20, 8:24] = True
    jobs = [replace(make_job(i), hole=hole if i else None) for i in range(3)]
    other = jobs[1].crop.copy()
    other[hole] = 7
    jobs.append(replace(jobs[1], crop=other))
    networks = golden_data.network("lama"), golden_data.network("unet")
    engine = Engine(*networks, SCHEDULE, SIDE, BATCH, unknown=1)
    results = [f.result(timeout=60) for f in [engine.submit(j) for j in jobs]]
    engine.close()
    assert np.array_equal(results[1].estimated, results[3].estimated)
    given = torch.from_numpy(jobs[1].crop.transpose(2, 0, 1).copy()).float() / 255 * ~torch.from_numpy(hole)
    with torch.inference_mode():
        wanted = networks[0](torch.cat([given, torch.from_numpy(hole)[None].float()])[None])
    assert np.array_equal(results[1].estimated, to_bytes(wanted[0]).numpy())


def test_an_estimator_that_gives_colours_is_given_the_luma_alone():
    job = replace(make_job(1), colourless=True)
    seen = []

    def estimator(faces):
        seen.append(faces.clone())
        return faces[:, :3].contiguous()

    engine = Engine(estimator, golden_data.network("unet"), SCHEDULE, SIDE, BATCH, unknown=2)
    results = [engine.submit(j).result(timeout=60) for j in (job, replace(job, colourless=False))]
    engine.close()
    luma = np.rint(job.crop @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    assert np.array_equal(results[0].estimated, np.repeat(luma[..., None], 3, 2))
    assert np.array_equal(results[1].estimated, job.crop)
    assert float(seen[-2][0, 4].min()) == 1 and float(seen[-1][0, 3:].abs().max()) == 0


def test_the_engine_agrees_with_algorithm_1():
    job = make_job(3)
    faces = torch.from_numpy(job.crop.transpose(2, 0, 1)[None].copy()).float() / 255
    with torch.inference_mode():
        estimated, restored = restore(
            faces, golden_data.network("srcnn"), golden_data.network("unet"), SCHEDULE,
            job.treatment.chain, job.eta, face_noise([job.key], SIDE),
        )  # fmt: skip
    engine = make_engine()
    result = engine.submit(job).result(timeout=60)
    engine.close()
    assert np.abs(result.restored.astype(int) - to_bytes(restored[0]).numpy()).max() <= 1
    assert np.abs(result.estimated.astype(int) - to_bytes(estimated[0]).numpy()).max() <= 1


@settings(max_examples=8, deadline=None)
@given(
    order=st.permutations(range(8)),
    count=st.integers(1, 8),
    slots=st.sampled_from([0, 1, 4, 8, 12]),
    threads=st.sampled_from([1, 3]),
)
def test_a_face_has_the_same_bits_in_any_batch_order_and_number_of_slots(alone, order, count, slots, threads):
    chosen = order[:count]
    engine = make_engine(slots, threads=threads)
    assert run(engine, [make_job(i) for i in chosen]) == [alone[i] for i in chosen]


def test_by_default_there_are_slots_for_a_full_batch_of_every_thread():
    for slots, threads, expected in ((0, 1, BATCH), (0, 3, 3 * BATCH), (1, 3, 1), (BATCH + 1, 1, BATCH + 1)):
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


class Guarded(torch.nn.Module):
    """The prior, with a rule that a call may break."""

    def __init__(self, rule, inner=None):
        super().__init__()
        self.inner, self.rule = inner or golden_data.network("unet"), rule

    def forward(self, x, t):
        self.rule(x, t)
        return self.inner(x, t)


def test_a_face_whose_call_raises_fails_alone(alone):
    def rule(x, t):
        if (t > 80).any():
            raise RuntimeError("no kernel")

    engine = make_engine(4, Guarded(rule))
    futures = [engine.submit(j) for j in (make_job(0), make_job(1, start_step=200), make_job(2))]
    with pytest.raises(RuntimeError, match="no kernel"):
        futures[1].result(timeout=60)
    good = [futures[i].result(timeout=60) for i in (0, 2)]
    engine.close()
    assert [r.restored.tobytes() + r.estimated.tobytes() for r in good] == [alone[0], alone[2]]


def test_an_estimator_that_raises_fails_its_face_and_not_the_engine(alone):
    def estimator(faces):
        if faces.mean() > 0.9:
            raise RuntimeError("too bright")
        return golden_data.network("srcnn")(faces)

    engine = Engine(estimator, golden_data.network("unet"), SCHEDULE, SIDE, BATCH)
    bright = replace(make_job(1), crop=np.full((SIDE, SIDE, 3), 255, np.uint8))
    futures = [engine.submit(j) for j in (make_job(0), bright, make_job(2))]
    with pytest.raises(RuntimeError, match="too bright"):
        futures[1].result(timeout=60)
    assert futures[2].result(timeout=60).restored.tobytes() in alone[2]
    engine.close()


@pytest.mark.parametrize("threads", [1, 2])
def test_out_of_memory_makes_the_slots_fewer_and_loses_no_face(inference_unet, caplog, threads):
    """A prior that has memory for one face at a time."""
    inside = []

    def rule(x, t):
        if (t > 0).any() and (len(x) > 1 or inside):
            raise torch.OutOfMemoryError("CUDA out of memory")

    class Tight(Guarded):
        def forward(self, x, t):
            self.rule(x, t)
            inside.append(1)
            try:
                return self.inner(x, t)
            finally:
                inside.pop()

    jobs = [make_job(i) for i in range(8)]
    expected = run(make_engine(8, inference_unet), jobs)
    engine = make_engine(8, Tight(rule, inference_unet), threads=threads)
    assert run(engine, jobs) == expected
    assert engine.slots == 1
    assert "out of memory: going on with 1 slots" in caplog.text


def test_calls_of_fewer_faces_than_agreed_are_the_last_resort_and_are_logged(alone, caplog):
    def rule(x, t):
        if (t > 0).any() and len(x) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    engine = make_engine(4, Guarded(rule))
    results = run(engine, [make_job(i) for i in range(4)])
    far = [np.abs(np.frombuffer(a, np.uint8).astype(int) - np.frombuffer(b, np.uint8)).max()
           for a, b in zip(results, alone, strict=False)]  # fmt: skip
    assert max(far) <= 1 and engine.slots == 2
    assert "calls of 2 faces instead of 4, whose last bits may differ" in caplog.text


def test_a_face_that_never_fits_fails_and_the_next_is_tried(alone):
    def rule(x, t):
        if (t > 80).any():
            raise torch.OutOfMemoryError("CUDA out of memory")

    engine = make_engine(4, Guarded(rule))
    futures = [engine.submit(j) for j in (make_job(1, start_step=200), make_job(0))]
    with pytest.raises(torch.OutOfMemoryError):
        futures[0].result(timeout=60)
    result = futures[1].result(timeout=60)
    engine.close()
    assert result.restored.tobytes() + result.estimated.tobytes() == alone[0]


def test_a_waiting_face_that_is_cancelled_takes_no_slot():
    engine = make_engine(4)
    waiting = [engine.submit(make_job(i)) for i in range(8)]
    cancelled = waiting[-1].cancel()
    done = [f.result(timeout=60) for f in waiting[:-1]]
    engine.close()
    assert len(done) == 7 and cancelled == waiting[-1].cancelled()


def test_a_face_cancelled_on_its_way_frees_its_slot(alone):
    steps, there, go = [], threading.Event(), threading.Event()

    def rule(x, t):
        steps.append(int(t[0]))
        if steps[-1] == 900:
            there.set()
            go.wait(timeout=60)

    engine = make_engine(1, Guarded(rule))
    running = engine.submit(make_job(1, start_step=960))
    assert there.wait(timeout=60)
    next_one = engine.submit(make_job(0))
    assert running.cancel()
    go.set()
    result = next_one.result(timeout=60)
    engine.close()
    assert result.restored.tobytes() + result.estimated.tobytes() == alone[0]
    assert min(s for s in steps if s > 100) == 900


def test_a_closed_engine_takes_no_face():
    engine = make_engine()
    engine.close()
    with pytest.raises(RuntimeError, match="takes no more faces"):
        engine.submit(make_job(0))


def test_a_fault_of_the_engine_itself_reaches_whoever_waits(monkeypatch):
    engine = make_engine()
    monkeypatch.setattr(Worker, "_place", lambda worker: 1 / 0)
    with pytest.raises(EngineFailure, match="the engine has stopped: ZeroDivisionError") as failed:
        engine.submit(make_job(0)).result(timeout=60)
    assert isinstance(failed.value.__cause__, ZeroDivisionError)
    with pytest.raises(EngineFailure, match="has stopped"):
        engine.submit(make_job(0))


def test_a_lost_device_is_no_faces_fault_and_ends_the_engine():
    def rule(x, t):
        if (t > 0).any():
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    engine = make_engine(4, Guarded(rule))
    futures = [engine.submit(make_job(i)) for i in range(3)]
    for future in futures:
        with pytest.raises(EngineFailure, match="illegal memory access"):
            future.result(timeout=60)
    with pytest.raises(EngineFailure):
        engine.submit(make_job(0))


def test_a_worker_that_ran_out_of_memory_is_gone_before_a_smaller_one_is_made(inference_unet, monkeypatch):
    """Its slots, and the tensors of the call that failed, would take the memory that the smaller one needs."""
    made, alive = [], []
    init = Slots.__init__

    def counted(self, *args, **options):
        alive.append(sum(ref() is not None for ref in made))
        init(self, *args, **options)
        made.append(weakref.ref(self))

    def rule(x, t):
        if len(x) > 2 and (t > 0).any():
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Slots, "__init__", counted)
    engine = make_engine(4, Guarded(rule))
    run(engine, [make_job(i) for i in range(4)])
    assert len(made) == 2 and alive == [0, 0]


def test_a_crop_of_another_size_is_refused_with_one_sentence():
    engine = make_engine()
    wrong = replace(make_job(0), crop=np.zeros((16, 16, 3), np.uint8))
    with pytest.raises(ValueError, match="32x32 RGB face was wanted"):
        engine.submit(wrong)
    engine.close()


def test_slots_are_full_while_faces_wait():
    """Faces of mixed lengths, many more than slots: hardly a step is taken with an empty slot while others wait."""
    engine = make_engine(6, threads=2)
    lengths = [(40, 80, 200, 360)[i % 4] for i in range(40)]
    results = [
        f.result(timeout=60)
        for f in [engine.submit(make_job(i, start_step=n)) for i, n in enumerate(lengths)]
    ]
    engine.close()
    fill = sum(r.steps_saturated for r in results) / sum(r.capacity_saturated for r in results)
    assert fill >= 0.97
    assert sum(r.steps for r in results) == sum(n // 20 for n in lengths)
    assert sum(r.steps_saturated for r in results) > 0.7 * sum(r.steps for r in results)


def test_a_lone_face_reports_the_capacity_it_left_unused():
    engine = make_engine(4)
    lone = engine.submit(make_job(0)).result(timeout=60)
    engine.close()
    assert lone.capacity == lone.steps * BATCH
    assert lone.steps_saturated == 0


@pytest.mark.parametrize("batch", [1, 4])
def test_call_shapes_are_those_that_agree(inference_unet, batch):
    """An inference network may be called in any shape; one that depends on the number of faces or threads may not."""
    net, x, t = inference_unet, torch.randn(batch, 3, SIDE, SIDE), torch.zeros(batch, dtype=torch.int64)
    before = torch.get_num_threads()

    assert find_call_shapes(lambda n: net(x[:n], t[:n]), batch, 3) == CallShapes(partial=True, threads=2)
    assert find_call_shapes(lambda n: net(x[:n], t[:n]), batch, 1) == CallShapes(partial=True, threads=1)
    assert find_call_shapes(lambda n: x[:n] + n, batch, 1) == CallShapes(partial=batch == 1, threads=1)
    of_threads = find_call_shapes(lambda n: x[:n] + torch.get_num_threads(), batch, 2)
    assert of_threads == CallShapes(partial=True, threads=1)
    assert torch.get_num_threads() == before


@settings(max_examples=6, deadline=None)
@given(
    order=st.permutations(range(6)), slots=st.sampled_from([0, 1, 3, 8]), threads=st.sampled_from([1, 2, 3])
)
def test_partial_batches_and_shared_calls_change_no_bit(inference_unet, order, slots, threads):
    alone = [run(make_engine(4, inference_unet), [make_job(i)])[0] for i in order[:2]]
    assert run(make_engine(slots, inference_unet, threads=threads), [make_job(i) for i in order])[:2] == alone


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("device", ["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def test_other_devices_and_number_types_stay_within_their_tolerance(device, dtype):
    """Root mean square over a face, in levels of 255. The state of the chain is float32 everywhere."""
    estimator = deepcopy(golden_data.network("srcnn")).to(device)
    prior = InferenceUNet(deepcopy(golden_data.network("unet")).to(device), range(0, 1000, 20), dtype)
    jobs = [make_job(i, start_step=400) for i in range(6)]
    results = []
    for engine in (make_engine(4), Engine(estimator, prior, SCHEDULE, SIDE, BATCH, 2 * BATCH, device)):
        results.append([f.result(timeout=60) for f in [engine.submit(j) for j in jobs]])
        engine.close()
    away = [
        np.sqrt(((a.restored.astype(float) - b.restored) ** 2).mean()) for a, b in zip(*results, strict=True)
    ]
    assert max(away) <= (0.5 if dtype == torch.float32 else 2.0)
