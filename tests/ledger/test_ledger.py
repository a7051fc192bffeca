"""What is planned and done survives everything, and an output never mixes two runs."""

import json
from itertools import permutations

import pytest

from pipeline.io import store
from pipeline.io.fence import Fenced
from pipeline.io.shards import InputError, list_input
from pipeline.io.units import Unit
from pipeline.ledger.ledger import Ledger, RefusedMix, unit_images_of
from pipeline.records.marker import Output
from pipeline.records.rows import Counts, ImageRecord
from pipeline.records.seal import sealed
from pipeline.records.verdicts import verdicts_to_json
from pipeline.stages.load import LoadUnit
from pipeline.stages.record import make_marker

SETTINGS = {"eta": 0.5, "start_step": 400}


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in "abcde":
        (folder / f"{name}.jpg").write_bytes(name.encode())
    return str(folder)


@pytest.fixture
def output(tmp_path):
    return str(tmp_path / "out")


def planned(
    photos, output, settings=SETTINGS, new_run=False, redo_changed=False, shard_images=4, unit_images=2
):
    ledger = Ledger(output, settings)
    ledger.claim(photos, new_run=new_run)
    ledger.plan(photos, "auto", shard_images, unit_images, "image", redo_changed)
    return ledger


def unit_of(output, pending):
    """The unit as the read stage gets it."""
    row = LoadUnit(output)({"unit": pending.name} | pending._asdict())
    assert row["unit"] == pending.name
    return Unit.from_json(row["work"])


def finish(output, pending, outcome="no_face", stage="", reason=""):
    unit = unit_of(output, pending)
    records = [ImageRecord(a.member, outcome=outcome, stage=stage, reason=reason) for a in unit.images]
    text = make_marker(unit, records, [], {"seconds_read": 1.0}, []).to_json()
    store.write_bytes(store.join(output, unit.marker_path), text.encode())
    return text


def test_every_image_is_planned_once(photos, output):
    ledger = planned(photos, output)
    units = list(ledger.pending())
    assert [u.name for u in units] == ["images-00000-0000", "images-00000-0001", "images-00001-0000"]
    assert sorted(a.member for u in units for a in unit_of(output, u).images) == [f"{n}.jpg" for n in "abcde"]
    assert (ledger.images_planned, ledger.units_planned) == (5, 3)


def test_a_planned_shard_is_read_once_for_all_its_units(photos, output):
    """However many units a shard has, a worker that is given one after the other reads its plan once."""
    first, second, other = planned(photos, output).pending()
    unit_of(output, first)
    for shard in ("images-00000", "images-00001"):
        store.delete(store.join(output, f"_ledger/plan/{shard}.json"))
    assert [a.member for a in unit_of(output, second).images] == ["c.jpg", "d.jpg"]
    row = LoadUnit(output)({"unit": other.name} | other._asdict())
    assert "images-00001" in row["undelivered"] and "work" not in row


def test_a_later_start_reads_the_plan_again(photos, output):
    ledger = planned(photos, output)
    row = {"unit": "images-00000-0000"} | next(ledger.pending())._asdict()
    before = LoadUnit(output, start=1)(row)
    store.write_bytes(store.join(photos, "a.jpg"), b"longer")
    planned(photos, output, redo_changed=True)
    assert LoadUnit(output, start=1)(row) == before != LoadUnit(output, start=2)(row)


def test_a_shard_settles_with_its_last_unit_and_its_numbers_add(photos, output):
    ledger = planned(photos, output)
    first, second, third = ledger.pending()
    assert ledger.add(finish(output, second))[1] is None
    counts, settled = ledger.add(finish(output, first))
    assert counts.images == 2 and settled is not None
    assert settled.metrics.counts.outcomes["no_face"] == 4 and settled.metrics.sums["seconds_read"] == 2.0
    assert ledger.add(finish(output, third))[1].planned.index == 1
    assert ledger.totals.counts.images == 5 and ledger.totals.counts.accounted


def test_a_marker_counts_once_however_often_it_comes(photos, output):
    ledger = planned(photos, output)
    text = finish(output, next(iter(ledger.pending())))
    ledger.add(text)
    ledger.add(text)
    assert ledger.totals.counts.images == 2


def test_a_shard_has_the_same_numbers_to_the_last_bit_whatever_part_came_first(photos, output):
    ledger = planned(photos, output, shard_images=5, unit_images=1)
    texts = []
    for unit, seconds in zip(ledger.pending(), (0.1, 0.2, 0.3, 1e16, -1e16), strict=True):
        marker = json.loads(finish(output, unit))
        texts.append(json.dumps(marker | {"sums": {"seconds_read": seconds}}))
    found = set()
    for order in permutations(texts):
        ledger = planned(photos, output, shard_images=5, unit_images=1)
        found.add([ledger.add(text) for text in order][-1][1].metrics.sums["seconds_read"])
    assert len(found) == 1


def test_a_second_start_does_only_what_has_no_marker(photos, output):
    first = planned(photos, output)
    units = list(first.pending())
    finish(output, units[1])
    again = planned(photos, output)
    assert again.resume() == []
    assert [u.name for u in again.pending()] == [units[0].name, units[2].name]


def test_units_with_failures_can_be_done_again(photos, output):
    ledger = planned(photos, output)
    units = list(ledger.pending())
    for unit, outcome in zip(units, ("failed", "no_face", "restored"), strict=True):
        finish(output, unit, outcome)
    again = planned(photos, output)
    again.resume(retry=True)
    assert [(u.name, u.attempts) for u in again.pending()] == [(units[0].name, 2)]


def resumed(photos, output, **how):
    """Another start: the ledger, and each pending unit's number of attempts by name."""
    ledger = planned(photos, output)
    ledger.resume(**how)
    return ledger, {u.name: u.attempts for u in ledger.pending()}


@pytest.fixture
def failed(photos, output):
    """All three units done: two failed, for different reasons, and one did not. Their names."""
    units = list(planned(photos, output).pending())
    finish(output, units[0], "failed", "read", "truncated")
    finish(output, units[1])
    finish(output, units[2], "failed", "paste", "MemoryError")
    return [u.name for u in units]


@pytest.mark.parametrize(
    ("reason", "chosen"),
    [(None, (0, 2)), ("truncated", (0,)), ("read", (0,)), ("MemoryError", (2,)), ("Memory", ()), ("", ())],
)
def test_a_retry_can_be_limited_to_a_reason_or_a_stage(photos, output, failed, reason, chosen):
    ledger, pending = resumed(photos, output, retry=True, reason=reason)
    assert pending == {failed[i]: 2 for i in chosen}
    assert ledger.retries.open == bool(chosen)


def test_failures_without_a_recorded_reason_are_retried_whatever_the_reason(photos, output, failed):
    uri = store.join(output, "_ledger/done/images-00000/0000.json")
    marker = json.loads(store.read_bytes(uri))
    del marker["reasons"]
    store.write_bytes(uri, json.dumps(marker).encode())
    assert resumed(photos, output, retry=True, reason="MemoryError")[1] == {failed[0]: 2, failed[2]: 2}


def test_a_killed_retry_is_finished_by_any_start_and_counts_as_one_attempt(photos, output, failed):
    ledger, _ = resumed(photos, output, retry=True)
    redone = next(ledger.pending())
    ledger.add(finish(output, redone, "failed", "read", "truncated"))
    # killed here; neither the same command nor one without --retry begins another attempt
    for how in ({"retry": True}, {"retry": True, "reason": "truncated"}, {}):
        ledger, pending = resumed(photos, output, **how)
        assert ledger.ordered_before and pending == {failed[2]: 2}
        assert ledger.totals.counts.images == 4
    ledger.close_retry()
    assert resumed(photos, output)[1] == {failed[2]: 2}
    ledger.add(finish(output, next(ledger.pending())))
    # killed between the last unit and the end of the order
    assert resumed(photos, output, retry=True)[1] == {}
    ledger.close_retry()
    ledger, pending = resumed(photos, output, retry=True)
    assert not ledger.ordered_before and pending == {failed[0]: 3}


def test_attempts_outlive_a_marker_that_is_deleted(photos, output, failed):
    ledger, _ = resumed(photos, output, retry=True, reason="read")
    ledger.add(finish(output, next(ledger.pending())))
    ledger.close_retry()
    store.delete(store.join(output, "_ledger/done/images-00000/0000.json"))
    assert resumed(photos, output)[1] == {failed[0]: 2}


def test_a_run_keeps_the_number_type_it_was_begun_with(photos, output):
    uri = store.join(output, "_ledger", "run.json")
    ledger = planned(photos, output)
    assert "precision" not in json.loads(store.read_bytes(uri))
    before = json.loads(store.read_bytes(uri))
    assert ledger.settle_precision("float32") == "float32"
    assert json.loads(store.read_bytes(uri)) == sealed(before | {"precision": "float32"})
    # a later start, whose machine would take another
    assert planned(photos, output).settle_precision("bfloat16") == "float32"
    assert json.loads(store.read_bytes(uri)) == sealed(before | {"precision": "float32"})


def test_what_number_type_is_written_down_counts_whoever_wrote_it(photos, output):
    uri = store.join(output, "_ledger", "run.json")
    ledger = planned(photos, output)
    told = json.loads(store.read_bytes(uri)) | {"precision": "bfloat16"}
    store.write_bytes(uri, json.dumps(told).encode())
    assert ledger.settle_precision("float32") == "bfloat16"
    assert json.loads(store.read_bytes(uri)) == told


def test_a_new_run_settles_its_number_type_anew(photos, output):
    planned(photos, output).settle_precision("float32")
    other = planned(photos, output, SETTINGS | {"eta": 1.0}, new_run=True)
    assert other.settle_precision("bfloat16") == "bfloat16"


def test_another_setting_is_refused_and_named(photos, output):
    planned(photos, output)
    with pytest.raises(RefusedMix, match=r"other settings \(eta: 0\.5 → 0\.7\)"):
        Ledger(output, SETTINGS | {"eta": 0.7}).claim(photos)


def test_another_input_is_refused_and_named(photos, output, tmp_path):
    planned(photos, output)
    with pytest.raises(RefusedMix, match=r"holds a run over .*photos, not over elsewhere"):
        Ledger(output, SETTINGS).claim("elsewhere")


def test_a_changed_picture_is_refused_by_name(photos, output):
    planned(photos, output)
    store.write_bytes(store.join(photos, "b.jpg"), b"something else")
    with pytest.raises(RefusedMix, match=r"b\.jpg has changed since this output was planned"):
        planned(photos, output)


def test_pictures_that_come_later_are_simply_done(photos, output):
    for unit in planned(photos, output).pending():
        finish(output, unit)
    store.write_bytes(store.join(photos, "aa.jpg"), b"new")
    again = planned(photos, output)
    again.resume()
    assert [[a.member for a in unit_of(output, u).images] for u in again.pending()] == [["aa.jpg"]]


@pytest.fixture
def done(photos, output):
    """All three units done, with everything that they leave."""
    for pending in planned(photos, output).pending():
        unit = unit_of(output, pending)
        for path in unit.paths[:-3]:
            store.write_bytes(store.join(output, path), b"ours")
        for path in (f"{unit.faces_folder}/0000-00-after.png", f"{unit.tiles_folder}/0000-00.jpg"):
            store.write_bytes(store.join(output, path), b"ours")
        store.write_bytes(store.join(output, f"_ledger/verdicts/{unit.name}.json"), verdicts_to_json([]))
        finish(output, pending)
    store.write_bytes(store.join(output, "report/index.html"), b"ours")
    store.write_bytes(store.join(output, "images/mine.txt"), b"not of the run")


def left(output):
    """What lies in the output, but for the books of the run that is there now."""
    return {e.path for e in store.list_files(output)} - {"_ledger/run.json", "_ledger/plan.json"}


def test_a_new_run_deletes_what_another_left_and_nothing_else(photos, output, done):
    ledger = planned(photos, output, SETTINGS | {"eta": 0.7}, new_run=True)
    assert ledger.resume() == [] and ledger.units_pending == 3
    plans = {f"_ledger/plan/images-0000{i}.json" for i in (0, 1)}
    assert left(output) == plans | {"images/mine.txt"}
    # it is a run like any other now
    with pytest.raises(RefusedMix, match=r"eta: 0\.7 → 0\.5"):
        planned(photos, output)


def test_the_command_of_a_new_run_goes_on_with_it_when_given_again(photos, output, done):
    changed = SETTINGS | {"eta": 0.7}
    finish(output, next(planned(photos, output, changed, new_run=True).pending()))
    again = planned(photos, output, changed, new_run=True)
    again.resume()
    assert again.units_pending == 2


def test_a_new_run_that_was_killed_while_it_deleted_is_begun_by_any_start(photos, output, done, monkeypatch):
    deleted = []

    def die_at_the_third(uri, delete=store.delete):
        if len(deleted) == 3:
            raise KeyboardInterrupt
        deleted.append(uri)
        delete(uri)

    with monkeypatch.context() as patch:
        patch.setattr(store, "delete", die_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            planned(photos, output, SETTINGS | {"eta": 0.7}, new_run=True)
    # neither the old run nor a mixture of both
    again = planned(photos, output)
    assert again.resume() == [] and again.units_pending == 3
    assert not [path for path in left(output) if path.startswith(("records/", "faces/", "_ledger/done"))]


def test_a_changed_picture_can_be_done_again_alone(photos, output, done):
    store.write_bytes(store.join(photos, "b.jpg"), b"something else")
    ledger = planned(photos, output, redo_changed=True)
    ledger.resume()
    assert [(u.name, u.attempts) for u in ledger.pending()] == [("images-00000-0000", 2)]
    assert [a.length for a in unit_of(output, next(ledger.pending())).images] == [1, 14]
    # killed here: the order stands, and what is planned now is no longer changed
    assert list(resumed(photos, output)[1].items()) == [("images-00000-0000", 2)]
    finish(output, next(ledger.pending()))
    assert resumed(photos, output)[1] == {}


def test_an_order_that_was_killed_before_it_was_planned_is_one_attempt(photos, output, done, monkeypatch):
    store.write_bytes(store.join(photos, "b.jpg"), b"something else")
    monkeypatch.setattr(Ledger, "_save_plan", lambda _: None)
    for _ in range(2):
        planned(photos, output, redo_changed=True)
    monkeypatch.undo()
    with pytest.raises(RefusedMix):
        planned(photos, output)
    planned(photos, output, redo_changed=True)
    assert resumed(photos, output)[1] == {"images-00000-0000": 2}


def tar_of(folder, names):
    import tarfile

    with tarfile.open(folder / "s.tar", "w") as tar:
        for name in names:
            tar.add(folder / "photos" / f"{name}.jpg", f"{name}.jpg")
    return str(folder / "s.tar")


def test_a_shard_that_became_shorter_loses_its_last_units(photos, output, tmp_path):
    source = tar_of(tmp_path, "abcde")
    for pending in planned(source, output).pending():
        unit = unit_of(output, pending)
        written = [Output(unit.shard_path, "", 0)]
        store.write_bytes(store.join(output, unit.shard_path), b"old")
        marker = make_marker(
            unit, [ImageRecord(a.member, outcome="no_face") for a in unit.images], [], {}, written
        )
        store.write_bytes(store.join(output, unit.marker_path), marker.to_json().encode())
    tar_of(tmp_path, "ab")
    ledger = planned(source, output, redo_changed=True)
    ledger.resume()
    assert [(u.name, u.attempts) for u in ledger.pending()] == [("s-0000", 2)]
    assert ledger.images_planned == 2
    assert {"shards/s-0000.tar", "_ledger/done/s/0000.json"} <= left(output)
    assert not {"shards/s-0001.tar", "_ledger/done/s/0001.json", "shards/s-0002.tar"} & left(output)


def test_a_damaged_marker_counts_as_none(photos, output, done):
    for damage in (b"", b"{", b"[]", b'{"unit": "images-00000-0000"}'):
        store.write_bytes(store.join(output, "_ledger/done/images-00000/0000.json"), damage)
        assert resumed(photos, output)[1] == {"images-00000-0000": 1}


def test_a_marker_without_an_outcome_for_every_image_can_not_be_made(photos, output):
    unit = unit_of(output, next(planned(photos, output).pending()))
    with pytest.raises(ValueError, match="every image needs one of"):
        make_marker(unit, [ImageRecord("a.jpg")], [], {}, [])


def test_shards_without_images_are_refused(tmp_path, output):
    import tarfile

    tarfile.open(tmp_path / "empty.tar", "w").close()
    ledger = Ledger(output, SETTINGS)
    with pytest.raises(InputError, match="hold no images"):
        ledger.plan(str(tmp_path / "empty.tar"), "auto", 4, 2, "image")


def test_two_runs_of_one_command_have_identities_of_their_own(photos, tmp_path):
    one, other = (planned(photos, str(tmp_path / name)) for name in ("one", "other"))
    assert one.run != other.run and len(one.run) == 32
    assert {unit_of(str(tmp_path / "one"), p).run for p in one.pending()} == {one.run}


def test_another_runs_marker_is_none(photos, output):
    ledger = planned(photos, output)
    [first, *_] = ledger.pending()
    marker = json.loads(finish(output, first))
    store.write_bytes(
        store.join(output, unit_of(output, first).marker_path), json.dumps(marker | {"run": "other"}).encode()
    )
    assert ledger.add(json.dumps(marker | {"run": "other"})) == (Counts(), None)
    ledger.resume()
    assert first in list(ledger.pending()) and ledger.totals.counts.images == 0


def test_another_runs_plan_is_none(photos, output):
    ledger = planned(photos, output)
    before = list(ledger.pending())
    uri = store.join(output, "_ledger/plan.json")
    plan = json.loads(store.read_bytes(uri))
    store.write_bytes(uri, json.dumps({"run": "other", "shards": plan["shards"][:1]}).encode())
    assert list(planned(photos, output).pending()) == before
    assert json.loads(store.read_bytes(uri)) == plan


def test_an_output_of_a_version_that_named_no_run_goes_on(photos, output):
    ledger = planned(photos, output)
    [first, *rest] = ledger.pending()
    marker = json.loads(finish(output, first))
    for name in ("_ledger/run.json", unit_of(output, first).marker_path):
        values = json.loads(store.read_bytes(store.join(output, name)))
        store.write_bytes(
            store.join(output, name),
            json.dumps({k: v for k, v in values.items() if k not in ("run", "seal")}).encode(),
        )
    for path in ("plan.json", "plan/images-00000.json", "plan/images-00001.json"):
        uri = store.join(output, "_ledger", path)
        values = json.loads(store.read_bytes(uri))
        units = values["shards"] if path == "plan.json" else values
        old = [{k: v for k, v in unit.items() if k not in ("run", "digest")} for unit in units]
        store.write_bytes(uri, json.dumps(old).encode())
    again = planned(photos, output)
    again.resume()
    assert again.run == "" and list(again.pending()) == rest
    assert again.totals.counts.images == marker["images"]


def test_a_driver_that_was_followed_writes_no_plan_and_no_order(photos, output):
    drives = True
    ledger = Ledger(output, SETTINGS, lambda: drives)
    ledger.claim(photos)
    drives = False
    with pytest.raises(Fenced, match="another run or start has taken the output over"):
        ledger.plan(photos, "auto", 4, 2, "image")
    with pytest.raises(Fenced):
        ledger.settle_precision("float32")
    assert not store.exists(store.join(output, "_ledger/plan.json"))


def test_a_run_keeps_the_cut_that_it_was_begun_with_however_its_input_grows(photos, output):
    kind, entries = list_input(photos, "auto")
    assert unit_images_of(output, kind, entries) == 1
    planned(photos, output, SETTINGS | {"unit_images": 3}, unit_images=3)
    assert unit_images_of(output, kind, entries * 1000) == 3
    store.write_bytes(store.join(output, "_ledger/run.json"), b"{}")
    assert unit_images_of(output, kind, entries * 1000) == 64
