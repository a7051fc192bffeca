"""The benchmark measures what it says."""

import json

import pytest
import torch

from jobs import bench
from pipeline.evaluation import speed
from pipeline.evaluation.speed import UNIT_IMAGES

SMALL = ("--preset", "small-srcnn", "--faces", "2", "--start-step", "8", "--repeats", "2")


def test_ways_take_turns_and_ratios_are_printed_and_written(tmp_path, capsys):
    assert bench.main([*SMALL, "--slots", "1,2", "--output", str(tmp_path / "figures.json")]) == 0
    shown = capsys.readouterr().out
    figures = json.loads((tmp_path / "figures.json").read_text())
    names = {"plain, float32, batch 1", "engine, 1 slots", "engine, 2 slots"}
    for key in ("seconds_per_face", "cpu_seconds_per_face"):
        assert set(figures[key]) == names
        assert all(len(s) == 2 and min(s) > 0 for s in figures[key].values())
    assert figures["calls_per_face"] == 2
    floor = figures["floor"]
    assert 0 < floor["fused_seconds_per_face"] <= floor["seconds_per_face"]
    assert sum(floor["shares"].values()) == pytest.approx(1)
    for part in ("x plain", "x best", "of limit", "GFLOP/s", "convolution", "copies"):
        assert part in shown


@pytest.mark.slow
def test_plain_loops_of_other_batches_and_number_types_are_measured(tmp_path, capsys):
    plain = [
        "--plain-batches",
        "2",
        "--plain-precisions",
        "float32,bfloat16",
        "--slots",
        "1",
        "--repeats",
        "1",
    ]
    assert bench.main([*SMALL, *plain, "--output", str(tmp_path / "figures.json")]) == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert list(figures["seconds_per_face"]) == [
        "plain, float32, batch 1",
        "plain, float32, batch 2",
        "plain, bfloat16, batch 2",
        "engine, 1 slots",
    ]
    shown = capsys.readouterr().out
    assert all(name in shown for name in figures["seconds_per_face"])


def test_ratios_are_to_the_official_programs_use_and_to_the_best_plain_loop():
    seconds = {"plain, float32, batch 1": [4.0], "plain, float32, batch 4": [2.0], "engine, 8 slots": [1.0]}
    ceilings = {"matmul": 1e9, "copy": 1e9}
    floor = {"seconds_per_face": 0.5, "fused_seconds_per_face": 0.4, "shares": {"convolution": 1.0}}
    figures = {
        "preset": "p", "device": "cpu", "precision": "float32", "cores": 2, "calls_per_face": 1,
        "seconds_per_face": seconds, "cpu_seconds_per_face": seconds, "slot_fill_while_faces_wait": None,
        "call": {"faces": 1, "flops": 1e9, "bytes": 1e9}, "ceilings": ceilings, "floor": floor,
    }  # fmt: skip
    rows = {line[:26].rstrip(): line[26:].split() for line in speed.table(figures).splitlines()}
    assert rows["engine, 8 slots"] == ["1.0000", "1.0000", "4.00", "4.00", "-", "4.00", "2.00", "50%"]
    assert rows["plain, float32, batch 1"][5:] == ["1.00", "0.50", "12%"]


@pytest.mark.slow
def test_the_pipeline_is_measured_around_a_real_engine(capsys):
    faces = 2 * UNIT_IMAGES
    options = ["--preset", "small-srcnn", "--faces", str(faces), "--start-step", "8", "--repeats", "1"]
    assert bench.main([*options, "--slots", "auto", "--pipeline"]) == 0
    shown = capsys.readouterr().out
    assert "times the CPU time of 'engine, 8 slots'" in shown
    for role in ("engine", "driver", "reading and publishing", "Ray's daemons"):
        assert f"\n  {role} " in shown


@pytest.mark.slow
def test_memory_is_watched_over_many_faces(tmp_path, capsys):
    options = ["--preset", "small-srcnn", "--start-step", "8", "--soak", "20"]
    assert bench.main([*options, "--output", str(tmp_path / "figures.json")]) == 0
    seen = json.loads((tmp_path / "figures.json").read_text())["rss_mib"]
    assert len(seen) == 10 and min(seen) > 50
    assert capsys.readouterr().out.count("MiB") == 10


@pytest.mark.slow
def test_levers_are_measured_one_by_one(monkeypatch, capsys):
    monkeypatch.setattr(torch, "compile", lambda network, **_: network)  # takes minutes
    monkeypatch.setattr(speed, "LEVER_SECONDS", 0.0)
    assert bench.main(["--preset", "small-srcnn", "--levers"]) == 0
    shown = capsys.readouterr().out
    for form in ("the UNet as it is", "channels_last", "torch.compile", "folded", "folded, bfloat16"):
        assert form in shown


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (("--slots", "0"), "--slots must be"),
        (("--faces", "0"), "--faces"),
        (("--plain-batches", "x"), "--plain-batches must be"),
    ],
)
def test_wrong_wishes_exit_with_2(capsys, wrong, sentence):
    with pytest.raises(SystemExit) as stop:
        bench.main([*SMALL, *wrong])
    assert stop.value.code == 2 and sentence in capsys.readouterr().err


def test_a_job_of_one_unit_exits_with_2(capsys):
    assert bench.main([*SMALL, "--pipeline"]) == 2
    assert f"--faces {2 * UNIT_IMAGES}, got 2" in capsys.readouterr().err


def test_a_chain_that_can_not_be_entered_exits_with_2(capsys):
    assert bench.main([*SMALL, "--start-step", "7"]) == 2
    assert "start step 7 is not among" in capsys.readouterr().err
