"""Two finished runs over the same pictures, compared as people do it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from finished_run import finish_run, picture
from photographs import write_folder, write_tar
from servers import S3Server

from jobs import compare as job
from pipeline.compare import pairs as pairs_module
from pipeline.compare.crops import cut_faces
from pipeline.compare.pairs import columns_of, compare
from pipeline.compare.report import compare_runs, lines, values
from pipeline.compare.run import CompareConfig, failing
from pipeline.compare.runs import caveats, open_compared
from pipeline.io import images, store
from pipeline.records.totals import PER_COLUMN, ShardMetrics

SHADES = range(20, 120, 10)


def plain_folder(place: Path, shades=SHADES, name: str = "{}.png") -> Path:
    return write_folder(place, {name.format(s): picture(s) for s in shades})


def sharper(by: float, level: int = 0):
    """Restores a face of shade s to s + level, and measures a sharpness of s + by."""
    return lambda shade, face: (shade + level, {"sharpness_after": shade + by, "sharpness_before": 5.0})


def run_job(output: Path, a: Path, b: Path, *options: str) -> tuple[int, dict[str, Any]]:
    """Exit code, and what compare.json says."""
    code = job.main([str(a), str(b), "--output", str(output), "--mlflow-uri", "none", *options])
    file = output / "compare.json"
    return code, json.loads(file.read_bytes()) if file.exists() else {}


def held_together(a: Path, b: Path, by: str | None = None, shown: int = 4) -> dict[str, Any]:
    """What compare.json says, without drawing anything."""
    return values(compare_runs(open_compared(str(a)), open_compared(str(b)), by, shown, sampled=10))


@pytest.fixture
def runs(tmp_path) -> tuple[Path, Path]:
    """Ten pictures of two faces; B is sharper by 3, and 1 more in every second face."""
    source = plain_folder(tmp_path / "in")
    a = finish_run(source, tmp_path / "a", sharper(0), faces=2)
    b = finish_run(
        source,
        tmp_path / "b",
        lambda s, f: (s + 40, {"sharpness_after": s + 3.0 + f, "sharpness_before": 5.0}),
        faces=2,
        eta=1.0,
    )
    return a, b


def test_a_comparison_says_what_changed_and_leaves_page_pictures_and_values(runs, capsys):
    gate = ("--fail-if", "sharpness_after>3", "--faces", "4")
    assert job.main([*map(str, runs), "--mlflow-uri", "none", *gate]) == 5
    output = runs[1] / "compare" / "a"
    found = json.loads((output / "compare.json").read_bytes())
    sharpness = found["metrics"]["sharpness_after"]
    assert (sharpness["difference"], sharpness["faces"], sharpness["images"]) == (3.5, 20, 10)
    # the same in every picture
    assert (sharpness["low"], sharpness["high"]) == pytest.approx((3.5, 3.5))
    assert (sharpness["rose"], sharpness["verdict"]) == (1.0, "B higher")
    assert found["metrics"]["sharpness_before"]["verdict"] == "the same"
    assert found["settings"] == [{"name": "eta", "a": 0.5, "b": 1.0}]
    assert found["seconds_per_face"]["a"]["restore"] == 2.0
    assert found["outcomes"]["restored"]["difference"] == 0 and found["moves"]["restored"]["restored"] == 10
    assert {p.name for p in output.iterdir()} == {
        "compare.json", "differences.png", "faces.png", "index.html"
    }  # fmt: skip
    shown = capsys.readouterr().out
    assert "10 images in both (0 only in A, 0 only in B), 20 faces restored by both" in shown
    assert "eta: 0.5 → 1.0" in shown and "fail: sharpness_after differs by +3.5, which is > 3" in shown
    page = (output / "index.html").read_text()
    assert page.count("data:image/png;base64,") == 2 and "+3.5 … +3.5" in page


def test_faces_are_known_by_their_bytes_and_not_by_name_order_or_shard(tmp_path):
    """Renamed, in two tars, in other units, with copies; each archive with a picture that the other lacks."""
    a = finish_run(plain_folder(tmp_path / "in", range(20, 120, 10)), tmp_path / "a", sharper(0))
    members = [(f"x{200 - s}.png", picture(s)) for s in range(30, 130, 10)]
    write_tar(tmp_path / "tars" / "one.tar", [*members[:6], ("copy.png", picture(30))])
    write_tar(tmp_path / "tars" / "two.tar", members[6:])
    b = finish_run(
        tmp_path / "tars", tmp_path / "b", lambda s, f: (s, {"sharpness_after": 2.0 * s}), unit_images=3
    )
    found = held_together(a, b)
    shared = found["shared"]
    assert (shared["images"], shared["faces"]) == (9, 9)
    assert (shared["images_only"], shared["copies"]) == ([1, 1], [0, 1])
    assert found["metrics"]["sharpness_after"]["difference"] == np.mean(range(30, 120, 10))
    by_shard = {s["shard"]: (s["images"], s["sharpness_after"]) for s in found["shards"]}
    assert by_shard == {"one": (6, np.mean(range(30, 90, 10))), "two": (3, 100.0)}


def test_many_parts_on_disk_give_what_one_part_gives(runs, monkeypatch):
    a, b = (open_compared(str(r)) for r in runs)
    names = columns_of(a)
    whole = compare(a, b, names)
    monkeypatch.setattr(pairs_module, "PART_ROWS", 2)
    monkeypatch.setattr(pairs_module, "PENDING_ROWS", 5)
    apart = compare(a, b, names)
    assert vars(apart.tally) == vars(whole.tally)
    for one, other in zip(whole.sums + whole.outcomes, apart.sums + apart.outcomes, strict=True):
        in_parts, at_once = other.paired(), one.paired()
        # none of these faces has samples or a predicted error, so that nothing is measured of them
        assert (in_parts is None) == (at_once is None)
        if in_parts is not None:
            assert vars(in_parts) == pytest.approx(vars(at_once))
    assert {n for n, s in zip(names, whole.sums, strict=True) if s.paired() is None} <= {
        "predicted_error",
        "samples",
        "spread",
        "spread_identity",
    }
    assert apart.sample.tobytes() == whole.sample.tobytes()
    assert [len(p) for p in apart.rose] == [len(p) for p in whole.rose]


@pytest.mark.parametrize("kind", ["folder", "tar", "parquet"])
@pytest.mark.parametrize("saved", [True, False])
def test_crops_come_from_saved_faces_or_from_delivered_pictures(tmp_path, kind, saved):
    contents = [picture(s) for s in (30, 60, 90)]
    if kind == "folder":
        source = plain_folder(tmp_path / "in", (30, 60, 90))
    elif kind == "tar":
        # what is no picture does not count
        members = [
            (f"{i}.{e}", c if e == "png" else b"x") for i, c in enumerate(contents) for e in ("cls", "png")
        ]
        source = write_tar(tmp_path / "in" / "s.tar", members).parent
    else:
        source = tmp_path / "in"
        source.mkdir()
        pq.write_table(pa.table({"image": contents}), source / "s.parquet")
    outputs = [
        finish_run(source, tmp_path / name, sharper(0, level), save_faces=saved, unit_images=2)
        for name, level in (("a", 10), ("b", 50))
    ]
    a, b = (open_compared(str(o)) for o in outputs)
    faces = cut_faces(a, b, compare(a, b, columns_of(a)).sample)
    levels = sorted(tuple(int(c[16, 16, 0]) for c in (f.before, f.a, f.b)) for f in faces)
    assert levels == [(30, 40, 80), (60, 70, 110), (90, 100, 140)]
    # of the network's own crop every pixel, of the pasted one those that do not fade out
    assert all(f.distance == 40 if saved else 20 < f.distance < 40 for f in faces)


def test_crops_are_cut_out_of_pictures_that_were_enlarged(tmp_path):
    source = plain_folder(tmp_path / "in", (30,))
    a = finish_run(source, tmp_path / "a", sharper(0))
    b = finish_run(source, tmp_path / "b", sharper(1), background={"upscale": 2})
    large = np.full((160, 160, 3), 10, np.uint8)
    large[:, 80:] = 200
    (b / "images" / "30.png").write_bytes(images.encode_png(large))
    a, b = (open_compared(str(o)) for o in (a, b))
    [face] = cut_faces(a, b, compare(a, b, columns_of(a)).sample)
    assert np.all(face.before == 30)
    assert np.all(face.b[:, :15] == 10) and np.all(face.b[:, 17:] == 200) and face.b.shape == (32, 32, 3)


def test_what_is_gone_from_the_archive_is_shown_as_missing(runs, tmp_path):
    for file in (tmp_path / "in").iterdir():
        file.write_bytes(b"other bytes")
    for file in (runs[0] / "images").iterdir():
        file.unlink()
    a, b = (open_compared(str(r)) for r in runs)
    [face, *_] = cut_faces(a, b, compare(a, b, columns_of(a)).sample[:1])
    assert face.before is None and face.a is None and face.b is not None
    assert held_together(*runs)["pixels"] is None


def test_chosen_faces_are_those_that_changed_most_either_way(tmp_path):
    source = plain_folder(tmp_path / "in")
    a = finish_run(source, tmp_path / "a", sharper(0))
    b = finish_run(source, tmp_path / "b", lambda s, f: (s, {"sharpness_after": s + (s - 62.0)}))
    found = held_together(a, b, "sharpness_after", 4)
    shown = [(f["panel"], f["member"]) for f in found["faces"]]
    assert shown == [
        ("sharpness after rose most", "110.png"), ("sharpness after rose most", "100.png"),
        ("sharpness after fell most", "20.png"), ("sharpness after fell most", "30.png"),
    ]  # fmt: skip


def test_outcomes_are_held_together_image_by_image(tmp_path):
    source = plain_folder(tmp_path / "in")
    a = finish_run(source, tmp_path / "a", sharper(0))
    b = finish_run(source, tmp_path / "b", lambda s, f: None if s < 50 else (s, {}))
    found = held_together(a, b)
    assert found["moves"]["restored"] == {"restored": 7, "no_face": 0, "skipped": 0, "failed": 3}
    failed = found["outcomes"]["failed"]
    assert (failed["a"], failed["b"], failed["difference"]) == (0, 0.3, 0.3)
    assert failed["low"] < 0 < failed["high"] < 1
    assert (found["shared"]["faces"], found["shared"]["restored_only"]) == (7, [3, 0])
    assert [s["other_outcome"] for s in found["shards"]] == [3]


def test_a_face_that_lies_elsewhere_is_another_face(tmp_path):
    source = plain_folder(tmp_path / "in")
    a = finish_run(source, tmp_path / "a", sharper(0), faces=2)
    b = finish_run(
        source, tmp_path / "b", sharper(1), faces=2, boxes=lambda f: [0.0, 0, 80, 80] if f else [70.0, 70, 80, 80]
    )  # fmt: skip
    found = held_together(a, b)
    assert (found["shared"]["faces"], found["shared"]["other_faces"]) == (10, 10)


def test_of_runs_with_other_sides_and_methods_only_what_means_the_same_is_compared(tmp_path):
    source = plain_folder(tmp_path / "in")
    a = finish_run(source, tmp_path / "a", sharper(0), method="difface")
    b = finish_run(source, tmp_path / "b", sharper(1), preset_side=64, method="estimator")
    found = held_together(a, b)
    assert {"sharpness_after", "distance"} <= found["left_out"].keys()
    assert {"score", "start_step"} <= found["metrics"].keys() and found["pixels"]["faces"] == 10
    shown = "\n".join(lines(found))
    assert "Crops of A have 32 pixels to a side and those of B 64" in shown
    assert "method is difface in A and estimator in B" in shown


def test_landmarks_of_different_models_are_named_as_not_compared(runs):
    a, b = (open_compared(str(run)) for run in runs)

    def measured(run, *columns):
        sums = {f"{column}/{name}": 2.0 for column in columns for name in PER_COLUMN}
        return replace(run, totals=ShardMetrics(run.totals.counts, {**run.totals.sums, **sums}))

    [sentence] = caveats(measured(a, "lmd", "psnr"), measured(b, "lmd_mesh", "psnr"))
    assert sentence == (
        "Landmarks are by dlib's 68-point model in A and by MediaPipe's face mesh in B: they are not compared."
    )
    assert caveats(measured(a, "lmd", "lmd_mesh"), measured(b, "lmd_mesh")) == []
    assert caveats(measured(a, "lmd"), b) == []


def test_a_gate_holds_where_the_difference_lies_beyond_its_bound():
    config = CompareConfig(("a", "b"), fail_if="lpips>0.01, psnr<-0.5,outcome_failed>0")
    assert list(failing(config, {"lpips": 0.01, "psnr": -0.5})) == []
    assert list(failing(config, {"lpips": 0.02, "psnr": 3, "outcome_failed": 0.1})) == [
        "lpips differs by +0.02, which is > 0.01", "outcome_failed differs by +0.1, which is > 0"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--by", "lpips"], "--by lpips: one of pixels, sharpness_after"),
        (["--fail-if", "lpips>0"], "--fail-if lpips: expected one of sharpness_after"),
    ],
)
def test_a_measurement_that_is_not_there_is_refused(runs, tmp_path, capsys, options, part):
    code, found = run_job(tmp_path / "out", *runs, *options)
    assert (code, found) == (2, {}) and part in capsys.readouterr().err


def test_what_can_not_be_compared_is_refused_in_one_sentence(runs, tmp_path, capsys):
    others = finish_run(plain_folder(tmp_path / "other", (1, 2)), tmp_path / "c", sharper(0))
    (tmp_path / "empty").mkdir()
    marker = next((runs[0] / "_ledger" / "done").rglob("*.json"))
    body = marker.read_bytes()
    marker.unlink()
    places = {
        "have none in common": (runs[1], others),
        "holds no run": (runs[1], tmp_path / "empty"),
        "there is nothing of that name": (runs[1], tmp_path / "nowhere"),
        "two different runs, both are": (runs[1], runs[1]),
        "2 of 3 units are done": runs,
    }
    for part, pair in places.items():
        assert run_job(tmp_path / "out", *pair)[0] == 2
        said = capsys.readouterr().err
        assert part in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()
    code, found = run_job(tmp_path / "out", *runs, "--partial", "--faces", "2")
    assert code == 0 and found["shared"]["images"] < 10
    assert any("A is not finished: 2 of 3 units" in r for r in found["reservations"])
    marker.write_bytes(body)
    next((runs[0] / "records").iterdir()).write_bytes(b"PAR1")
    assert run_job(tmp_path / "again", *runs)[0] == 2
    assert "expected a record table, it cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["a"], ["a", "b", "--faces", "1"], ["a", "b", "--fail-if", "lpips=1"]])
def test_bad_arguments_exit_two(argv, capsys):
    with pytest.raises(SystemExit) as exit:
        job.main(argv)
    assert exit.value.code == 2 and capsys.readouterr().err.startswith("error: ")


def test_mlflow_finds_runs_by_name_and_gets_the_differences(runs, tmp_path, monkeypatch, capsys):
    from mlflow import MlflowClient

    from pipeline.tracking.tracker import RunTracker

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    state = f"{runs[0]}/_ledger/tracking.json"
    tracker = RunTracker.open(uri, "restore", "base line", params={"output": runs[0]}, state_uri=state)
    assert tracker.finish() == 0
    monkeypatch.chdir(tmp_path)  # no file is called as the run is
    options = ["--mlflow-uri", uri, "--output", str(tmp_path / "out"), "--faces", "2"]
    assert job.main(["base line", str(runs[1]), *options]) == 0
    client = MlflowClient(uri)
    [tracked] = client.search_runs([client.get_experiment_by_name("difface-compare").experiment_id])
    found = json.loads((tmp_path / "out" / "compare.json").read_bytes())
    assert tracked.data.tags["run_a"] == found["a"]["mlflow_run_id"] == tracker.run_id
    assert tracked.data.tags["fingerprint_b"] == found["b"]["fingerprint"]
    assert tracked.data.metrics["diff/sharpness_after"] == 3.5
    assert {f.path for f in client.list_artifacts(tracked.info.run_id)} >= {"index.html", "faces.png"}
    assert job.main([str(runs[1]), "nobody", *options]) == 2
    assert "mlflow.db, none has that name" in capsys.readouterr().err


def test_a_run_on_s3_is_compared_there_and_the_page_written_there(runs, s3: S3Server):
    for file in runs[1].rglob("*"):
        if file.is_file():
            name = file.relative_to(runs[1]).as_posix()
            store.write_bytes(f"{s3.uri}/compared/{name}", file.read_bytes())
    argv = [str(runs[0]), f"{s3.uri}/compared/", "--mlflow-uri", "none", "--faces", "2"]
    assert job.main(argv) == 0
    found = json.loads(store.read_bytes(f"{s3.uri}/compared/compare/a/compare.json"))
    assert found["metrics"]["sharpness_after"]["difference"] == 3.5
    assert found["pixels"]["faces"] == 20
    assert store.exists(f"{s3.uri}/compared/compare/a/index.html")
