"""Training continues exactly, averages from the first steps on, and survives bad gradients."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from pipeline.datasets.faces import SampleError, check_side, find_shards, list_faces
from pipeline.networks.presets import build, find_preset
from pipeline.training.averaging import TrainingDiverged, warm_ema
from pipeline.training.checkpoint import UnusableCheckpoint, load_checkpoint, save_checkpoint
from pipeline.training.loop import LoopConfig, Trainer, learning_rate
from pipeline.training.objectives import EstimatorL1, PriorEps
from pipeline.training.samples import FaceSamples, StepSampler, degrade_face

CPU = torch.device("cpu")


def train(preset, shards, steps, path=None, until=None, objective="estimator", accumulate=1):
    """Losses of each step, and the trainer. `until` stops early, as a killed run would."""
    config = LoopConfig(steps=steps, batch=4, lr=1e-3, log_every=1, checkpoint_every=3, accumulate=accumulate)
    spec = find_preset(preset).estimator if objective == "estimator" else find_preset(preset).prior
    torch.manual_seed(0)
    trainer = Trainer(build(spec), config, CPU)
    saved = load_checkpoint(path) if path else None
    if saved:
        trainer.restore(saved)
    data = FaceSamples(
        list_faces(find_shards(shards)), 32, 0, degrade_face if objective == "estimator" else None, True
    )
    sampler = StepSampler(trainer.step, until or steps, config.batch, 0, 1)
    losses = {}
    trainer.run(
        DataLoader(data, batch_sampler=sampler),
        EstimatorL1() if objective == "estimator" else PriorEps(0, max_step=500),
        trainer.network,
        lambda step, metrics: losses.update({step: metrics["loss"]}),
        lambda state: save_checkpoint(state, path) if path else None,
    )
    return losses, trainer


@pytest.mark.parametrize("objective", ["estimator", "prior"])
def test_a_stopped_training_continues_bit_for_bit(preset, shards, tmp_path, objective):
    straight, whole = train(preset, shards, 6, objective=objective)
    first, _ = train(preset, shards, 6, tmp_path / "c.pt", until=4, objective=objective)
    rest, continued = train(preset, shards, 6, tmp_path / "c.pt", objective=objective)
    assert list(rest) == [4, 5, 6], "the checkpoint was at step 3"
    assert {**first, **rest} == straight
    for a, b in zip(whole.network.parameters(), continued.network.parameters(), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(whole.ema.module.parameters(), continued.ema.module.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_batch_in_parts_is_the_same_step(preset, shards):
    whole, one = train(preset, shards, 4)
    parts, four = train(preset, shards, 4, accumulate=4)
    assert parts == pytest.approx(whole, rel=1e-5)
    for a, b in zip(one.network.parameters(), four.network.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_training_lowers_the_loss(preset, shards):
    losses, _ = train(preset, shards, 40)
    assert sum(list(losses.values())[-5:]) < 0.8 * sum(list(losses.values())[:5])


def test_the_average_forgets_its_random_beginning():
    averaged, update = [torch.full((1,), 100.0)], warm_ema(0.999)
    for n in range(1, 200):
        update(averaged, [torch.zeros(1)], torch.tensor(n))
    assert averaged[0].item() < 1e-3


def test_a_gradient_that_is_not_finite_leaves_the_weights_and_too_many_end_the_training(preset):
    config = LoopConfig(steps=100, batch=1)
    trainer = Trainer(nn.Linear(1, 1), config, CPU)
    before = [p.clone() for p in trainer.network.parameters()]
    batches = [{"x": torch.full((1, 1), float("nan"))}] * 100
    with pytest.raises(TrainingDiverged, match="lower --lr"):
        trainer.run(
            batches,
            lambda model, batch: model(batch["x"]).sum(),
            trainer.network,
            lambda *_: None,
            lambda _: None,
        )
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.network.parameters(), strict=True))


def test_the_learning_rate_rises_then_falls_as_a_cosine():
    config = LoopConfig(steps=110, lr=1.0, lr_final=0.1, warmup=10)
    assert learning_rate(0, config) == pytest.approx(0.1) and learning_rate(9, config) == 1
    assert learning_rate(60, config) == pytest.approx(0.55) and learning_rate(110, config) == pytest.approx(
        0.1
    )


def test_a_damaged_checkpoint_is_named(tmp_path):
    (tmp_path / "c.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(UnusableCheckpoint, match="move it away"):
        load_checkpoint(tmp_path / "c.pt")


def test_workers_share_each_step_without_overlap():
    shares = [list(StepSampler(2, 4, 6, rank, 3)) for rank in range(3)]
    assert sorted(i for share in shares for i in share[0]) == list(range(12, 18))


def test_faces_of_another_side_are_refused_by_name(shards):
    with pytest.raises(SampleError, match="32x32"):
        check_side(list_faces(find_shards(shards)), 64)
