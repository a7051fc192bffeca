"""What is planned and done survives everything, and an output never mixes two runs."""

import json

import pytest

from pipeline import store
from pipeline.ledger import Ledger, RefusedMix
from pipeline.records import ImageRecord
from pipeline.stages.plan import InputError
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


def planned(photos, output, settings=SETTINGS):
    ledger = Ledger(output, settings)
    ledger.claim(photos)
    ledger.plan(photos, "auto", shard_images=4, unit_images=2, image_column="image")
    return ledger


def finish(output, unit, outcome="no_face", stage="", reason=""):
    records = [ImageRecord(a.member, outcome=outcome, stage=stage, reason=reason) for a in unit.images]
    text = json.dumps(make_marker(unit, records, [], {"seconds_read": 1.0}, []))
    store.write_bytes(store.join(output, unit.marker_path), text.encode())
    return text


def test_every_image_is_planned_once(photos, output):
    ledger = planned(photos, output)
    units = list(ledger.pending())
    assert [u.name for u in units] == ["images-00000-0000", "images-00000-0001", "images-00001-0000"]
    assert sorted(a.member for u in units for a in u.images) == [f"{n}.jpg" for n in "abcde"]
    assert (ledger.images_planned, ledger.units_planned) == (5, 3)


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
    assert [[a.member for a in u.images] for u in again.pending()] == [["aa.jpg"]]


def test_a_marker_without_an_outcome_for_every_image_can_not_be_made(photos, output):
    unit = next(iter(planned(photos, output).pending()))
    with pytest.raises(ValueError, match="every image needs one of"):
        make_marker(unit, [ImageRecord("a.jpg")], [], {}, [])


def test_shards_without_images_are_refused(tmp_path, output):
    import tarfile

    tarfile.open(tmp_path / "empty.tar", "w").close()
    ledger = Ledger(output, SETTINGS)
    with pytest.raises(InputError, match="hold no images"):
        ledger.plan(str(tmp_path / "empty.tar"), "auto", 4, 2, "image")
