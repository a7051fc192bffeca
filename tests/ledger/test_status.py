"""Where a run stands is told from its markers: cheaply, whatever is missing or damaged, and never a guess too many."""

import json
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.io import store
from pipeline.io.units import Unit
from pipeline.ledger import status_text
from pipeline.ledger.lease import TIMEOUT, Start
from pipeline.ledger.ledger import READERS, Ledger
from pipeline.ledger.output import NoRun
from pipeline.ledger.status import MOST_PROBLEMS, RATE_SECONDS, Observer, State, set_pace
from pipeline.records.rows import ImageRecord
from pipeline.records.seal import sealed
from pipeline.stages.record import make_marker, record_table

SETTINGS = {"eta": 0.5, "start_step": 60, "seed": 0, "weights": {"prior": "a" * 64, "estimator": "b" * 64}}
# Seconds since 1970 at which the first unit of a synthetic run was finished; each further one takes a second.
START = 1_700_000_000.0
IMAGES = 2


@dataclass(frozen=True)
class Output:
    """An output without pictures: run file, plan, and the markers that a test writes."""

    root: Path

    def plan(self, shards: int, units: int) -> "Output":
        """So many shards of so many units, two images each."""
        ledger = self.ledger()
        ledger.claim("s3://name:word@archive/photos", repeat={"config": {"preset": "small-srcnn"}})
        planned = [
            {"name": f"s{i}", "kind": "folder", "units": units, "images": IMAGES * units, "files": []}
            for i in range(shards)
        ]
        self.write("_ledger/plan.json", json.dumps(sealed({"run": ledger.run, "shards": planned})))
        return self

    @property
    def run(self) -> str:
        """The identity of its run."""
        return str(json.loads((self.root / "_ledger/run.json").read_bytes())["run"])

    def ledger(self) -> Ledger:
        return Ledger(str(self.root), SETTINGS)

    def write(self, path: str, text: str | bytes) -> None:
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(text.encode() if isinstance(text, str) else text)

    def marker(self, shard: int, part: int, *outcomes: str, records: bool = False, **changed: Any) -> None:
        """The marker of a unit whose images ended so; `failed` ones were truncated, `skipped` ones animated."""
        attempts = changed.get("attempts", 1)
        unit = Unit(f"s{shard}", "folder", part, False, (), attempts=attempts, run=self.run)
        why = {"failed": ("truncated", "read", f"ends early in {part}"), "skipped": ("animated", "read", "")}
        images = [ImageRecord(f"{part}-{i}.jpg") for i in range(len(outcomes))]
        for image, outcome in zip(images, outcomes, strict=True):
            image.settle(outcome, *why.get(outcome, ()))
        made = replace(make_marker(unit, images, [], {}, []), finished_at=START + part)
        values = json.loads(made.to_json()) | changed
        self.write(unit.marker_path, json.dumps(values))
        if records:
            self.write(f"records/{unit.name}.parquet", record_table(unit, images, [], {}))

    def markers(self, shards: Iterable[int], parts: Iterable[int]) -> None:
        """Markers of restored pictures."""
        parts = list(parts)
        for shard in shards:
            for part in parts:
                self.marker(shard, part, "restored", "no_face")

    def driver(self, **values: object) -> None:
        """A driver on another machine, which said at START that it lives."""
        start = Start(1, "elsewhere", 77, "boot:1", began_at=START, seen_at=START)
        self.write(start.path, replace(start, **values).to_json())

    def look(self, now: float = START, errors: int = 5) -> State:
        return Observer(str(self.root)).look(errors, now)


@pytest.fixture
def output(tmp_path) -> Output:
    return Output(tmp_path / "out")


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """The places read from now on."""
    seen: list[str] = []
    read = store.read_bytes

    def noted(uri: str) -> bytes:
        seen.append(uri)
        return read(uri)

    monkeypatch.setattr(store, "read_bytes", noted)
    return seen


def test_a_run_that_is_half_done_is_told_with_its_rate_and_the_time_left(output):
    output.plan(2, 10).markers([0], range(10))
    output.marker(0, 4, "failed", "skipped")
    output.driver()
    state = output.look(now=START + 12)
    assert (state.shards_done, state.units_done, state.images) == (1, 10, 20)
    assert (state.shards_planned, state.units_planned, state.images_planned) == (2, 20, 40)
    assert state.outcomes == {"restored": 9, "no_face": 9, "skipped": 1, "failed": 1}
    assert state.reasons == {"skipped": {"read: animated": 1}, "failed": {"read: truncated": 1}}
    assert state.shards_with_failures == 1
    # nine units of two images in the nine seconds after the first
    assert (state.images_per_second, state.rate_seconds, state.seconds_left) == (2.0, 9.0, 10.0)
    assert (state.last_unit_at, state.at_work, state.complete) == (START + 9, True, False)
    assert (state.preset, state.name, state.problems) == ("small-srcnn", "out", [])
    assert len(state.fingerprint) == 16


def test_faces_left_by_size_or_number_are_shown_below_those_left(output):
    output.plan(1, 2)
    left = {"faces_left": 60.0, "faces_left_small": 3.0, "faces_left_surplus": 56.0}
    output.marker(0, 0, "restored", faces=124, sums=left | {"faces_chain": 64.0})
    output.marker(0, 1, "restored", faces=5, sums={"faces_left": 2.0, "faces_left_small": 2.0})
    state = output.look()
    assert state.left_for == {"small": 5, "surplus": 56}
    shown = [" ".join(line.split()) for line in status_text.lines(state)]
    at = shown.index("left as it was 62")
    assert shown[at + 1 : at + 3] == ["smaller than --min-face 5", "beyond --max-faces 56"]


def test_faces_are_told_apart_by_what_was_decided_of_them(output):
    output.plan(1, 3)
    output.marker(0, 0, "restored", faces=3, sums={"faces_left": 1.0, "faces_chain": 2.0, "crops": 3.0})
    output.marker(0, 1, "skipped", faces=1, sums={"faces_left": 1.0, "faces_estimator": 0.0, "crops": 0.0})
    state = output.look()
    assert (state.faces, state.decisions) == (4, {"left": 2, "estimator": 0, "chain": 2})
    # a unit of a run from before they were told apart, done in the place of another
    output.marker(0, 0, "restored", faces=5, sums={"faces_kept": 2.0})
    state = output.look()
    assert (state.faces, state.decisions) == (6, {"left": 1, "estimator": 0, "chain": 0})


def test_environments_whose_bits_may_differ_are_shown_where_there_are_two(output):
    output.plan(1, 3)
    card, processor = {"device": "NVIDIA H200", "torch": "2.15"}, {"device": "AMD EPYC", "torch": "2.15"}
    output.marker(0, 0, "restored", "restored", environment=card)
    output.marker(0, 1, "restored", "restored", environment=card)
    state = output.look()
    assert state.environments == {"NVIDIA H200, torch 2.15": 2}
    assert not any("NVIDIA" in line for line in status_text.lines(state))
    output.marker(0, 2, "restored", "restored", environment=processor)
    shown = [" ".join(line.split()) for line in status_text.lines(output.look())]
    assert {"units 2 on NVIDIA H200, torch 2.15", "units 1 on AMD EPYC, torch 2.15"} <= set(shown)


def test_a_finished_run_balances_and_nobody_works_on_it(output):
    output.plan(2, 3).markers([0, 1], range(3))
    state = output.look(now=START + 3)
    assert (state.complete, state.problems, state.at_work, state.seconds_left) == (True, [], False, None)


def test_credentials_in_an_address_are_not_shown(output):
    shown = json.dumps(output.plan(1, 1).look().to_json())
    assert "s3://***@archive/photos" in shown and "word" not in shown


@pytest.mark.slow
def test_ten_thousand_markers_are_read_once_by_few_threads(output, reads, monkeypatch):
    output.plan(10, 1000).markers(range(10), range(1000))
    observer = Observer(str(output.root))
    most, before = 0, threading.active_count()
    read = store.read_bytes

    def counting(uri: str) -> bytes:
        nonlocal most
        most = max(most, threading.active_count() - before)
        return read(uri)

    monkeypatch.setattr(store, "read_bytes", counting)
    state = observer.look(now=START)
    assert (state.units_done, state.images, state.complete) == (10_000, 20_000, True)
    assert 1 <= most <= READERS
    assert sum("/done/" in uri for uri in reads) == 10_000
    reads.clear()
    assert observer.look(now=START).images == 20_000
    assert reads == []
    output.marker(3, 7, "failed", "restored", "no_face")
    state = observer.look(errors=0, now=START)
    assert [Path(uri).name for uri in reads] == ["0007.json"]
    assert (state.images, state.outcomes["failed"]) == (20_001, 1)
    (output.root / "_ledger/done/s3/0007.json").unlink()
    assert observer.look(now=START).units_done == 9_999


DAMAGED: dict[str, tuple[Callable[[Output], None], str]] = {
    "cut off": (
        lambda o: o.write("_ledger/done/s0/0001.json", b'{"unit": "s0-0001", "par'),
        "_ledger/done/s0/0001.json: a whole marker was wanted",
    ),
    "no object": (lambda o: o.write("_ledger/done/s0/0001.json", b"[]"), "a whole marker was wanted"),
    "no number": (lambda o: o.marker(0, 1, "restored", faces="many"), "a whole marker was wanted"),
    "of another unit": (
        lambda o: o.write("_ledger/done/s0/0001.json", (o.root / "_ledger/done/s0/0000.json").read_bytes()),
        "0001.json: the marker of this unit was wanted, it is of s0-0000",
    ),
    "an image without outcome": (
        lambda o: o.marker(0, 1, "restored", "restored", images=3),
        "one outcome for each of 3 images was wanted, 2 are there",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_marker_is_named_and_the_others_are_counted(output, name):
    output.plan(1, 3).markers([0], range(3))
    damage, sentence = DAMAGED[name]
    damage(output)
    state = output.look()
    assert len(state.problems) == 1 and sentence in state.problems[0]
    assert state.problems[0].endswith("delete it and run the same restore command again")
    assert (state.units_done, state.images, state.complete, state.all_marked) == (2, 4, False, True)


def test_a_marker_that_is_put_right_is_read_again(output):
    output.plan(1, 2).markers([0], range(2))
    whole = (output.root / "_ledger/done/s0/0001.json").read_bytes()
    output.write("_ledger/done/s0/0001.json", b"")
    observer = Observer(str(output.root))
    assert observer.look().problems
    output.write("_ledger/done/s0/0001.json", whole)
    state = observer.look()
    assert state.complete and not state.problems


@pytest.mark.parametrize("place", [(7, 0), (0, 2)])
def test_a_marker_of_no_planned_unit_is_named_and_not_counted(output, place):
    output.plan(1, 2).markers([0], range(2))
    output.marker(*place, "restored")
    state = output.look()
    told = f"_ledger/done/s{place[0]}/{place[1]:04d}.json: no unit of the plan has this marker"
    assert (state.problems, state.images) == ([told], 4)


def test_a_shard_whose_markers_lost_an_image_does_not_balance(output):
    output.plan(2, 2).markers([0, 1], range(2))
    output.marker(1, 1, "restored")
    [problem] = output.look().problems
    assert problem == "shard s1: 4 images are planned, the markers of all its units have 3"


def test_problems_without_end_are_counted(output):
    output.plan(1, 1)
    for part in range(MOST_PROBLEMS + 5):
        output.write(f"_ledger/done/s0/{part:04d}.json", b"{")
    state = output.look()
    assert (len(state.problems), state.problems_left_out) == (MOST_PROBLEMS, 5)


def test_a_run_without_a_plan_yet_is_unfinished_and_not_wrong(output):
    output.ledger().claim("photos")
    state = output.look()
    assert (state.units_planned, state.complete, state.all_marked, state.problems) == (0, False, False, [])


@pytest.mark.parametrize("file", ["run.json", "plan.json", "retries.json"])
def test_a_damaged_file_of_the_ledger_is_named_and_not_fatal(output, file):
    output.plan(1, 2).markers([0], [0])
    output.write(f"_ledger/{file}", b"{")
    state = output.look()
    assert len(state.problems) == 1 and state.problems[0].startswith(f"_ledger/{file}: ")
    assert state.all_marked == (file == "plan.json")


def test_a_place_without_a_run_is_refused(tmp_path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(NoRun, match="holds no run"):
        Observer(str(tmp_path / "photos"))
    with pytest.raises(store.StoreError, match="there is nothing of that name"):
        Observer(str(tmp_path / "nowhere"))


def test_pictures_that_come_later_are_seen_in_the_plan(output):
    output.plan(1, 2).markers([0], range(2))
    observer = Observer(str(output.root))
    assert observer.look().complete
    plan = json.loads((output.root / "_ledger/plan.json").read_bytes())
    more = [*plan["shards"], plan["shards"][0] | {"name": "s1"}]
    output.write("_ledger/plan.json", json.dumps(sealed(plan | {"shards": more})))
    state = observer.look()
    assert (state.units_done, state.units_planned, state.complete) == (2, 4, False)


def test_units_that_are_to_be_done_again_are_not_done(output):
    output.plan(1, 3).markers([0], range(3))
    output.marker(0, 1, "failed", "restored")
    output.write("_ledger/retries.json", json.dumps({"open": True, "attempts": {"s0-0001": 2}}))
    state = output.look()
    assert (state.units_done, state.units_to_retry, state.all_marked) == (2, 1, False)
    assert state.outcomes["failed"] == 0
    output.marker(0, 1, "restored", "restored", attempts=2)
    state = output.look()
    assert (state.units_done, state.units_to_retry, state.complete) == (3, 0, True)


def test_the_last_errors_come_from_the_newest_units_and_no_more_are_read(output, reads):
    output.plan(1, 50)
    for part in range(50):
        output.marker(0, part, "failed", "no_face" if part % 2 else "failed", records=True)
    observer = Observer(str(output.root))
    reads.clear()
    errors = observer.look(errors=4).errors
    assert [(e["unit"], e["member"]) for e in errors] == [
        ("s0-0049", "49-0.jpg"),
        ("s0-0048", "48-0.jpg"),
        ("s0-0048", "48-1.jpg"),
        ("s0-0047", "47-0.jpg"),
    ]
    assert errors[0] == {
        "unit": "s0-0049",
        "member": "49-0.jpg",
        "stage": "read",
        "reason": "truncated",
        "error": "ends early in 49",
        "attempts": 1,
        "traceback": "",
    }
    assert sum("/records/" in uri for uri in reads) == 3
    reads.clear()
    assert observer.look(errors=4).errors == errors and reads == []
    assert observer.look(errors=0).errors == []


@pytest.mark.parametrize("damage", ["missing", "no table", "other columns"])
def test_records_that_can_not_be_read_are_named_in_place_of_the_errors(output, damage):
    output.plan(1, 1).marker(0, 0, "failed", "restored", records=True)
    place = output.root / "records/s0-0000.parquet"
    if damage == "missing":
        place.unlink()
    elif damage == "no table":
        place.write_bytes(b"PAR1")
    else:
        pq.write_table(pa.table({"kind": ["image"]}), place)
    [error] = output.look().errors
    assert error["unit"] == "s0-0000" and "records/s0-0000.parquet can not be read" in error["error"]


def paced(finished: list[tuple[float, int]], now: float, **values: Any) -> State:
    """A state of an unfinished run with its pace."""
    state = State(
        "out", "out", read_at=now, images_planned=1000, units_planned=99, images=sum(n for _, n in finished)
    )
    for name, value in values.items():
        setattr(state, name, value)
    set_pace(state, finished)
    return state


def test_only_the_last_minutes_count_for_the_rate():
    slow = [(START + 1000 * i, 10) for i in range(5)]
    fast = [(START + 10_000 + i, 10) for i in range(11)]
    state = paced(slow + fast, now=START + 10_010, at_work=True)
    assert (state.images_per_second, state.rate_seconds) == (10.0, 10.0)
    assert state.seconds_left == pytest.approx((1000 - 160) / 10)
    edge = [(START, 10), (START + RATE_SECONDS, 30)]
    assert paced(edge, START + RATE_SECONDS).images_per_second == 30 / RATE_SECONDS


@pytest.mark.parametrize("finished", [[], [(START, 10)], [(START, 10), (START, 10)]])
def test_without_two_moments_there_is_no_rate(finished):
    state = paced(finished, now=START)
    assert (state.images_per_second, state.seconds_left) == (None, None)


def test_a_driver_that_gives_no_sign_any_more_is_not_at_work(output):
    output.plan(1, 3).markers([0], range(2))
    assert not output.look().at_work
    output.driver()
    state = output.look(now=START + TIMEOUT)
    assert (state.at_work, state.stopping, state.starts, state.exit_code) == (True, False, 1, None)
    assert state.driver.startswith("process 77 on elsewhere, started ")
    assert not output.look(now=START + TIMEOUT + 1).at_work
    output.write("_ledger/drivers/0001.stop", b"")
    assert output.look().stopping
    output.driver(ended_at=START + 5, exit_code=130)
    state = output.look(now=START + 6)
    assert (state.at_work, state.stopping, state.exit_code, state.seconds_left) == (False, False, 130, None)


def test_a_clock_that_is_behind_the_workers_breaks_nothing(output):
    output.plan(1, 3).markers([0], range(2))
    output.driver()
    assert output.look(now=START - 60).at_work
