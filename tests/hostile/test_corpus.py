"""Every bad or hostile input gets its one outcome, within bounded time and memory, and writes nothing elsewhere."""

import fnmatch
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hostile import corpus
from hostile.measured import forget_peak, memory
from hostile.stages import Done, plan, run_stages
from photographs import read_folder
from PIL import ImageEnhance
from torch import nn

from pipeline.io import readers
from pipeline.io.layout import LOCK
from pipeline.io.shards import InputError
from pipeline.networks.unet import UNet
from pipeline.restoration.config import RestoreConfig
from pipeline.restoration.method import Restorer, choose_method, restore_stage
from pipeline.stages import restore
from pipeline.stages.record import storable

SOURCES = {
    f"{kind}: {name}": source
    for kind, group in (("folder", corpus.FOLDERS), ("tar", corpus.TARS), ("parquet", corpus.PARQUETS))
    for name, source in group.items()
}
ACCEPTED = {name: source for name, source in SOURCES.items() if not source.refused}
REFUSED = {name: source for name, source in SOURCES.items() if source.refused}
# Megabytes by which one input may raise the peak memory of a process.
MOST_MB = 500


def everything_below(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder, links not followed: size and time of its last change."""
    found = [Path(at, name) for at, folders, files in os.walk(folder) for name in (*folders, *files)]
    return {str(p): (s.st_size, s.st_mtime_ns) for p in found if (s := p.lstat())}


def assert_conserved(done: Done) -> None:
    """Each planned image has one record and one outcome."""
    planned = [storable(a.member) for u in done.units for a in u.images]
    assert [r["member"] for r in done.images] == planned
    assert sum(m["images"] for m in done.markers) == len(planned)
    assert all(sum(m["outcomes"].values()) == m["images"] for m in done.markers)
    assert all(r["error"] for r in done.images if r["outcome"] in ("skipped", "failed"))
    assert not any("\n" in r["error"] for r in done.images)


def originals(kind: str, source: Path, done: Done) -> list[bytes | None]:
    """The input's bytes of each image; None for what has none."""
    if kind == "parquet":
        tables = {u.source: pq.ParquetFile(u.source) for u in done.units}
        try:
            cells = [c for t in tables.values() for c in t.read(["image"])["image"].to_pylist()]
        except OSError:
            return [None for _ in done.images]
        return [c.get("bytes") if isinstance(c, dict) else c for c in cells]
    found: list[bytes | None] = []
    for address in (a for u in done.units for a in u.images):
        if address.refused or address.length > 1 << 30:
            found.append(None)
        else:
            with open(address.uri, "rb") as file:
                file.seek(address.offset)
                found.append(file.read(address.length))
    return found


def delivered(kind: str, output: Path, done: Done) -> list[bytes | None]:
    """What lies in the output for each image; None where nothing does."""
    if kind == "folder":
        places = [output / "images" / a.member for u in done.units for a in u.images]
        return [p.read_bytes() if r["reason"] not in MISSING and p.is_file() else None
                for p, r in zip(places, done.images, strict=True)]  # fmt: skip
    found: list[bytes | None] = []
    for unit in done.units:
        path = output / "shards" / f"{unit.name}.{kind}"
        if kind == "parquet":
            cells = pq.read_table(path)["image"].to_pylist() or [None] * len(unit.images)
            found += [c.get("bytes") if isinstance(c, dict) else c for c in cells]
            continue
        with tarfile.open(path) as tar:
            held = [(m.name, tar.extractfile(m).read()) for m in tar if m.isfile() and not m.issparse()]
        names = iter(held)
        found += [None if a.refused else next(d for n, d in names if n == a.member) for a in unit.images]
    return found


MISSING = {"too many bytes", "name refused"}


@pytest.mark.parametrize("name", ACCEPTED)
def test_every_image_has_the_outcome_expected_and_nothing_is_lost(tmp_path, name):
    kind, expected = name.partition(":")[0], ACCEPTED[name]
    source, output = tmp_path / "here" / "in", tmp_path / "there" / "out"
    source.mkdir(parents=True)
    output.parent.mkdir()
    expected.write(source)
    before = everything_below(tmp_path / "here")
    done = run_stages(source, output)

    assert_conserved(done)
    assert len(done.images) == len(expected.outcomes)
    for row, (wanted, outcome) in zip(done.images, expected.outcomes, strict=True):
        assert fnmatch.fnmatchcase(row["member"], glob_of(storable(wanted))), row["member"]
        assert (row["outcome"], row["reason"]) == outcome, (row["member"], row["error"])

    assert everything_below(tmp_path / "here") == before
    assert {p.name for p in tmp_path.iterdir()} == {"here", "there"}
    assert [p.name for p in output.parent.iterdir()] == ["out"]
    assert {p.name for p in output.iterdir()} <= {
        "images",
        "shards",
        "records",
        "report",
        "review",
        "_ledger",
    }
    named = {o["path"] for m in done.markers for o in m["outputs"]}
    markers = {u.marker_path for u in done.units}
    there = {Path(p).relative_to(output).as_posix() for p in files_below(output)}
    assert there - {LOCK} == named | markers

    pairs = zip(originals(kind, source, done), delivered(kind, output, done), done.images, strict=True)
    for original, after, row in pairs:
        if row["member"] in expected.lost:
            assert after is None, row["member"]
        elif row["outcome"] == "restored":
            assert after and after != original, row["member"]
        elif original is not None:
            assert after == original, row["member"]


def glob_of(name: str) -> str:
    """The name as a pattern in which only * is special."""
    return name.replace("[", "[[]").replace("?", "[?]")


def files_below(folder: Path) -> list[str]:
    return [os.path.join(at, name) for at, _, files in os.walk(folder) for name in files]


@pytest.mark.parametrize("name", REFUSED)
def test_an_input_that_can_not_be_planned_is_refused_in_one_sentence(tmp_path, name):
    REFUSED[name].write(tmp_path)
    with pytest.raises(InputError, match=REFUSED[name].refused) as caught:
        plan(tmp_path)
    assert "\n" not in str(caught.value)


def test_members_that_are_no_files_pass_as_they_are(tmp_path):
    (tmp_path / "in").mkdir()
    link = corpus.member("b.png", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")
    folder = corpus.member("sub", b"", type=tarfile.DIRTYPE)
    corpus.tar(corpus.A, link, folder, corpus.sparse(), corpus.C)(tmp_path / "in")
    run_stages(tmp_path / "in", tmp_path / "out")
    delivered = (tmp_path / "out" / "shards" / "s-0000.tar").read_bytes()
    assert link + folder + corpus.sparse() in delivered
    with tarfile.open(fileobj=io.BytesIO(delivered)) as tar:
        assert tar.getnames() == ["a.png", "b.png", "sub", "b.png", "c.png"]


@pytest.mark.parametrize("unit_images", [1, 2])
def test_a_damaged_tar_loses_nothing_before_the_damage_however_it_is_cut(tmp_path, unit_images):
    (tmp_path / "in").mkdir()
    corpus.tar(corpus.A, corpus.member("a.json", b"{}"), corpus.C, b"\x55" * 512)(tmp_path / "in")
    done = run_stages(tmp_path / "in", tmp_path / "out", unit_images)
    assert_conserved(done)
    assert [r["outcome"] for r in done.images] == ["no_face", "no_face", "failed"]
    held = []
    for path in sorted((tmp_path / "out" / "shards").iterdir()):
        with tarfile.open(path) as tar:
            held += [(m.name, tar.extractfile(m).read()) for m in tar]
    assert held == [("a.png", corpus.SMALL), ("a.json", b"{}"), ("c.png", corpus.SMALL)]


def test_a_path_that_is_too_long_below_the_output_is_a_failed_image(tmp_path):
    source, output = tmp_path / "in", tmp_path / "a much longer name of an output"
    source.mkdir()
    corpus.deep_path(source)
    done = run_stages(source, output)
    assert_conserved(done)
    assert [(r["outcome"], r["reason"]) for r in done.images] == [
        ("no_face", ""),
        ("failed", "name refused"),
    ]
    assert read_folder(output / "images") == {"a.png": corpus.SMALL}


def test_a_file_that_vanishes_after_planning_is_a_failed_image(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "in" / name).write_bytes(corpus.SMALL)
    planned = plan(tmp_path / "in")
    (tmp_path / "in" / "b.png").unlink()
    monkeypatch.setattr("hostile.stages.plan", lambda *_: planned)
    done = run_stages(tmp_path / "in", tmp_path / "out")
    assert_conserved(done)
    assert [(r["outcome"], r["reason"]) for r in done.images] == [corpus.NO_FACE, corpus.UNREADABLE]
    assert read_folder(tmp_path / "out" / "images") == {"a.png": corpus.SMALL}


@pytest.mark.parametrize(
    "name", ["../escape.png", "a/../../escape.png", "/escape.png", "a//b.png", "./a.png"]
)
def test_an_object_store_s_key_never_leads_out_of_the_output(tmp_path, monkeypatch, name):
    # a local file system lists no such names; an object store's keys may be anything
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(corpus.SMALL)
    (unit,) = plan(tmp_path / "in")
    address = unit.images[0]
    planned = [
        unit.__class__(**vars(unit) | {"images": (address.__class__(**vars(address) | {"member": name}),)})
    ]
    monkeypatch.setattr("hostile.stages.plan", lambda *_: planned)
    done = run_stages(tmp_path / "in", tmp_path / "out")
    assert_conserved(done)
    assert [(r["outcome"], r["reason"]) for r in done.images] == [("failed", "name refused")]
    assert {p.name for p in tmp_path.iterdir()} == {"in", "out"}
    assert not (tmp_path / "out" / "images").exists() and not Path("/escape.png").exists()


@pytest.mark.parametrize("landmarks", [np.nan, np.inf, 0.0])
def test_a_face_whose_landmarks_are_no_numbers_is_no_face(tmp_path, monkeypatch, landmarks):
    from pipeline.faces.detect import Face

    bad = Face((0.0, 0.0, 50.0, 50.0), np.full((5, 2), landmarks, np.float32), 0.9)
    monkeypatch.setattr("pipeline.stages.align.load_detector", lambda _: lambda picture: [bad])
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(corpus.PNG)
    done = run_stages(tmp_path / "in", tmp_path / "out")
    assert_conserved(done)
    assert [(r["outcome"], r["reason"]) for r in done.images] == [corpus.NO_FACE]


class NoNumbers(nn.Module):
    """An estimator that answers dark faces with no numbers."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        dark = x.mean(dim=(1, 2, 3), keepdim=True) < 0.25
        return torch.where(dark, torch.nan, self.inner(x))


def test_a_face_that_the_networks_answer_with_no_numbers_fails_alone(tmp_path, monkeypatch):
    load = restore.load_network

    def loaded(spec, path):
        network = load(spec, path)
        return network if isinstance(network, UNet) else NoNumbers(network)

    monkeypatch.setattr(restore, "load_network", loaded)
    config = RestoreConfig.of(
        "in", "out", preset="small-srcnn", steps="ddim50", start_step=60, precision="float32"
    )
    preset, chosen = choose_method(config)
    engine = restore.RestoreFaces(
        restore_stage(config, Restorer(preset, chosen, {}), "cpu", 1, str(tmp_path / "stop"))
    )
    (tmp_path / "in").mkdir()
    dark = corpus.encoded(ImageEnhance.Brightness(corpus.FACE).enhance(0.35), "PNG")
    for name, data in (("bright.png", corpus.PNG), ("dark.png", dark)):
        (tmp_path / "in" / name).write_bytes(data)
    done = run_stages(tmp_path / "in", tmp_path / "out", restore=engine)
    assert_conserved(done)
    assert [(r["outcome"], r["reason"]) for r in done.images] == [corpus.RESTORED, ("failed", "face failed")]
    assert "finite" in done.images[1]["error"]
    assert [(f["treatment"], f["start_step"]) for f in done.faces] == [("chain", 60), ("", None)]
    decided = {name: done.markers[0]["sums"][f"faces_{name}"] for name in ("left", "estimator", "chain")}
    assert decided == {"left": 0, "estimator": 0, "chain": 1}
    assert (tmp_path / "out" / "images" / "dark.png").read_bytes() == dark


def test_images_of_a_unit_that_take_too_much_together_fail_and_say_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "MOST_UNIT_BYTES", 1000)
    (tmp_path / "in").mkdir()
    corpus.parquet([corpus.PNG, corpus.PNG])(tmp_path / "in")
    done = run_stages(tmp_path / "in", tmp_path / "out")
    assert_conserved(done)
    assert [(r["outcome"], r["reason"]) for r in done.images] == [corpus.UNREADABLE] * 2
    assert "lower --unit-images" in done.images[0]["error"]


HEAVY = (
    "folder: every picture",
    "folder: a terabyte",
    "tar: sparse terabyte",
    "tar: a long name of gigabytes",
    "tar: quadratic pax",
    "tar: compressed bomb",
    "parquet: one value often",
    "parquet: rows of nothing",
)


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> dict[str, dict[str, float]]:
    """What each heavy input took, all of them in one process."""
    place = tmp_path_factory.mktemp("heavy")
    for number, name in enumerate(HEAVY):
        folder = place / str(number) / "in"
        folder.mkdir(parents=True)
        if name == "parquet: one value often":
            corpus.one_value_often(folder, rows=256)  # 2 GB when they are laid out
        else:
            SOURCES[name].write(folder)
    root = Path(corpus.__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")])}
    command = [sys.executable, "-m", "hostile.measured", str(place)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(zip(HEAVY, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("name", HEAVY)
def test_memory_and_time_are_bounded(measured, name):
    assert measured[name]["refused"] == bool(SOURCES[name].refused)
    assert measured[name]["megabytes"] < MOST_MB and measured[name]["seconds"] < 30, measured[name]


def test_the_measure_of_memory_sees_what_is_used():
    forget_peak()
    before = memory("VmRSS")
    assert np.ones(200 << 20, np.uint8).all()
    assert 150 < memory("VmHWM") - before < 400
