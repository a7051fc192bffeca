"""What `--background` refuses, and what of the cluster it takes; tests/jobs/test_restore_tasks.py restores with it."""

import pytest
import ray
from photographs import encoded, portrait, write_folder

from jobs import restore as job
from pipeline.restoration.flow import ENHANCERS_PER_GPU, READER_CPUS, fit_resources


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--upscale", "2"), "--upscale 2 delivers what --background makes; give --background"),
        (("--background", "x.pth", "--upscale", "3"), "--upscale must be 1, 2 or 4, got 3"),
        (("--background", "x.pth", "--aligned"), "with --aligned nothing does"),
        (
            ("--background", "x.pth", "--task", "inpaint", "--mask", "alpha"),
            "--task inpaint keeps what is known",
        ),
        (("--background-gpus", "0"), "--background-gpus must be above 0, got 0.0"),
        (
            (
                "--background",
                "x.pth",
                "--background-gpus",
                "0.3",
                "--metrics",
                "all",
                "--metrics-gpus",
                "0.2",
            ),
            "must leave an engine more than half of its GPU",
        ),
    ],
)
def test_whole_picture_options_that_make_no_sense_are_refused(options, sentence, capsys):
    with pytest.raises(SystemExit, match="2"):
        job.main(["--input", "in", "--output", "out", *options])
    assert sentence in capsys.readouterr().err


def test_a_network_of_faces_and_one_that_is_none_are_refused_before_anything_is_written(
    tmp_path, restore, capsys
):
    source = write_folder(tmp_path / "in", {"a.png": encoded(portrait(), "PNG")})
    for name, words in (("small-swinir", "is not known; choose one of"), ("none.pth", "is in none of")):
        assert restore(source, tmp_path / "out", "--background", name) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_on_gpus_the_publishers_have_a_part_that_leaves_no_room_for_two_engines(monkeypatch):
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"GPU": 4.0, "CPU": 32.0})
    plain, _ = fit_resources("auto", 0, 0)
    assert (plain.gpus_per_engine, plain.gpus_per_publisher, plain.cpus_per_publisher) == (1.0, 0.0, 0.5)
    shared, device = fit_resources("auto", 0, 0, background_gpus=0.25)
    assert device == "cuda" and shared.engines == 4
    assert shared.gpus_per_engine > 0.5
    assert shared.gpus_per_engine + ENHANCERS_PER_GPU * shared.gpus_per_publisher <= 1.0
    # a small machine: its engines leave a reader its CPU, however many publishers there are
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"GPU": 2.0, "CPU": 4.0})
    small, _ = fit_resources("auto", 0, 0, background_gpus=0.25)
    publishing = ENHANCERS_PER_GPU * small.engines * small.cpus_per_publisher
    assert small.engines * small.cpus_per_engine + publishing + READER_CPUS <= 4
    on_cpu, _ = fit_resources("cpu", 0, 0, background_gpus=0.25)
    assert (on_cpu.gpus_per_engine, on_cpu.gpus_per_publisher, on_cpu.cpus_per_publisher) == (0.0, 0.0, 1.0)
