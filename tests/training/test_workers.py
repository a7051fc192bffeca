"""Several workers train what one trains, under Ray, and MLflow hears of it from one of them."""

import json

import pytest
import torch

from jobs import train_estimator, train_prior, training
from pipeline.config import parse
from pipeline.networks.zoo import find_preset
from pipeline.training import workers
from pipeline.training.loop import load_checkpoint

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def arguments(preset, shards):
    """Arguments of a quick training into a folder."""

    def make(output, *more):
        quick = [
            "--batch",
            "4",
            "--lr",
            "1e-3",
            "--log-every",
            "1",
            "--checkpoint-every",
            "2",
            "--steps",
            "4",
        ]
        where = ["--preset", preset, "--shards", shards, "--output", str(output), "--validation-faces", "4"]
        return [*where, *quick, "--validate-every", "4", *more]

    return make


def train_alone(argv):
    """The same training in this process, without Ray."""
    options = parse(train_estimator.EstimatorOptions, argv, "")
    preset = find_preset(options.preset)
    workers.train(training.make_plan(options, train_estimator.make_task(preset), preset.side), workers.ALONE)


def losses(output):
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


def test_two_workers_train_what_one_trains_and_one_of_them_tells_mlflow(arguments, tmp_path):
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    train_alone(arguments(tmp_path / "one", "--mlflow-uri", "none"))
    assert train_estimator.main(arguments(tmp_path / "two", "--workers", "2", "--mlflow-uri", uri)) == 0
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
    one, two = (load_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("one", "two"))
    for name, weight in one["network"].items():
        torch.testing.assert_close(two["network"][name], weight, rtol=1e-3, atol=1e-4)

    client = MlflowClient(uri)
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert run.info.status == "FINISHED" and run.data.params["workers"] == "2"
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(p.step, p.value) for p in history] == [
        (step, pytest.approx(loss)) for step, loss in enumerate(losses(tmp_path / "two"), 1)
    ]
    assert "validation_loss" in run.data.metrics


def test_a_changed_batch_or_seed_is_refused_where_another_training_lies(arguments, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    settings = {"network": {}, "seed": 0, "batch": 4, "flip": False, "max_step": 499, "faces": ""}
    (tmp_path / "out" / "training.json").write_text(json.dumps(settings))
    code = train_prior.main(arguments(tmp_path / "out", "--seed", "1", "--dry-run"))
    said = capsys.readouterr().err
    assert code == 2 and "another" in said and "seed" in said and "batch" not in said.split("another", 1)[1]


def test_a_checkpoint_of_another_network_is_refused_in_one_sentence(arguments, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    torch.save({"network": {}, "step": 3}, tmp_path / "out" / "checkpoint.pt")
    code = train_prior.main(arguments(tmp_path / "out", "--mlflow-uri", "none", "--max-failures", "0"))
    assert code == 2 and "does not fit this network" in capsys.readouterr().err
