"""The training commands through Ray Train: train, continue, export, and a preset that uses the result."""

import json
from pathlib import Path

import pytest

from jobs import train_estimator, train_prior
from pipeline.networks.zoo import find_preset, load_network

pytestmark = pytest.mark.timeout(300)
QUICK = [
    "--batch",
    "4",
    "--lr",
    "1e-3",
    "--log-every",
    "1",
    "--checkpoint-every",
    "2",
    "--validate-every",
    "4",
]


def test_a_prior_is_trained_continued_and_exported(preset, shards, tmp_path, capsys):
    output, weights = tmp_path / "prior", tmp_path / "tiny_prior.safetensors"
    common = [
        "--preset",
        preset,
        "--shards",
        shards,
        "--output",
        str(output),
        "--validation-faces",
        "4",
        *QUICK,
    ]
    assert train_prior.main([*common, "--steps", "2", "--mlflow-uri", "none"]) == 0
    assert train_prior.main([*common, "--steps", "4", "--mlflow-uri", "none"]) == 0
    steps = [json.loads(line)["step"] for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert sorted(set(steps)) == [1, 2, 3, 4]
    assert list((output / "samples").glob("*.png"))
    assert train_prior.main(["--preset", preset, "--output", str(output), "--export", str(weights)]) == 0
    load_network(find_preset(preset).prior, weights)
    assert Path(weights).stat().st_size > 10_000


def test_wrong_shards_are_refused_with_one_sentence(preset, tmp_path, capsys):
    code = train_estimator.main(
        [
            "--preset",
            preset,
            "--shards",
            str(tmp_path / "none-*.tar"),
            "--output",
            str(tmp_path / "out"),
            "--steps",
            "2",
        ]
    )
    said = capsys.readouterr().err.strip().splitlines()
    assert code == 2 and said[-1].startswith("error: ")


def test_a_dry_run_says_what_would_be_trained(preset, shards, tmp_path, capsys):
    output = str(tmp_path / "out")
    assert (
        train_estimator.main(["--preset", preset, "--shards", shards, "--output", output, "--dry-run"]) == 0
    )
    assert "12 in 2 shards" in capsys.readouterr().out and not Path(output).exists()
