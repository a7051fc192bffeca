"""The slots of a GPU, their programs run uncaptured: the same pictures as the plain slots give."""

import numpy as np
import pytest
import torch

from pipeline.diffusion import engine as module
from pipeline.diffusion import graphed_slots
from pipeline.diffusion.constraints import Constraint, Grey
from pipeline.diffusion.engine import Engine
from pipeline.diffusion.graphed_slots import GraphedSlots, make_slots
from pipeline.diffusion.noise import noise_key
from pipeline.diffusion.request import FaceJob
from pipeline.diffusion.schedule import chain_from, make_schedule
from pipeline.diffusion.slots import Slots
from pipeline.diffusion.treatment import Treatment
from tests import golden_data

SIDE, BATCH = 32, 4
SCHEDULE = make_schedule("ddim50")


class Once:
    """A degradation that raises at one of its calls, and holds to nothing at the others."""

    def __init__(self, at=3):
        self.calls, self.at = 0, at

    def observe(self, x):
        return x

    def project(self, x0, seen, weight):
        self.calls += 1
        if self.calls == self.at:
            raise ValueError("this one raises once")
        return x0


def job(number, start_step=300, constraint=None):
    crop = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
    treatment = Treatment("chain", chain_from(SCHEDULE, start_step))
    return FaceJob(crop, noise_key(0, f"{number:02x}", 0), 0.5, treatment, constraint=constraint)


def grey(number):
    seen = torch.rand(1, SIDE, SIDE, generator=torch.Generator().manual_seed(number)) * 2 - 1
    return Constraint(Grey(), seen)


def restored(jobs, monkeypatch, graphed):
    made = []

    def slots_of(prior, side, count, batch, device, shapes):
        kind = GraphedSlots(prior, side, count, batch, device) if graphed else Slots(
            prior, side, count, batch, device, shapes
        )  # fmt: skip
        made.append(kind)
        return kind

    monkeypatch.setattr(module, "make_slots", slots_of)
    prior = golden_data.network("unet")
    engine = Engine(golden_data.network("srcnn"), prior, SCHEDULE, SIDE, BATCH, BATCH)
    results = []
    for future in [engine.submit(one) for one in jobs]:
        try:
            results.append(future.result(timeout=120).restored)
        except ValueError as error:
            results.append(error)
    engine.close()
    assert made
    return results


def test_they_give_the_pictures_of_the_plain_slots(monkeypatch):
    jobs = [job(i, (300, 500, 160)[i % 3], grey(i) if i % 2 else None) for i in range(7)]
    plain, graphed = (restored(jobs, monkeypatch, kind) for kind in (False, True))
    for a, b in zip(plain, graphed, strict=True):
        assert np.abs(a.astype(int) - b).max() <= 1


def test_where_a_constraint_raises_once_its_neighbours_take_no_step_twice(monkeypatch):
    company = [job(i) for i in range(3)]
    undisturbed = restored([*company, job(3)], monkeypatch, graphed=True)
    raising = Constraint(Once(), torch.zeros(3, SIDE, SIDE))
    disturbed = restored([*company, job(3, constraint=raising)], monkeypatch, graphed=True)
    for a, b in zip(undisturbed[:3], disturbed[:3], strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (RuntimeError("CUDA error: out of memory"), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("operation not permitted when stream is capturing"), False),
    ],
)
def test_exhausted_memory_at_a_capture_is_raised_and_what_can_not_be_captured_is_said(
    monkeypatch, error, raised
):
    def fail(*_):
        raise error

    monkeypatch.setattr("pipeline.diffusion.graphed_slots.GraphedSlots", fail)
    monkeypatch.setattr("pipeline.diffusion.graphed_slots.Slots", lambda *_: "plain")
    said = []
    # MLflow switches loggers off that it does not know
    monkeypatch.setattr(graphed_slots.log, "warning", lambda text, *_: said.append(text))
    cuda = torch.device("cuda")
    if raised:
        with pytest.raises(RuntimeError):
            make_slots(None, SIDE, 4, 4, cuda, None)
    else:
        assert make_slots(None, SIDE, 4, 4, cuda, None) == "plain"
        assert len(said) == 1 and "can not be captured as a CUDA graph" in said[0]
