"""What a run says of itself is checked before anything is compared with it."""

import json
import tarfile
from dataclasses import replace

import pytest
from photographs import write_tar

from pipeline.io import store
from pipeline.ledger.ledger import Ledger
from pipeline.ledger.output import NoRun, open_plan, open_run, open_shard
from pipeline.ledger.plan import read_plan
from pipeline.records.seal import sealed
from pipeline.verify.audit import Audit

SETTINGS = {
    "eta": 0.5,
    "start_step": 60,
    "seed": 0,
    "unit_images": 2,
    "image_column": "image",
    "max_pixels": 1000,
    "weights": {"prior": "a" * 64, "estimator": "b" * 64},
}


@pytest.fixture
def planned(tmp_path) -> str:
    """An output over one tar of five pictures in three units; nothing is done yet."""
    members = [(f"{i}.{kind}", b"x" * 700) for i in range(5) for kind in ("txt", "png")]
    source = str(write_tar(tmp_path / "in" / "a.tar", members))
    ledger = Ledger(str(tmp_path / "out"), SETTINGS)
    ledger.claim(source, repeat={"config": {}, "preset": {}})
    ledger.plan(source, "auto", shard_images=1024, unit_images=2, image_column="image")
    return str(tmp_path / "out")


def edited(output: str, path: str, change) -> None:
    uri = store.join(output, path)
    values = json.loads(store.read_bytes(uri))
    change(values)
    if isinstance(values, dict):
        values = sealed(values)
    store.write_bytes(uri, json.dumps(values).encode())


def test_the_run_file_gives_what_the_checks_need(planned):
    run, findings = open_run(planned)
    assert findings == []
    assert (run.max_pixels, run.image_column, run.repeat) == (1000, "image", {"config": {}, "preset": {}})
    assert run.settings == {
        "start_step": 60,
        "eta": 0.5,
        "seed": 0,
        "model_sha256": "a" * 16 + "+" + "b" * 16,
    }


def test_a_run_whose_table_has_randomness_of_its_own_has_none_for_every_face(planned):
    run, _ = open_run(planned)
    row = {"above": 0, "start_step": 60, "calls": 2, "hold": 1.0, "eta": 0.1}
    assert "eta" not in replace(run, fingerprint=run.fingerprint | {"treatment": [row]}).settings


@pytest.mark.parametrize(
    "changed",
    [{"treatment": [{"above": 0, "way": "left"}]}, {"start_step": 0}, {"gates": {"identity": [[0, 25]]}}],
)
def test_a_run_that_chose_n_for_each_face_has_no_n_of_its_own(planned, changed):
    edited(planned, "_ledger/run.json", lambda run: run["fingerprint"].update(changed))
    assert open_run(planned)[0].settings.keys() == {"eta", "seed", "model_sha256"}


def test_a_run_file_of_before_the_command_was_kept_is_well(planned):
    edited(planned, "_ledger/run.json", lambda run: run.pop("repeat"))
    run, findings = open_run(planned)
    assert findings == [] and run.repeat == {}


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"\xff", b'{"digest": 1, "fingerprint": 2}'])
def test_a_damaged_run_file_is_one_finding_and_not_an_exception(planned, body):
    store.write_bytes(store.join(planned, "_ledger", "run.json"), body)
    run, [finding] = open_run(planned)
    assert finding.kind == "run" and run.fingerprint == {} and run.settings == {}


def test_a_place_without_a_ledger_holds_no_run(tmp_path):
    with pytest.raises(NoRun, match="holds no run"):
        open_run(str(tmp_path))
    with pytest.raises(store.StoreError, match="there is nothing of that name"):
        open_run(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("body", [b"", b"{}x", b'[{"name": "a"}]', b"[1]", b'{"a": 1}'])
def test_a_damaged_plan_is_one_finding_and_not_an_exception(planned, body):
    store.write_bytes(store.join(planned, "_ledger", "plan.json"), body)
    plan, [finding] = open_plan(open_run(planned)[0])
    assert (plan, finding.kind) == ([], "plan")


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda units: None, ""),
        (lambda units: units.pop(), "3 units with 5 images were wanted, as plan.json says, 2 with 4"),
        (lambda units: units.reverse(), "unit 0 was wanted as"),
        (lambda units: units[0].update(last=True), "unit 0 was wanted as"),
        (lambda units: units[0].update(source="b.tar"), "unit 0 was wanted as"),
        (lambda units: units[0]["images"][0].update(uri="b.tar"), "some lie elsewhere"),
        (lambda units: units[2]["span"].__setitem__(1, 99), "spans that cover the tar"),
        (lambda units: units[1]["images"].reverse(), "members in the tar's order"),
        (lambda units: units[1]["images"][0].update(offset=512), "members in the tar's order"),
        (lambda units: units[1]["images"][1].update(length=9999), "inside their unit's span"),
        (lambda units: units[1].pop("span"), "they can not be read"),
        (lambda units: units[1].update(images=[{"member": "x"}]), "they can not be read"),
    ],
)
def test_the_cut_of_a_tar_is_whole_or_named(planned, change, part):
    edited(planned, "_ledger/plan/a.json", change)
    run, _ = open_run(planned)
    [shard] = read_plan(planned).shards
    units, findings = open_shard(run, shard)
    assert len(units) == (0 if part else 3)
    assert [part in f.sentence for f in findings] == ([True] if part else [])


def test_an_audit_of_a_run_that_did_nothing_yet_finds_only_that(planned):
    audit = Audit(open_run(planned)[0])
    assert audit.read_plan() == []
    assert [(u.name, u.finished, u.findings) for u in audit.units(2)] == [
        (f"a-000{part}", False, []) for part in range(3)
    ]
    [finding] = audit.unaccounted()
    assert finding.kind == "unfinished" and "3 of 3 planned units have no marker" in finding.sentence


def test_a_stray_is_no_finding_while_the_plan_is_damaged(planned):
    """What nothing names can not be told then, and deleting it would be wrong."""
    store.write_bytes(store.join(planned, "records", "x.parquet"), b"x")
    audit = Audit(open_run(planned)[0])
    audit.read_plan()
    list(audit.units(2))
    assert [f.kind for f in audit.unaccounted()] == ["unfinished", "stray"]
    edited(planned, "_ledger/plan/a.json", list.pop)
    audit = Audit(open_run(planned)[0])
    audit.read_plan()
    assert [f.kind for u in audit.units(2) for f in u.findings] == ["plan"]
    assert list(audit.unaccounted()) == []


def test_a_plan_with_hard_links_empty_pictures_and_damage_is_whole(tmp_path):
    def member(name, data=b"", target=""):
        info = tarfile.TarInfo(name)
        info.size, info.type, info.linkname = (
            len(data),
            tarfile.LNKTYPE if target else tarfile.REGTYPE,
            target,
        )
        return info.tobuf() + data + bytes(-len(data) % 512)

    parts = [
        member("a.png", b"x" * 700),
        member("b.png"),
        member("c.png", target="a.png"),
        member("._d.png", b"y"),
    ]
    parts += [member("d.png", target="c.png"), member("e.png"), b"\x55" * 512]
    (tmp_path / "a.tar").write_bytes(b"".join(parts))
    ledger = Ledger(str(tmp_path / "out"), SETTINGS)
    ledger.claim(str(tmp_path / "a.tar"), repeat={"config": {}, "preset": {}})
    ledger.plan(str(tmp_path / "a.tar"), "auto", shard_images=1024, unit_images=1, image_column="image")
    run, _ = open_run(str(tmp_path / "out"))
    (planned,), found = open_plan(run)
    units, wrong = open_shard(run, planned)
    assert (found, wrong, len(units)) == ([], [], 6)
    edited(
        str(tmp_path / "out"), "_ledger/plan/a.json", lambda units: units[2]["images"][0].update(link=9999)
    )
    _, [finding] = open_shard(run, planned)
    assert "members in the tar's order" in finding.sentence
