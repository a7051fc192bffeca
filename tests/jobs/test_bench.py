"""The benchmark measures what it says, and its tools count what is known."""

import json

import pytest
import torch

from jobs import bench
from pipeline.evaluation import speed
from pipeline.evaluation.speed import UNIT_IMAGES
from pipeline.networks.presets import find_preset
from pipeline.networks.roofline import CallCost, Ceilings, count_call, measure_ceilings

SMALL = ("--preset", "small-srcnn", "--faces", "2", "--start-step", "8", "--repeats", "2")


def test_ways_take_turns_and_ratios_are_printed_and_written(tmp_path, capsys):
    assert bench.main([*SMALL, "--slots", "1,2", "--output", str(tmp_path / "figures.json")]) == 0
    shown = capsys.readouterr().out
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert set(figures["seconds_per_face"]) == {"plain", "engine, 1 slots", "engine, 2 slots"}
    assert all(len(s) == 2 and min(s) > 0 for s in figures["seconds_per_face"].values())
    assert figures["calls_per_face"] == 2
    assert "x plain" in shown and "of limit" in shown and "GFLOP/s" in shown


@pytest.mark.slow
def test_the_pipeline_is_measured_around_a_real_engine(capsys):
    faces = 2 * UNIT_IMAGES
    options = ["--preset", "small-srcnn", "--faces", str(faces), "--start-step", "8", "--repeats", "1"]
    assert bench.main([*options, "--slots", "auto", "--pipeline"]) == 0
    assert "the pipeline takes" in capsys.readouterr().out


def test_memory_is_watched_over_many_faces(tmp_path, capsys):
    options = ["--preset", "small-srcnn", "--start-step", "8", "--soak", "20"]
    assert bench.main([*options, "--output", str(tmp_path / "figures.json")]) == 0
    seen = json.loads((tmp_path / "figures.json").read_text())["rss_mib"]
    assert len(seen) == 10 and min(seen) > 50
    assert capsys.readouterr().out.count("MiB") == 10


def test_levers_are_measured_one_by_one(monkeypatch, capsys):
    monkeypatch.setattr(torch, "compile", lambda network, **_: network)  # takes minutes
    monkeypatch.setattr(speed, "LEVER_SECONDS", 0.0)
    assert bench.main(["--preset", "small-srcnn", "--levers"]) == 0
    shown = capsys.readouterr().out
    for form in ("the UNet as it is", "channels_last", "torch.compile", "folded", "folded, bfloat16"):
        assert form in shown


@pytest.mark.parametrize(
    ("wrong", "sentence"), [(("--slots", "0"), "--slots must be"), (("--faces", "0"), "--faces")]
)
def test_wrong_wishes_exit_with_2(capsys, wrong, sentence):
    with pytest.raises(SystemExit) as stop:
        bench.main([*SMALL, *wrong])
    assert stop.value.code == 2 and sentence in capsys.readouterr().err


def test_a_chain_that_can_not_be_entered_exits_with_2(capsys):
    assert bench.main([*SMALL, "--start-step", "7"]) == 2
    assert "start step 7 is not among" in capsys.readouterr().err


def test_counted_work_is_that_of_the_published_network():
    """378.3 GFLOP was counted by others for six output channels; the three of ε are computed here."""
    cost = count_call(find_preset("difface-512-swinir").prior, 512, torch.float32)
    variance = 2 * 3 * 32 * 9 * 512 * 512
    assert cost.flops + variance == pytest.approx(378.3e9, rel=0.01)
    half = count_call(find_preset("difface-512-swinir").prior, 512, torch.bfloat16)
    assert half.flops == cost.flops and half.bytes == pytest.approx(cost.bytes / 2, rel=0.15)


def test_the_floor_is_the_slower_of_computing_and_moving():
    ceilings = Ceilings(matmul=100.0, copy=10.0)
    assert CallCost(200.0, 10.0).floor(ceilings) == 2 and CallCost(200.0, 50.0).floor(ceilings) == 5
    measured = measure_ceilings("cpu", torch.float32, seconds=0.05)
    assert measured.matmul > 1e9 and measured.copy > 1e8
