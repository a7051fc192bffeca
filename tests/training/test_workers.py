"""Several workers train what one trains, under Ray, and MLflow hears of it from one of them."""

import json

import pytest
import torch

from jobs import train_estimator
from pipeline.training.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow


def losses(output):
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


def test_two_workers_train_what_one_trains_and_one_of_them_logs_to_mlflow(arguments, alone, tmp_path):
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    alone(train_estimator, arguments(tmp_path / "one"))
    two_parts = ["--workers", "2", "--accumulate", "2", "--mlflow-uri", uri]
    assert train_estimator.main(arguments(tmp_path / "two", *two_parts)) == 0
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
    assert {"validation_loss", "validation_psnr", "validation_ssim"} <= set(run.data.metrics)
