"""The plain loop gives the faces that the engine gives, in batches of any size."""

import numpy as np
import pytest
import torch

from pipeline.evaluation.plain_loop import PlainLoop
from pipeline.evaluation.subject import BenchConfig, Subject

FACES = 3


@pytest.fixture(scope="module")
def subject():
    """A chain that is held to the estimate."""
    return Subject(BenchConfig(preset="portrait", faces=FACES, precision="float32"))


@pytest.fixture(scope="module")
def restored(subject):
    """[F, 3, S, S] in levels of 0..255, by the engine."""
    engine = subject.engine("1")
    results = [future.result() for future in [engine.submit(job) for job in subject.jobs(FACES)]]
    engine.close()
    return np.stack([result.restored.transpose(2, 0, 1) for result in results]).astype(float)


@pytest.mark.parametrize("batch", [1, 2])
def test_in_float32_faces_are_the_engines_but_for_rounding(subject, restored, batch):
    loop = PlainLoop(subject.estimator, subject.prior, subject.schedule, "cpu", batch=batch)
    faces = loop(subject.jobs(FACES)).numpy() * 255
    assert faces.shape == restored.shape
    assert np.abs(faces - restored).max() < 1


def test_in_half_precision_faces_stay_near(subject, restored):
    loop = PlainLoop(subject.estimator, subject.prior, subject.schedule, "cpu", torch.bfloat16, batch=3)
    faces = loop(subject.jobs(FACES)).numpy() * 255
    assert 0.1 < np.sqrt(((faces - restored) ** 2).mean()) < 5
