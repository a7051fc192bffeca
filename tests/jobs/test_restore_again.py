"""What a further start does with an output: refused beside another one, begun anew, changed pictures done again."""

import json
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient
from photographs import portraits, read_folder, write_folder

from pipeline.io import store
from pipeline.ledger.lease import Lease
from pipeline.ledger.status import Observer
from pipeline.restoration import run

pytestmark = pytest.mark.usefixtures("without_ray")

OPTIONS = ("--unit-images", "1", "--shard-images", "2")


@pytest.fixture
def photos(tmp_path) -> Path:
    return write_folder(tmp_path / "photos", portraits(4))


def tracked(output: Path, uri: str) -> tuple[str, list[int]]:
    """The output's MLflow run, and the steps that it has."""
    run_id = json.loads((output / "_ledger" / "tracking.json").read_text())["run_id"]
    return run_id, sorted(p.step for p in MlflowClient(uri).get_metric_history(run_id, "images"))


def test_an_output_that_somebody_works_on_is_refused_and_left_alone(photos, tmp_path, restore, capsys):
    output = tmp_path / "out"
    with Lease.take(str(output), print):
        before = read_folder(output)
        assert restore(photos, output, *OPTIONS) == 2
        assert "error: out is being worked on by process" in capsys.readouterr().err
        assert read_folder(output) == before


def test_an_output_can_be_given_to_a_new_run(photos, tmp_path, restore, capsys):
    output = tmp_path / "out"
    assert restore(photos, output, *OPTIONS, "--save-faces") == 0
    before = tracked(output, restore.mlflow_uri)
    assert restore(photos, output, *OPTIONS, "--seed", "1") == 2
    assert "seed: 0 → 1" in capsys.readouterr().err
    assert restore(photos, output, *OPTIONS, "--seed", "1", "--new-run") == 0
    assert restore(photos, tmp_path / "fresh", *OPTIONS, "--seed", "1") == 0
    for folder in ("images", "records", "report/samples"):
        assert read_folder(output / folder) == read_folder(tmp_path / "fresh" / folder)
    assert not read_folder(output / "faces")
    after = tracked(output, restore.mlflow_uri)
    assert (after[0] != before[0], after[1]) == (True, [1, 2])
    # the same command again goes on with the new run
    assert restore(photos, output, *OPTIONS, "--seed", "1", "--new-run") == 0
    assert "going on with 0 units" in capsys.readouterr().err


def test_changed_pictures_are_refused_or_done_again_and_further_ones_simply_done(
    photos, tmp_path, restore, capsys
):
    output = tmp_path / "out"
    assert restore(photos, output, *OPTIONS) == 0
    untouched = (output / "_ledger/done/images-00000/0000.json").read_bytes()
    other = portraits(6)
    (photos / "p01.png").write_bytes(other["p05.png"])
    (photos / "p09.png").write_bytes(other["p04.png"])
    assert restore(photos, output, *OPTIONS) == 2
    assert "p01.png has changed since this output was planned" in capsys.readouterr().err
    assert restore(photos, output, *OPTIONS, "--redo-changed") == 0
    assert "going on with 2 units" in capsys.readouterr().err
    assert (output / "_ledger/done/images-00000/0000.json").read_bytes() == untouched
    assert restore(photos, tmp_path / "fresh", *OPTIONS) == 0
    assert read_folder(output / "images") == read_folder(tmp_path / "fresh" / "images")
    [changed] = pq.read_table(
        output / "records/images-00000-0001.parquet", filters=[("face", "=", -1)]
    ).to_pylist()
    assert (changed["member"], changed["attempts"]) == ("p01.png", 2)


def test_an_output_that_takes_nothing_ends_the_run_and_the_same_command_completes_it(
    photos, tmp_path, restore, capsys
):
    output = tmp_path / "out"
    write_folder(output, {"records": b"a file where the folder goes"})
    began = time.time()
    assert restore(photos, output, *OPTIONS) == 1
    said = capsys.readouterr().err
    assert (
        "warning: unit images-00000-0000 is not done, the next start does it again: could not write" in said
    )
    assert "of 4 planned images 0 are accounted for" in said
    last = json.loads((output / "_ledger/drivers/0001.json").read_text())
    assert last["exit_code"] == 1 and last["ended_at"] >= began
    (output / "records").unlink()
    assert restore(photos, output, *OPTIONS) == 0
    assert tracked(output, restore.mlflow_uri)[1] == [1, 2]


def test_a_disk_that_is_full_at_the_end_closes_everything_and_is_named(
    photos, tmp_path, restore, capsys, monkeypatch
):
    def full(output: str, *_: object) -> None:
        raise store.StoreFull(f"could not write {output}/report: the disk is full; make room")

    output = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(run, "write_report", full)
        assert restore(photos, output, *OPTIONS) == 1
    shown = capsys.readouterr()
    assert "report: the disk is full; make room\n" in shown.err
    assert "4  of 4 planned" in shown.out and "exit code" in shown.out
    run_id, _ = tracked(output, restore.mlflow_uri)
    assert MlflowClient(restore.mlflow_uri).get_run(run_id).info.status == "FAILED"
    assert Observer(str(output)).look().ended_by.endswith("the disk is full; make room")
    assert restore(photos, output, *OPTIONS) == 0
    assert MlflowClient(restore.mlflow_uri).get_run(run_id).info.status == "FINISHED"
    assert Observer(str(output)).look().ended_by == ""
