"""An output is read again: one that is as the run left it is well, and everything else is named."""

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from photographs import LATIN_1, encoded, mixed, pixels, portrait, write_folder, write_tar
from PIL import Image
from s3fs import S3FileSystem
from servers import S3Server

from jobs import verify as job
from pipeline.ledger.output import open_run
from pipeline.records.seal import sealed
from pipeline.restoration.config import RestoreConfig
from pipeline.restoration.start import repeatable
from pipeline.verify.audit import Audit
from pipeline.verify.repeat import TOLERANCE

# Two units of two pictures and one of one: restored and no_face; restored twice; failed.
PHOTOS = ("a portrait.png", "b cat.png", "c alpha.png", LATIN_1, "z broken.jpg")
FIRST, SECOND = "_ledger/done/images-00000/0000.json", "_ledger/done/images-00000/0001.json"
PORTRAIT, CAT = "images/a portrait.png", "images/b cat.png"

pytestmark = pytest.mark.usefixtures("without_ray")


class Checked(NamedTuple):
    """A verification that came to its end."""

    code: int
    shown: str
    report: dict[str, Any]

    @property
    def found(self) -> list[tuple[str, str]]:
        """Kind and place of every finding."""
        return [(f["kind"], f["where"]) for f in self.report["findings"]]


class Tree:
    """An output to tamper with."""

    def __init__(self, output: Path) -> None:
        self.output = output

    def read(self, path: str) -> bytes:
        return (self.output / path).read_bytes()

    def write(self, path: str, data: bytes) -> None:
        (self.output / path).parent.mkdir(parents=True, exist_ok=True)
        (self.output / path).write_bytes(data)

    def json(self, path: str, change: Callable[[Any], None]) -> None:
        """Edit a file of the ledger, and what its checksum says of it."""
        values = json.loads(self.read(path))
        change(values)
        if isinstance(values, dict):
            values = sealed(values)
        self.write(path, json.dumps(values).encode())

    def forge(self, marker: str, path: str, data: bytes) -> None:
        """Replace an object, and what its marker says of it."""
        self.write(path, data)

        def name(values: dict[str, Any]) -> None:
            [written] = [o for o in values["outputs"] if o["path"] == path]
            written |= {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}

        self.json(marker, name)

    def forge_records(self, marker: str, unit: str, change: Callable[[list[dict]], None]) -> None:
        """Edit the rows of a record table, and what its marker says of it."""
        path = f"records/{unit}.parquet"
        table = pq.read_table(self.output / path)
        rows = table.to_pylist()
        change(rows)
        self.forge(marker, path, table_bytes(pa.Table.from_pylist(rows, table.schema)))


def table_bytes(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def verify(output: Path | str, report: Path, capsys: pytest.CaptureFixture[str], *options: str) -> Checked:
    """The job in this process."""
    capsys.readouterr()
    code = job.main(["--output", str(output), "--json", str(report), *options])
    shown = capsys.readouterr()
    return Checked(code, shown.out + shown.err, json.loads(report.read_bytes()) if report.exists() else {})


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("verified")


@pytest.fixture(scope="module")
def photos(place) -> Path:
    archive = mixed()
    names = ("portrait.jpg", "cat.png", "with alpha.png", LATIN_1, "broken/cut off.jpg")
    contents = [encoded(portrait(), "PNG"), *(archive[name] for name in names[1:])]
    return write_folder(place / "photos", dict(zip(PHOTOS, contents, strict=True)))


RESTORE = ("--unit-images", "2", "--max-error-rate", "0.5", "--save-faces")


@pytest.fixture(scope="module")
def restored(place, photos, restore) -> Path:
    """A folder, restored; never tampered with."""
    assert restore(photos, place / "out", *RESTORE) == 0
    return place / "out"


@pytest.fixture(scope="module")
def shards(place, photos, restore) -> Path:
    """A tar shard and a Parquet shard of the same pictures, each restored below one folder."""
    contents = [(photos / name).read_bytes() for name in PHOTOS]
    members = []
    for i, (name, content) in enumerate(zip(PHOTOS, contents, strict=True)):
        members += [(f"{i}.txt", b"text"), (f"{i}{Path(name).suffix}", content)]
    write_tar(place / "tar" / "shard.tar", members)
    (place / "parquet").mkdir()
    pq.write_table(pa.table({"image": contents, "i": range(5)}), place / "parquet" / "shard.parquet")
    for kind in ("tar", "parquet"):
        assert restore(place / kind, place / "shards" / kind, *RESTORE[:4]) == 0
    return place / "shards"


@pytest.fixture
def tree(restored, tmp_path) -> Tree:
    shutil.copytree(restored, tmp_path / "out")
    return Tree(tmp_path / "out")


def test_an_output_as_the_run_left_it_is_well(restored, tmp_path, capsys):
    done = verify(restored, tmp_path / "report.json", capsys)
    assert (done.code, done.found, done.report["differences"]) == (0, [], {})
    assert done.report["finished"]["outcomes"] == {"restored": 3, "no_face": 1, "skipped": 0, "failed": 1}
    assert done.report["planned"] == {"units": 3, "images": 5} and done.report["finished"]["units"] == 3
    markers = [json.loads(p.read_bytes()) for p in (restored / "_ledger" / "done").rglob("*.json")]
    written = [o for m in markers for o in m["outputs"]]
    assert (done.report["objects"], done.report["bytes"]) == (len(written), sum(o["size"] for o in written))
    assert "5  of 5 planned" in done.shown and "the output is complete and unchanged" in done.shown
    assert "5/5 images (100%)" in done.shown and "images/s" in done.shown and "to go" in done.shown


def flip(tree: Tree, path: str) -> None:
    data = bytearray(tree.read(path))
    data[len(data) // 2] ^= 1
    tree.write(path, bytes(data))


def drop(values: dict[str, Any], path: str) -> None:
    values["outputs"] = [o for o in values["outputs"] if o["path"] != path]


def rename_first(rows: list[dict]) -> None:
    rows[0]["member"] = "another.png"


def another_outcome(rows: list[dict]) -> None:
    rows[-1]["outcome"] = "skipped"


def another_eta(rows: list[dict]) -> None:
    next(r for r in rows if r["kind"] == "face")["eta"] = 0.75


def one_face_less(rows: list[dict]) -> None:
    rows.remove(next(r for r in rows if r["kind"] == "face"))


RECORDS = "records/images-00000-0000.parquet"
PLAN, CUT = "_ledger/plan.json", "_ledger/plan/images-00000.json"
TAMPERED: dict[str, tuple[Callable[[Tree], None], str, str, str]] = {
    # what is done → kind, where, and a part of the sentence
    "a byte of a picture": (lambda t: flip(t, PORTRAIT), "altered", PORTRAIT, "bytes with sha256"),
    "a byte of a record table": (lambda t: flip(t, RECORDS), "altered", RECORDS, "expected "),
    "a cut picture": (lambda t: t.write(CAT, t.read(CAT)[:100]), "altered", CAT, "100 bytes with"),
    "a lost picture": (lambda t: (t.output / CAT).unlink(), "missing", CAT, "it does not exist"),
    "a lost record table": (lambda t: (t.output / RECORDS).unlink(), "missing", RECORDS, "it does not exist"),
    "a lost crop": (
        lambda t: (t.output / "faces/images-00000-0000/0000-00-after.png").unlink(),
        "missing",
        "faces/images-00000-0000/0000-00-after.png",
        f"delete {FIRST} and run the same restore command again",
    ),
    "a folder in a picture's place": (
        lambda t: ((t.output / CAT).unlink(), (t.output / CAT).mkdir()),
        "unreadable",
        CAT,
        "the object cannot be read",
    ),
    "rubbish that its marker names": (
        lambda t: t.forge(FIRST, PORTRAIT, b"no picture"),
        "picture",
        PORTRAIT,
        "it does not open",
    ),
    "a restored picture of another size": (
        lambda t: t.forge(FIRST, PORTRAIT, encoded(portrait(90, 90), "PNG")),
        "picture",
        PORTRAIT,
        "a picture of 100x110 was wanted, one of 90x90 is there",
    ),
    "another picture where no face was": (
        lambda t: t.forge(FIRST, CAT, encoded(portrait(), "PNG")),
        "picture",
        CAT,
        "recorded as no_face, so that the unchanged original",
    ),
    "rubbish for records": (lambda t: t.forge(FIRST, RECORDS, b"PAR1"), "records", RECORDS, "does not open"),
    "records without columns": (
        lambda t: t.forge(FIRST, RECORDS, table_bytes(pa.table({"kind": ["image"]}))),
        "records",
        RECORDS,
        "columns unit, member",
    ),
    "another name in the records": (
        lambda t: t.forge_records(FIRST, "images-00000-0000", rename_first),
        "records",
        RECORDS,
        "number 1 is another.png instead of a portrait.png",
    ),
    "another outcome in the records": (
        lambda t: t.forge_records(FIRST, "images-00000-0000", another_outcome),
        "records",
        RECORDS,
        "outcomes of the marker (1 no_face, 1 restored), found 1 restored, 1 skipped",
    ),
    "another setting in the records": (
        lambda t: t.forge_records(FIRST, "images-00000-0000", another_eta),
        "records",
        RECORDS,
        "the run's eta 0.5 for every face, found 0.75",
    ),
    "a face less in the records": (
        lambda t: t.forge_records(FIRST, "images-00000-0000", one_face_less),
        "records",
        RECORDS,
        "expected 1 faces, as in the marker, found 0",
    ),
    "a marker that is cut off": (
        lambda t: t.write(FIRST, t.read(FIRST)[:-20]),
        "marker",
        FIRST,
        "cannot be read",
    ),
    "a marker of another unit": (lambda t: t.write(FIRST, t.read(SECOND)), "marker", FIRST, "as in the plan"),
    "a marker that lost count": (
        lambda t: t.json(FIRST, lambda m: m["outcomes"].update(restored=2)),
        "marker",
        FIRST,
        "expected one outcome for each of 2 images, found 3",
    ),
    "a marker without its records": (lambda t: t.json(FIRST, lambda m: drop(m, RECORDS)), "marker", FIRST, RECORDS),
    "a marker without a picture": (
        lambda t: (t.json(FIRST, lambda m: drop(m, CAT)), (t.output / CAT).unlink()),
        "marker",
        FIRST,
        f"{CAT} is recorded as no_face and is not among its outputs",
    ),
    "a marker that names a foreign file": (
        lambda t: t.json(FIRST, lambda m: m["outputs"][0].update(path="../photos/b cat.png")),
        "marker",
        FIRST,
        "../photos/b cat.png is not an output of this unit",
    ),
    "a stray picture": (
        lambda t: t.write("images/new/x.png", b"x"),
        "stray",
        "images/new/x.png",
        "no marker refers to it",
    ),
    "a stray table": (lambda t: t.write("records/x.parquet", b"x"), "stray", "records/x.parquet", "no marker"),
    "a stray crop": (
        lambda t: t.write("faces/images-00000-0000/0009-00-after.png", b"x"),
        "stray",
        "faces/images-00000-0000/0009-00-after.png",
        "delete it",
    ),
    "a stray marker": (
        lambda t: t.write("_ledger/done/images-00000/0003.json", t.read(FIRST)),
        "stray",
        "_ledger/done/images-00000/0003.json",
        "no unit of the plan refers to it",
    ),
    "a picture taken out of the plan": (
        lambda t: t.json(CUT, lambda units: units[0]["images"].pop()),
        "plan",
        CUT,
        "3 units with 5 images were wanted, as plan.json says, 3 with 4 are in it",
    ),
    "a picture planned twice": (
        lambda t: t.json(CUT, lambda units: units[0]["images"].__setitem__(1, units[0]["images"][0])),
        "plan",
        CUT,
        "the pictures that plan.json lists",
    ),
    "a unit planned as another": (
        lambda t: t.json(CUT, lambda units: units[1].update(part=5)),
        "plan",
        CUT,
        "unit 1 was wanted as",
    ),
    "another number of units": (
        lambda t: t.json(PLAN, lambda plan: plan["shards"][0].update(units=4)),
        "plan",
        CUT,
        "4 units with 5 images were wanted",
    ),
    "a shard taken out of the plan": (
        lambda t: t.json(PLAN, lambda plan: plan["shards"].clear()),
        "plan",
        PLAN,
        "shard images-00000 has 3 markers and is not in the plan",
    ),
    "a shard planned twice": (
        lambda t: t.json(PLAN, lambda plan: plan["shards"].append(plan["shards"][0])),
        "plan",
        PLAN,
        "images-00000",
    ),
    "a plan that is cut off": (lambda t: t.write(PLAN, t.read(PLAN)[:-9]), "plan", PLAN, "it can not be read"),
    "a lost part of the plan": (lambda t: (t.output / CUT).unlink(), "plan", CUT, "put it back from a copy"),
    "a marker of another run": (lambda t: t.json(FIRST, lambda m: m.update(run="x")), "marker", FIRST, "another run"),
    "a digit of a sum in a marker": (
        lambda t: t.write(FIRST, t.read(FIRST).replace(b'"distance": ', b'"distance": 1')),
        "marker",
        FIRST,
        "its checksum does not match",
    ),
    "a file's version in the plan": (
        lambda t: t.write(PLAN, t.read(PLAN).replace(b'"version": "', b'"version": "1')),
        "plan",
        PLAN,
        "its checksum does not fit",
    ),
    "a plan of another run": (
        lambda t: t.json(PLAN, lambda plan: plan.update(run="x")),
        "plan",
        PLAN,
        "plans it again",
    ),
    "a byte of the report": (
        lambda t: flip(t, "report/index.html"),
        "altered",
        "report/index.html",
        "writes the report again",
    ),
    "a lost contact sheet": (
        lambda t: (t.output / "report/contact_sheet.png").unlink(),
        "missing",
        "report/contact_sheet.png",
        "run the same restore command again",
    ),
    "another input in the run file": (
        lambda t: t.write("_ledger/run.json", t.read("_ledger/run.json").replace(b'"input": "', b'"input": "/')),
        "run",
        "_ledger/run.json",
        "its checksum does not fit",
    ),
    "other settings in the run file": (
        lambda t: t.json("_ledger/run.json", lambda run: run["fingerprint"].update(max_faces=9)),
        "run",
        "_ledger/run.json",
        "settings with the digest",
    ),
    "a lost run file": (lambda t: (t.output / "_ledger/run.json").unlink(), "run", "_ledger/run.json", "can not be"),
}  # fmt: skip


@pytest.mark.parametrize("what", TAMPERED)
def test_what_was_tampered_with_is_named_and_nothing_else(tree, tmp_path, capsys, what):
    tamper, kind, where, part = TAMPERED[what]
    tamper(tree)
    done = verify(tree.output, tmp_path / "report.json", capsys)
    assert (done.code, done.found) == (1, [(kind, where)])
    [finding] = done.report["findings"]
    assert part in finding["sentence"] and "\n" not in finding["sentence"]
    assert finding["sentence"] in done.shown
    assert done.report["markers_to_delete"] == ([finding["marker"]] if finding["marker"] else [])


def test_units_without_a_marker_are_unfinished_and_what_they_left_is_no_stray(tree, tmp_path, capsys):
    for marker in (FIRST, SECOND):
        (tree.output / marker).unlink()
    done = verify(tree.output, tmp_path / "report.json", capsys)
    assert (done.code, done.report["differences"]) == (4, {})
    assert (
        "unfinished: 2 of 3 planned units have no marker (images-00000-0000, images-00000-0001); "
        "run the same restore command again to finish them" in done.shown
    )
    assert done.report["unfinished_units"] == ["images-00000-0000", "images-00000-0001"]
    assert done.report["finished"] | {"faces": 0} == {"units": 1, "images": 1, "faces": 0} | {
        "outcomes": {"restored": 0, "no_face": 0, "skipped": 0, "failed": 1}
    }


def test_damage_weighs_more_than_work_not_done(tree, tmp_path, capsys):
    (tree.output / FIRST).unlink()
    flip(tree, f"images/{LATIN_1}")
    done = verify(tree.output, tmp_path / "report.json", capsys)
    assert done.code == 1 and [kind for kind, _ in done.found] == ["altered", "unfinished"]
    assert "images/caf\\udce9.jpg: " in done.shown


def test_a_run_that_planned_nothing_yet_is_unfinished(tree, tmp_path, capsys):
    for path in ("_ledger/plan", "_ledger/done", "images", "records", "faces", "review"):
        shutil.rmtree(tree.output / path)
    (tree.output / PLAN).unlink()
    done = verify(tree.output, tmp_path / "report.json", capsys)
    assert done.code == 4 and "unfinished: nothing is planned yet" in done.shown


def test_deleting_the_named_markers_lets_the_same_restore_command_put_it_right(
    tree, restore, photos, tmp_path, capsys
):
    flip(tree, PORTRAIT)
    (tree.output / f"images/{LATIN_1}").unlink()
    done = verify(tree.output, tmp_path / "report.json", capsys)
    assert done.report["markers_to_delete"] == [FIRST, SECOND]
    assert all(str(tree.output / marker) in done.shown for marker in (FIRST, SECOND))
    for marker in done.report["markers_to_delete"]:
        (tree.output / marker).unlink()
    assert restore(photos, tree.output, *RESTORE) == 0
    assert verify(tree.output, tmp_path / "again.json", capsys).code == 0


# ---------------------------------------------------------------------------------------------- tar and Parquet


def replaced(kind: str, path: Path, place: int, change: Callable[[bytes], bytes]) -> bytes:
    """The shard with the picture of this number changed."""
    if kind == "parquet":
        table = pq.read_table(path)
        cells = table["image"].to_pylist()
        cells[place] = change(cells[place])
        return table_bytes(table.set_column(0, "image", pa.array(cells)))
    with tarfile.open(path) as tar:
        members = [(m.name, tar.extractfile(m).read()) for m in tar]
    pictures = [i for i, (name, _) in enumerate(members) if not name.endswith(".txt")]
    name, data = members[pictures[place]]
    members[pictures[place]] = (name, change(data))
    return write_tar(path.with_suffix(".new"), members).read_bytes()


def unrestored(data: bytes) -> bytes:
    """A picture of the same size and kind that no restoration gave."""
    picture = np.array(Image.open(io.BytesIO(data)))
    return encoded(Image.fromarray(255 - picture), "PNG")


@pytest.fixture
def shard(shards, tmp_path, request) -> Tree:
    shutil.copytree(shards / request.param, tmp_path / "out")
    return Tree(tmp_path / "out")


BOTH = pytest.mark.parametrize(
    ("shard", "kind"), [("tar", "tar"), ("parquet", "parquet")], indirect=["shard"], ids=["tar", "parquet"]
)
SHARD_MARKER = "_ledger/done/shard/0000.json"


@BOTH
def test_shards_as_the_run_left_them_are_well_and_give_the_same_bits_again(shard, kind, tmp_path, capsys):
    done = verify(shard.output, tmp_path / "report.json", capsys, "--sample", "9")
    assert (done.code, done.found) == (0, [])
    assert [p["same"] for p in done.report["sample"]["pictures"]] == ["bits"] * 3
    assert "3  of 9 asked; 3 equal bit for bit" in done.shown


@BOTH
def test_a_damaged_shard_is_named(shard, kind, tmp_path, capsys):
    path = f"shards/shard-0000.{kind}"
    whole = shard.read(path)
    flip(shard, path)
    assert verify(shard.output, tmp_path / "1.json", capsys).found == [("altered", path)]
    shard.write(path, whole[: len(whole) // 3])
    assert verify(shard.output, tmp_path / "2.json", capsys).found == [("altered", path)]
    (shard.output / path).unlink()
    assert verify(shard.output, tmp_path / "3.json", capsys).found == [("missing", path)]


@BOTH
def test_a_picture_in_a_shard_that_is_none_is_named_with_its_place(shard, kind, tmp_path, capsys):
    path = f"shards/shard-0000.{kind}"
    shard.forge(SHARD_MARKER, path, replaced(kind, shard.output / path, 0, lambda _: b"no picture"))
    (shard.output / path).with_suffix(".new").unlink(missing_ok=True)
    done = verify(shard.output, tmp_path / "report.json", capsys)
    assert (done.code, done.found) == (1, [("picture", path)])
    member = "0.png" if kind == "tar" else "0"
    assert f"{path}: {member}: a picture was wanted, it does not open" in done.shown


@BOTH
def test_a_shard_that_lost_a_picture_or_is_none_is_named(shard, kind, tmp_path, capsys):
    path = f"shards/shard-0001.{kind}"
    marker = "_ledger/done/shard/0001.json"
    if kind == "tar":
        less = write_tar(tmp_path / "less.tar", [("2.txt", b""), ("2.png", b"")]).read_bytes()
    else:
        less = table_bytes(pq.read_table(shard.output / path).slice(0, 1))
    for data in (less, b"rubbish" * 200):
        shard.forge(marker, path, data)
        done = verify(shard.output, tmp_path / "report.json", capsys)
        assert (done.code, done.found) == (1, [("picture", path)])


@BOTH
def test_a_plan_of_a_shard_with_a_gap_is_named(shard, kind, tmp_path, capsys):
    def skip(units: list[dict]) -> None:
        if kind == "tar":
            units[1]["span"][0] += 512
        else:
            units[1]["images"][0]["offset"] += 7

    shard.json("_ledger/plan/shard.json", skip)
    done = verify(shard.output, tmp_path / "report.json", capsys)
    assert (done.code, done.found) == (1, [("plan", "_ledger/plan/shard.json")])


@BOTH
def test_a_sample_finds_a_replaced_picture_in_a_shard(shard, kind, tmp_path, capsys):
    path = f"shards/shard-0000.{kind}"
    shard.forge(SHARD_MARKER, path, replaced(kind, shard.output / path, 0, unrestored))
    (shard.output / path).with_suffix(".new").unlink(missing_ok=True)
    assert verify(shard.output, tmp_path / "1.json", capsys).code == 0
    done = verify(shard.output, tmp_path / "2.json", capsys, "--sample", "3")
    member = "0.png" if kind == "tar" else "0"
    assert (done.code, done.found) == (1, [("repeat", f"{path}: {member}")])


# ---------------------------------------------------------------------------------------------- the sample


def test_a_sample_gives_the_same_bits_in_other_company(restored, tmp_path, capsys):
    before = {p: p.stat().st_mtime_ns for p in restored.rglob("*")}
    done = verify(restored, tmp_path / "report.json", capsys, "--sample", "3")
    assert (done.code, done.found) == (0, [])
    sample = done.report["sample"]
    assert {p["member"] for p in sample["pictures"]} == {"a portrait.png", "c alpha.png", "caf\\udce9.jpg"}
    assert [p["same"] for p in sample["pictures"]] == ["bits"] * 3 and sample["device"] == "cpu"
    assert "slots" in sample["batching"] and "mixed" in sample["batching"]
    assert {p: p.stat().st_mtime_ns for p in restored.rglob("*")} == before


def test_what_a_run_keeps_for_a_repetition_names_no_other_service_and_no_password(restored):
    kept = json.loads((restored / "_ledger" / "run.json").read_bytes())["repeat"]
    assert kept["preset"]["name"] == "small-srcnn" and kept["config"]["save_faces"] is True
    assert not {"mlflow_uri", "ray_address"} & kept["config"].keys()
    with_password = RestoreConfig.of(input="in", output="out", weights_dir="https://me:secret@host/weights")
    assert repeatable(with_password)["weights_dir"] == "https://***@host/weights"
    markers = [json.loads(p.read_bytes()) for p in (restored / "_ledger/done").rglob("*.json")]
    assert {m["device"] for m in markers} == {"cpu"}
    assert {m["environment"]["torch"] for m in markers} == {torch.__version__}


def test_a_sample_is_drawn_alike_each_time_and_otherwise_with_another_seed(restored):
    def drawn(seed: str) -> list[str]:
        run, _ = open_run(str(restored))
        audit = Audit(run, sample=2, seed=seed)
        audit.read_plan()
        assert len(list(audit.units(readers=2))) == 3
        return [c.unit.images[0].member for c in audit.candidates]

    assert drawn("x") == drawn("x") and len(drawn("x")) == 2
    assert len({tuple(drawn(str(seed))) for seed in range(20)}) > 3


def test_a_sample_finds_a_picture_that_was_replaced_together_with_its_marker(tree, tmp_path, capsys):
    tree.forge(FIRST, PORTRAIT, unrestored(tree.read(PORTRAIT)))
    assert verify(tree.output, tmp_path / "1.json", capsys).code == 0
    done = verify(tree.output, tmp_path / "2.json", capsys, "--sample", "3")
    assert (done.code, done.found) == (1, [("repeat", PORTRAIT)])
    assert "expected the same bytes, restored again on " in done.shown
    assert f"delete {FIRST} and run the same restore command again" in done.shown
    same = {p["member"]: p["same"] for p in done.report["sample"]["pictures"]}
    assert same == {"a portrait.png": "no", "c alpha.png": "bits", "caf\\udce9.jpg": "bits"}


def test_a_sample_finds_records_that_were_replaced_together_with_their_marker(tree, tmp_path, capsys):
    def other_score(rows: list[dict]) -> None:
        next(r for r in rows if r["kind"] == "face")["score"] = 0.123

    tree.forge_records(FIRST, "images-00000-0000", other_score)
    assert verify(tree.output, tmp_path / "1.json", capsys).code == 0
    done = verify(tree.output, tmp_path / "2.json", capsys, "--sample", "3")
    assert (done.code, done.found) == (1, [("repeat", PORTRAIT)])
    assert "its picture is the same, but its records differ in score" in done.shown


@pytest.mark.parametrize(("levels", "code"), [(1, 0), (40, 1)])
def test_in_another_environment_a_sample_is_compared_within_a_tolerance(tree, tmp_path, capsys, levels, code):
    assert levels < TOLERANCE or levels > 10 * TOLERANCE
    picture = pixels(tree.read(PORTRAIT)).astype(int)
    picture[20:90, 20:80] = np.clip(picture[20:90, 20:80] + levels, 0, 255)
    tree.forge(FIRST, PORTRAIT, encoded(Image.fromarray(picture.astype(np.uint8)), "PNG"))
    # on the device type of the run one level is a difference
    assert verify(tree.output, tmp_path / "1.json", capsys, "--sample", "3").found == [("repeat", PORTRAIT)]
    other_card = {"device": "NVIDIA H200", "torch": "2.11.0", "compiled": "yes"}
    tree.json(FIRST, lambda marker: marker.update(device="cuda", environment=other_card))
    done = verify(tree.output, tmp_path / "2.json", capsys, "--sample", "3", "--device", "cpu")
    assert done.code == code
    [other] = [p for p in done.report["sample"]["pictures"] if p["member"] == "a portrait.png"]
    assert other["same"] == ("no" if code else "tolerance") and other["difference"] > 0.3
    if code:
        assert (
            f"expected at most {TOLERANCE:g} of 255 levels, as it was restored on NVIDIA H200, torch 2.11.0"
            in done.shown
        )
    else:
        assert f"2 equal bit for bit, 1 within {TOLERANCE:g} levels in another environment" in done.shown


@pytest.fixture
def moving(restored, photos, tmp_path) -> tuple[Tree, Path]:
    """An output whose plan names originals that a test may change."""
    shutil.copytree(photos, tmp_path / "photos")
    shutil.copytree(restored, tmp_path / "out")
    tree = Tree(tmp_path / "out")
    for path in (CUT, PLAN):
        tree.write(path, tree.read(path).replace(str(photos).encode(), str(tmp_path / "photos").encode()))
    digest = hashlib.sha256(tree.read(CUT)).hexdigest()
    tree.json(PLAN, lambda plan: plan["shards"][0].update(digest=digest))
    return tree, tmp_path / "photos"


def test_an_original_that_changed_grew_or_is_gone_is_a_difference(moving, tmp_path, capsys):
    tree, photos = moving
    portrait = bytearray((photos / "a portrait.png").read_bytes())
    portrait[-20] ^= 1
    (photos / "a portrait.png").write_bytes(portrait)
    (photos / LATIN_1).write_bytes((photos / LATIN_1).read_bytes() + b"x")
    (photos / "c alpha.png").unlink()
    done = verify(tree.output, tmp_path / "report.json", capsys, "--sample", "3")
    assert done.code == 1 and {kind for kind, _ in done.found} == {"input"}
    sentences = {Path(f["where"]).name: f["sentence"] for f in done.report["findings"]}
    assert "; put it back, or restore the new one into another --output" in sentences["a portrait.png"]
    assert "it cannot be read" in sentences["c alpha.png"]
    assert "it has grown from" in sentences[LATIN_1] and len(sentences) == 3
    assert done.report["markers_to_delete"] == []


# ---------------------------------------------------------------------------------------------- refusals


def edit_run(change: Callable[[dict], None]) -> Callable[[Tree], None]:
    def edit(tree: Tree) -> None:
        def both(run: dict) -> None:
            change(run)
            run["digest"] = job_digest(run["fingerprint"])

        tree.json("_ledger/run.json", both)

    return edit


def job_digest(fingerprint: dict) -> str:
    return hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest()[:16]


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda run: run.pop("repeat"), "lacks what is needed to restore a picture again"),
        (lambda run: run["repeat"]["preset"]["prior"].update(file="nowhere.pth"), "nowhere.pth is in none of"),
        (lambda run: run["fingerprint"].update(method_version=0), "cannot be repeated here (method_version: 0 → "),
        (lambda run: run["fingerprint"].update(seed=5), "cannot be repeated here (seed: 5 → 0)"),
    ],
)  # fmt: skip
def test_a_run_that_can_not_be_repeated_is_refused_before_anything_is_read(
    tree, tmp_path, capsys, change, part
):
    edit_run(change)(tree)
    flip(tree, PORTRAIT)
    done = verify(tree.output, tmp_path / "report.json", capsys, "--sample", "1")
    assert (done.code, done.report) == (2, {})
    assert part in done.shown and PORTRAIT not in done.shown
    assert len(done.shown.splitlines()) == 1


@pytest.mark.parametrize("made", ["nothing", "an empty folder", "a folder of pictures"])
def test_a_place_without_a_run_is_refused(tmp_path, capsys, made):
    if made != "nothing":
        write_folder(tmp_path / "out", {"a.png": b"x"} if made == "a folder of pictures" else {})
        (tmp_path / "out").mkdir(exist_ok=True)
    done = verify(tmp_path / "out", tmp_path / "report.json", capsys)
    assert (done.code, done.report) == (2, {})
    assert done.shown.startswith("error: ") and len(done.shown.splitlines()) == 1


@pytest.mark.parametrize("option", ["--sample", "--readers"])
def test_negative_numbers_are_refused(option, capsys):
    with pytest.raises(SystemExit) as stopped:
        job.main(["--output", "out", option, "-1"])
    assert stopped.value.code == 2
    assert f"error: {option} must not be negative, got -1" in capsys.readouterr().err


def test_interrupted_it_leaves_with_130(restored, monkeypatch, capsys):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Audit, "units", interrupt)
    assert job.main(["--output", str(restored)]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_help_names_the_exit_codes_and_keeps_the_lines_of_its_examples(capsys):
    with pytest.raises(SystemExit):
        job.main(["--help"])
    shown = capsys.readouterr().out
    assert "\n  python -m jobs.verify --output restored\n" in shown
    assert all(f"{code} " in shown for code in (0, 1, 2, 4, 130)) and "--sample K" in shown


# ---------------------------------------------------------------------------------------------- object storage


def test_an_output_on_s3_is_verified_there_and_its_report_written_there(
    restored, s3: S3Server, tmp_path, capsys
):
    bucket = S3FileSystem(use_listings_cache=False)
    output = f"{s3.uri}/verified"
    for path in restored.rglob("*"):
        name = path.relative_to(restored).as_posix()
        if path.is_file() and name.isascii() and "\\" not in name:
            bucket.pipe_file(f"{output}/{name}", path.read_bytes())
    # a key is UTF-8: the unit with the Latin-1 name is not done
    bucket.rm_file(f"{output}/{SECOND}")
    assert job.main(["--output", output, "--json", f"{output}/report/verified.json", "--sample", "2"]) == 4
    report = json.loads(bucket.cat_file(f"{output}/report/verified.json"))
    assert report["unfinished_units"] == ["images-00000-0001"]
    assert [p["same"] for p in report["sample"]["pictures"]] == ["bits"]
    bucket.pipe_file(f"{output}/{PORTRAIT}", b"short")
    bucket.rm_file(f"{output}/{CAT}")
    bucket.pipe_file(f"{output}/records/stray.parquet", b"x")
    assert job.main(["--output", output, "--json", str(tmp_path / "report.json")]) == 1
    found = json.loads((tmp_path / "report.json").read_bytes())["findings"]
    assert sorted((f["kind"], f["where"]) for f in found if f["kind"] != "unfinished") == [
        ("altered", PORTRAIT),
        ("missing", CAT),
        ("stray", "records/stray.parquet"),
    ]
