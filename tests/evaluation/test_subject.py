"""A benchmark restores faces as jobs.restore does: the same networks, chain and hold."""

import json

import pyarrow.parquet as pq
import pytest
import torch
from in_process import flows

from jobs import restore
from pipeline.console.options import UsageError
from pipeline.evaluation.job_cost import restore_arguments
from pipeline.evaluation.speed import write_faces
from pipeline.evaluation.subject import BenchConfig, Subject
from pipeline.io import layout
from pipeline.networks.presets import PRESETS


@pytest.mark.parametrize(
    ("preset", "start_step", "calls", "hold"),
    [("portrait", 152, 3, 1.5), pytest.param("small-srcnn", 8, 2, 0.0, marks=pytest.mark.slow)],
)
def test_the_job_makes_as_many_calls_a_face_as_the_engine_and_holds_as_much(
    preset, start_step, calls, hold, tmp_path
):
    """The preset's own table would give the faces other chains, and its calls are fewer than there are steps."""
    config = BenchConfig(preset=preset, start_step=start_step, faces=2)
    subject = Subject(config)
    write_faces(subject, tmp_path)
    with flows():
        assert restore.main(restore_arguments(config.restoration, tmp_path / "in", tmp_path / "out")) == 0
    tables = [pq.read_table(path) for path in (tmp_path / "out" / layout.RECORDS).rglob("*.parquet")]
    faces = [row for table in tables for row in table.to_pylist() if row["kind"] == "face"]
    assert len(faces) == 2 and subject.treatment.steps == calls and subject.treatment.hold == hold
    for face in faces:
        assert (face["treatment"], face["calls"], face["hold"]) == ("chain", calls, hold)
        assert face["start_step"] == start_step == subject.schedule.t[subject.treatment.chain.start]
        # the crop is the picture
        assert face["scale"] == 1 and face["eta"] == subject.job(0).eta
    run = json.loads((tmp_path / "out" / layout.RUN).read_text())
    assert run["precision"] == str(subject.precision).removeprefix("torch.")


def test_networks_without_a_file_are_drawn_and_their_output_is_not_zero(tmp_path):
    text = (PRESETS / "small-srcnn.toml").read_text()
    text = text.replace("small_prior.safetensors", "nowhere_1.safetensors")
    (tmp_path / "nowhere.toml").write_text(text.replace("small_srcnn.safetensors", "nowhere_2.safetensors"))
    subject = Subject(BenchConfig(preset=str(tmp_path / "nowhere.toml"), start_step=8, faces=1))
    with torch.inference_mode():
        out = subject.prior(torch.randn(1, 3, 64, 64), torch.tensor([4]))
        estimated = subject.estimator(torch.rand(1, 3, 64, 64))
    assert out.isfinite().all() and out.std() > 0 and estimated.std() > 0


def test_the_official_programs_use_is_always_among_the_plain_loops():
    assert BenchConfig().plain_variants == [("float32", 1)]
    more = BenchConfig(plain_batches="1,4", plain_precisions="bfloat16,float32")
    assert more.plain_variants == [
        ("float32", 1), ("bfloat16", 1), ("bfloat16", 4), ("float32", 4),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"plain_batches": "0"}, "--plain-batches must be numbers above 0, got 0"),
        ({"plain_precisions": "float64"}, "--plain-precisions must be among float32, bfloat16, float16"),
    ],
)
def test_plain_loops_that_there_are_not_are_refused(wrong, sentence):
    with pytest.raises(UsageError, match=sentence):
        BenchConfig(**wrong)
