"""The whole cleaning: a first version, nothing new, a next version, starts that are killed, doubled or forbidden."""

import json
import os
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from photographs import encoded, portrait, write_folder, write_tar
from PIL import Image, ImageFilter
from skimage import data

from jobs import clean as job
from jobs import status
from pipeline.cleaning import run
from pipeline.console.commands import BUSY, GATE_BROKEN
from pipeline.io import store
from pipeline.io.shards import cut_units, list_input, make_shards, sample_key
from pipeline.ledger.lease import Lease

pytestmark = pytest.mark.usefixtures("without_ray")

FACE = portrait(200, 220)
BLURRED = FACE.filter(ImageFilter.GaussianBlur(3))
OTHER = Image.fromarray(data.astronaut()).crop((60, 0, 400, 330))
FILES = {
    "a/sharp.png": encoded(FACE, "PNG"),
    "b/copy.png": encoded(FACE, "PNG"),
    "b/smaller.jpg": encoded(FACE.resize((140, 154)), "JPEG", quality=80),
    "blurred.png": encoded(BLURRED.transpose(Image.Transpose.FLIP_LEFT_RIGHT), "PNG"),
    "broken.jpg": encoded(FACE, "JPEG")[:700],
    "cat.jpg": encoded(Image.fromarray(data.chelsea()), "JPEG"),
    "dark.png": encoded(FACE.point(lambda v: v // 6), "PNG"),
}
VERDICTS = {
    "a/sharp.png": ("keep", "sharp"),
    "b/copy.png": ("drop", "exact_duplicate"),
    "b/smaller.jpg": ("drop", "near_duplicate"),
    "blurred.png": ("repair", "blurred"),
    "broken.jpg": ("drop", "unreadable"),
    "cat.jpg": ("drop", "no_face"),
    "dark.png": ("drop", "too_dark"),
}


@dataclass(frozen=True)
class CleanJob:
    """The cleaning job in this process, on one local Ray."""

    mlflow_uri: str
    policy: str

    def __call__(self, source: object, output: object, *options: str) -> int:
        places = ["--input", str(source), "--output", str(output), "--mlflow-uri", self.mlflow_uri]
        return job.main([*places, "--policy", self.policy, *options])


@pytest.fixture(scope="module")
def clean(restore, tmp_path_factory) -> CleanJob:
    """The job with the quick method, on the Ray of the restoring job."""
    policy = tmp_path_factory.mktemp("clean") / "policy.toml"
    policy.write_text(
        '[restore]\npreset = "small-srcnn"\nsteps = "ddim50"\nstart_step = 60\ngate = "off"\nunit_images = 4\n'
    )
    return CleanJob(restore.mlflow_uri, str(policy))


def rows(output: object, number: int) -> dict[str, dict]:
    """A version's pictures by name."""
    version = json.loads(store.read_bytes(f"{output}/versions/{number:04d}.json"))
    with store.open_read(f"{output}/{version['manifest']}") as file:
        return {row["name"]: row for row in pq.read_table(file).to_pylist()}


def verdicts(output: object, number: int) -> dict[str, tuple[str, str]]:
    return {name: (row["verdict"], row["reason"]) for name, row in rows(output, number).items()}


def versions(output: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (output / "versions").iterdir()}


@pytest.fixture(scope="module")
def first(clean, tmp_path_factory) -> tuple[Path, Path]:
    """A dataset and its first version."""
    place = tmp_path_factory.mktemp("first")
    write_folder(place / "in", FILES)
    assert clean(place / "in", place / "out") == 0
    return place / "in", place / "out"


def test_each_picture_has_its_verdict_and_the_blurred_one_a_repaired_copy(first):
    source, output = first
    assert verdicts(output, 1) == VERDICTS
    found = rows(output, 1)
    assert (found["b/copy.png"]["repeats"], found["b/smaller.jpg"]["repeats"]) == ("a/sharp.png",) * 2
    assert [name for name, row in found.items() if row["repaired"]] == ["blurred.png"]
    before = np.asarray(Image.open(source / "blurred.png")).astype(int)
    after = np.asarray(Image.open(output / found["blurred.png"]["repaired"])).astype(int)
    assert before.shape == after.shape
    assert np.abs(before - after).max() > 8


def test_the_report_shows_every_reason_and_says_it_to_machines(first):
    report = first[1] / "reports" / "0001"
    shown = {p.name for p in report.iterdir()}
    assert {f"grid-{reason}.png" for _, reason in VERDICTS.values()} <= shown
    assert {"index.html", "funnel.png", "histograms.png"} <= shown
    told = json.loads((report / "summary.json").read_bytes())
    assert told["version"] == json.loads((first[1] / "versions" / "0001.json").read_bytes())
    assert (told["metrics"]["images"], told["metrics"]["share.repair"]) == (7, 1 / 7)


def test_the_status_of_a_finished_cleaning_is_complete(first, capsys):
    _, output = first
    assert status.main(["--output", str(output)]) == 0
    shown = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "out, a cleaning, version 1" in shown and "pictures 7 in version 1" in shown
    assert any(line.startswith("broken.jpg [") for line in shown)
    assert json.loads((output / "_ledger" / "cleaning.json").read_text())["phase"] == "writing"


def test_nothing_new_is_said_quickly_and_starts_no_cluster(first, clean, capsys, monkeypatch):
    source, output = first
    before = versions(output)
    monkeypatch.setattr(run, "connect", lambda *_: pytest.fail("a cluster was asked for"))
    began = time.monotonic()
    assert clean(source, output) == 0
    assert "nothing new since version 1" in capsys.readouterr().err
    assert versions(output) == before
    assert clean(source, output, "--fail-if", "no_face>0.1,new.drop<0.5") == GATE_BROKEN
    assert "gate broken: no_face>0.1" in capsys.readouterr().err
    assert time.monotonic() - began < 60  # a cluster alone takes a good part of that on a busy machine


def test_a_doubled_start_says_that_another_is_at_work(first, clean, capsys):
    source, output = first
    with Lease.take(str(output), lambda _: None) as other:
        assert clean(source, output, "--min-side", "70") == BUSY
        other.withdraw()
    assert "is being worked on by process" in capsys.readouterr().err


def test_versions_of_another_dataset_are_not_continued(first, clean, capsys):
    assert clean(first[0] / "a", first[1]) == 2
    assert f"has versions of {first[0]}, not of {first[0] / 'a'}" in capsys.readouterr().err


@pytest.mark.slow
def test_starts_that_die_leave_no_version_and_the_next_makes_the_same(first, clean, monkeypatch):
    source, output = first
    again = output.parent / "again"

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    for place in ("assign_verdicts", "settle_method", "with_repairs", "write_report", "write_version"):
        with monkeypatch.context() as patch:
            patch.setattr(run, place, die)
            assert clean(source, again) == 130
        assert not (again / "versions" / "0001.json").exists()
        assert len(list((again / "measurements").rglob("*.parquet"))) == 2
        monkeypatch.setattr(run, "run_tasks", lambda *_: pytest.fail("it was measured twice"))
    assert clean(source, again) == 0
    assert versions(again) == versions(output)


def test_a_dry_run_measures_without_version_repair_or_cost(first, clean, tmp_path, capsys):
    output = tmp_path / "out"
    assert clean(first[0], output, "--dry-run", "--fail-if", "repair>0.5") == 0
    assert sorted(p.name for p in output.iterdir()) == ["_ledger", "measurements", "reports"]
    cost = json.loads((output / "reports" / "census" / "summary.json").read_bytes())["cost"]
    assert cost["faces_to_repair"] == 1
    assert cost["gpu_seconds"] > 0


def test_what_comes_and_goes_makes_a_next_version(first, clean):
    """The last test that uses the first version's dataset: it changes it."""
    source, output = first
    before = versions(output)
    (source / "a/sharp.png").unlink()
    # nearly the same as what is kept, and better: it came too late
    better = BLURRED.transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((400, 440))
    write_folder(source, {"late.png": encoded(better, "PNG"), "cat.jpg": encoded(OTHER, "JPEG")})
    (source / "dark.png").touch()
    assert clean(source, output) == 0
    expected = VERDICTS | {
        "a/sharp.png": ("deleted", "deleted"),
        "b/copy.png": ("keep", "sharp"),
        "cat.jpg": ("keep", "sharp"),
        "late.png": ("drop", "near_duplicate"),
    }
    assert verdicts(output, 2) == expected
    found = rows(output, 2)
    assert {n for n, row in found.items() if row["since"] == 2} == {"cat.jpg", "late.png"}
    assert found["blurred.png"]["repaired"] == rows(output, 1)["blurred.png"]["repaired"]

    assert before.items() <= versions(output).items()

    # a policy alone judges again, and reads nothing
    assert clean(source, output, "--actions", "blurred=drop", "--near-distance", "-1") == 0
    assert verdicts(output, 3)["blurred.png"] == ("drop", "blurred")
    assert verdicts(output, 3)["b/smaller.jpg"] == ("keep", "sharp")


def test_tars_on_s3_are_cleaned_into_s3(clean, s3, tmp_path):
    write_tar(tmp_path / "s.tar", FILES.items())
    source, output = f"{s3.uri}/clean-in", f"{s3.uri}/clean-out"
    store.write_bytes(f"{source}/s.tar", (tmp_path / "s.tar").read_bytes())
    assert clean(source, output, "--materialise") == 0
    assert verdicts(output, 1) == {f"s.tar/{name}": verdict for name, verdict in VERDICTS.items()}
    repaired = rows(output, 1)["s.tar/blurred.png"]["repaired"]
    with tarfile.open(fileobj=store.open_read(f"{output}/data/0001/part-00000.tar")) as tar:
        content = {member.name: tar.extractfile(member).read() for member in tar}
    assert content == {
        "s.tar/a/sharp.png": FILES["a/sharp.png"],
        "s.tar/blurred.png": store.read_bytes(f"{output}/{repaired}"),
    }


def test_pictures_of_any_name_make_a_version_a_report_and_a_sample_each(clean, tmp_path):
    names = ["IMG.1.jpg", "IMG.2.jpg", "x.jpg", "x.png", "v1.0/a.jpg", "a\nb.jpg", "q\"u,o.jpg", "\u202egpj.jpg",
             "n" * 251 + ".jpg", "-r %s <b>.jpg", os.fsdecode(b"caf\xe9.jpg")]  # fmt: skip
    write_folder(tmp_path / "in", {n: encoded(FACE, "PNG" if n.endswith("png") else "JPEG") for n in names})
    keep = (
        "--no-repair",
        "--materialise",
        "--actions",
        "exact_duplicate=keep,near_duplicate=keep,blurred=keep",
    )
    assert clean(tmp_path / "in", tmp_path / "out", *keep) == 0
    assert set(rows(tmp_path / "out", 1)) == {*names[:-1], "caf\\udce9.jpg"}
    assert (tmp_path / "out" / "reports" / "0001" / "index.html").is_file()
    assert len(samples(tmp_path / "out")) == len(names) - 1  # one name cannot be stored in a manifest


def test_rows_of_parquet_are_written_with_the_suffix_of_their_format(clean, tmp_path):
    (tmp_path / "in").mkdir()
    table = pa.table({"image": [FILES["a/sharp.png"], encoded(OTHER, "JPEG")]})
    column = table.column("image").dictionary_encode()
    pq.write_table(pa.table({"image": column}), tmp_path / "in" / "d.parquet")
    assert clean(tmp_path / "in", tmp_path / "out", "--no-repair", "--materialise") == 0
    assert samples(tmp_path / "out") == {"d.parquet/0.png", "d.parquet/1.jpg"}


def samples(output: Path) -> set[str]:
    """The pictures that our own reader finds in the first version's shards, each a WebDataset sample of its own."""
    kind, entries = list_input(str(output / "data"), "auto")
    assert kind == "tar"
    units = [u for s in make_shards(kind, entries, 1024) for u in cut_units(s, 1 << 40, "image")]
    found = [a.member for u in units for a in u.images if not a.refused]
    assert len({sample_key(name) for name in found}) == len(found)
    return set(found)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--fail-if", "ugly>1"), "'ugly' is unknown"),
        (("--dry-run", "--materialise"), "writes no version"),
        (("--near-distance", "20"), "--near-distance must lie in"),
    ],
)
def test_wrong_options_are_refused_in_a_sentence(options, said, capsys, tmp_path):
    with pytest.raises(SystemExit) as refusal:
        job.main(["--input", str(tmp_path), "--output", str(tmp_path / "out"), *options])
    assert refusal.value.code == 2
    assert said in capsys.readouterr().err


def test_a_policy_that_is_none_is_refused_before_anything_is_read(tmp_path, capsys):
    (tmp_path / "p.toml").write_text("min_syde = 3")
    places = ["--input", str(tmp_path / "nowhere"), "--output", str(tmp_path / "out")]
    assert job.main([*places, "--policy", str(tmp_path / "p.toml")]) == 2
    assert "min_syde is unknown" in capsys.readouterr().err
