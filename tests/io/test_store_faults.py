"""store over a bad line: a fault that passes is not seen, one that stays is one sentence, and nothing is ever half."""

import asyncio
import io
import itertools
import os
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs
from fault_proxy import ALWAYS, FaultProxy, Rule, fault_proxy
from servers import SECRET_KEY, S3Server, free_ports

from pipeline.io import ranges, s3_store, store
from pipeline.io import s3 as objects
from pipeline.io.listing import PROBE
from pipeline.io.readers import read_unit
from pipeline.io.shards import Shard, cut_units, list_input, make_shards
from pipeline.io.store import StoreError, StoreFull
from pipeline.io.units import Address, Unit

DATA = bytes(range(256)) * 40
# three parts when written, three ranges when read
LARGE = os.urandom(1 << 20) * 11
TRIES = 4


@pytest.fixture(scope="module")
def line(s3: S3Server) -> Iterator[FaultProxy]:
    """A proxy in front of the server; this process's S3 requests go through it until the module ends."""
    with fault_proxy(s3.endpoint) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        patch.setenv("AWS_MAX_ATTEMPTS", str(TRIES))
        patch.setattr(objects, "FIRST_WAIT", 0.02)
        # the smallest that S3 takes
        patch.setattr(objects, "PART_BYTES", 5 << 20)
        s3fs.S3FileSystem.clear_instance_cache()
        yield proxy
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def place(line: FaultProxy, s3: S3Server, tmp_path: Path) -> str:
    """An empty folder of this test's own, and a proxy that has forgotten the test before."""
    line.clear()
    return store.join(s3.uri, tmp_path.name)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A silent server is given up after a second."""
    monkeypatch.setattr(objects, "CONNECT", 0.5)
    monkeypatch.setattr(objects, "SILENCE", 0.5)
    monkeypatch.setattr(objects, "OPTIONS", objects.OPTIONS | {"read_timeout": 1.0})


def streamed(uri: str) -> bytes:
    with store.open_read(uri) as file:
        return file.read()


READS: dict[str, Callable[[str], object]] = {
    "read_bytes": store.read_bytes,
    "read_range": lambda uri: store.read_range(uri, 0, len(DATA)),
    "open_read": streamed,
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
@pytest.mark.parametrize(
    "fault", ["throttled", "reset", "silent", "cut", "cut by reset", "stalled", "shortened"]
)
def test_a_fault_of_reading_that_passes_is_not_seen(line, place, hasty, fault, read):
    store.write_bytes(uri := f"{place}/x", DATA)
    times = 1 if fault in ("silent", "stalled") else TRIES - 1
    line.inject(fault, "GET", times=times)
    before = objects.retries.total()
    assert read(uri) == DATA
    assert Counter(r.fault for r in line.seen("GET", "x"))[fault] == times
    # counted for the metrics; a connection that ends without any answer is begun again below us, once
    assert 0 < objects.retries.total() - before <= times


@pytest.mark.parametrize("read", READS.values(), ids=READS)
@pytest.mark.parametrize("fault", ["throttled", "reset", "cut", "cut by reset", "shortened"])
def test_a_fault_of_reading_that_stays_is_one_sentence_after_the_last_try_and_never_part_of_a_file(
    line, place, fault, read
):
    store.write_bytes(uri := f"{place}/x", DATA)
    line.inject(fault, "GET")
    with pytest.raises(StoreError, match="could not read s3://") as caught:
        read(uri)
    assert "\n" not in str(caught.value)
    # where a connection ends without any answer, the HTTP library itself sends the request once more
    assert TRIES <= len(line.seen("GET", "x")) <= TRIES * (2 if fault == "reset" else 1)


@pytest.mark.parametrize("fault", ["throttled", "reset", "silent", "lost"])
@pytest.mark.parametrize("action", ["write", "delete", "stat", "list", "exists"])
def test_every_other_request_is_retried_too(line, place, hasty, fault, action):
    store.write_bytes(uri := f"{place}/x", DATA)
    line.inject(fault, times=1)
    match action:
        case "write":
            store.write_bytes(uri, b"new")
            assert store.read_bytes(uri) == b"new"
        case "delete":
            store.delete(uri)
            assert not store.exists(uri)
        case "stat":
            assert store.stat(uri).size == len(DATA)
        case "list":
            assert [e.path for e in store.list_files(place)] == ["x"]
        case "exists":
            assert store.exists(uri)
    assert Counter(r.fault for r in line.requests)[fault] == 1


def test_a_write_that_fails_for_good_leaves_the_old_object(line, place, hasty):
    store.write_bytes(uri := f"{place}/x", DATA)
    line.clear()
    line.inject("silent", "PUT")
    with pytest.raises(StoreError, match="the server does not answer"):
        store.write_bytes(uri, b"new")
    assert len(line.seen("PUT")) == TRIES
    line.clear()
    assert store.read_bytes(uri) == DATA


def test_a_file_that_can_not_be_looked_for_is_not_taken_as_missing(line, place, s3):
    line.inject("throttled", "HEAD|GET")
    for uri in (f"{place}/x", place, s3.uri):
        with pytest.raises(StoreError, match="could not look for"):
            store.exists(uri)


def test_the_waits_are_drawn_double_and_have_a_cap(monkeypatch):
    monkeypatch.setattr(objects, "FIRST_WAIT", 1.0)
    caps = [min(2.0**attempt, objects.LONGEST_WAIT) for attempt in range(12)]
    assert caps[-1] == objects.LONGEST_WAIT
    drawn = [[objects.wait_after(attempt) for attempt in range(12)] for _ in range(20)]
    assert all(cap / 2 <= wait <= cap for waits in drawn for wait, cap in zip(waits, caps, strict=True))
    assert len({waits[0] for waits in drawn}) == 20


def test_no_try_begins_after_the_timeout(line, place, monkeypatch):
    monkeypatch.setattr(objects, "RETRY_TIMEOUT", 0.0)
    line.inject("throttled")
    with pytest.raises(StoreError, match="too many requests"):
        store.read_bytes(f"{place}/x")
    assert len(line.requests) == 1


def test_an_object_replaced_while_it_is_read_is_an_error_and_no_mixture(line, place):
    uri = f"{place}/x"
    store.write_bytes(uri, os.urandom(400_000))
    with store.open_read(uri) as file:
        file.read(10)
        store.write_bytes(uri, os.urandom(400_000))
        with pytest.raises(StoreError, match="replaced while it was being read"):
            file.read()


def test_a_lost_answer_to_a_conditional_put_leaves_one_whole_object_and_no_second_winner(line, place):
    uri = f"{place}/claim"
    line.inject("lost", "PUT", times=1)
    won = [store.create_bytes(uri, b"first"), store.create_bytes(uri, b"second")]
    assert won == [False, False]
    assert store.read_bytes(uri) == b"first"


# ---- objects of several parts


def uploads(s3: S3Server) -> list[object]:
    """Multipart uploads that nobody completed or aborted."""
    client = s3fs.S3FileSystem(endpoint_url=s3.endpoint, use_listings_cache=False)
    return client.list_multipart_uploads(s3.uri.removeprefix("s3://"))


def test_a_large_object_is_written_and_read_in_parts_each_tried_again_by_itself(line, place, s3):
    uri = f"{place}/large"
    line.rules += [
        Rule("reset", "PUT", "partNumber=2", times=2),
        Rule("throttled", "POST", "uploads", times=1),
        Rule("lost", "POST", "uploadId", times=1),
    ]
    store.write_bytes(uri, LARGE)
    assert len(line.seen("PUT", "partNumber=1")) == 1
    assert [r.fault for r in line.seen("PUT", "partNumber=2")] == ["reset", "reset", ""]
    line.inject("cut", "GET", times=2)
    assert store.read_bytes(uri) == LARGE
    assert len(line.seen("GET", "large")) == 5
    assert uploads(s3) == []


@pytest.mark.parametrize(("method", "target"), [("PUT", "partNumber=3"), ("POST", "uploadId")])
def test_an_upload_that_breaks_off_is_not_seen_and_is_aborted(line, place, s3, method, target):
    line.inject("throttled", method, target)
    with pytest.raises(StoreError, match="could not write"):
        store.write_bytes(f"{place}/large", LARGE)
    assert [e for e in line.seen("DELETE", "uploadId") if e.status == 204]
    assert uploads(s3) == []
    assert not store.exists(f"{place}/large")


def test_what_claims_is_one_plain_put_whatever_its_size(line, place):
    uri = f"{place}/claim"
    bodies = [b"%d" % n + LARGE for n in range(3)]
    with ThreadPoolExecutor(3) as pool:
        won = list(pool.map(lambda body: store.create_bytes(uri, body), bodies))
    assert sum(won) == 1
    # each of the three asked once, and again only where they crossed
    assert {r.headers.get("if-none-match") for r in line.seen("PUT")} == {"*"}
    assert line.seen("POST") == [] and line.seen("PUT", "partNumber") == []
    assert store.read_bytes(uri) == bodies[won.index(True)]


def test_what_is_too_large_for_one_plain_put_claims_nothing_and_nothing_is_asked(line, place, monkeypatch):
    monkeypatch.setattr(objects, "LARGEST_CLAIM", len(LARGE) - 1)
    with pytest.raises(StoreError, match="write them under a name of their own"):
        store.create_bytes(f"{place}/claim", LARGE)
    assert line.requests == []


def test_an_object_written_in_parts_carries_no_condition(line, place):
    store.write_bytes(f"{place}/large", LARGE)
    assert len(line.seen("POST", "uploadId")) == 1
    assert not any("if-none-match" in r.headers for r in line.requests)


# ---- servers that can not do everything


def test_a_server_that_honours_conditions_passes_the_check_and_nothing_is_left(line, place):
    store.check_claims(place)
    assert len(line.seen("PUT", PROBE)) == 2
    assert not store.exists(place)


@pytest.mark.parametrize("fault", ["unconditional", "unknown"])
def test_a_server_that_ignores_conditions_is_refused_in_one_sentence(line, place, fault):
    line.inject(fault, "PUT", PROBE, header="if-none-match")
    with pytest.raises(
        StoreError, match=r"its server ignores If-None-Match \(conditional writes\)"
    ) as caught:
        store.check_claims(place)
    assert "AWS S3" in str(caught.value) and "\n" not in str(caught.value)
    line.clear()
    assert not store.exists(place)


def test_starts_that_check_at_the_same_time_do_not_refuse_each_other(line, place):
    def check(_: int) -> None:
        store.check_claims(place)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(check, range(24)))
    assert not store.exists(place)


def test_a_probe_that_another_start_deletes_is_no_sign_of_a_bad_server(line, place, monkeypatch):
    create, probes = s3_store.swap_bytes, []

    def deleted_before(uri, *args):
        probes.append(uri)
        if len(probes) == 1:
            store.delete(uri)
        return create(uri, *args)

    monkeypatch.setattr(s3_store, "swap_bytes", deleted_before)
    store.check_claims(place)
    assert len(set(probes)) == 2


def test_the_check_passes_over_a_probe_that_an_earlier_start_had_no_right_to_delete(line, place):
    line.inject("denied", "DELETE")
    for _ in range(2):
        store.check_claims(place)
    line.clear()
    assert store.exists(f"{place}/{PROBE}")


CHECKSUMS = "x-amz-checksum-|x-amz-sdk-checksum-|x-amz-trailer"


@pytest.fixture
def forgetful() -> Iterator[None]:
    """What this process learns of a server's checksums is forgotten again."""
    s3_store.refuses_checksums.clear()
    yield
    s3_store.refuses_checksums.clear()


def test_a_server_that_refuses_checksums_is_asked_without_them_from_then_on(line, place, forgetful):
    line.inject("unknown", header=CHECKSUMS)
    store.write_bytes(f"{place}/x", DATA)
    store.write_bytes(f"{place}/large", LARGE)
    assert store.create_bytes(f"{place}/claim", b"1") is True
    assert store.create_bytes(f"{place}/claim", b"2") is False
    assert (store.read_bytes(f"{place}/x"), store.read_bytes(f"{place}/large")) == (DATA, LARGE)
    assert [e.path for e in store.list_files(place)] == ["claim", "large", "x"]
    # the first request alone found out, for every kind of request
    assert [r.fault for r in line.requests if r.fault] == ["unknown"]


def test_a_server_that_takes_checksums_gets_them(line, place, forgetful):
    store.write_bytes(f"{place}/x", DATA)
    (put,) = line.seen("PUT")
    assert any(name.startswith("x-amz-checksum-") for name in put.headers)


def test_a_server_that_refuses_a_request_with_checksums_and_without_is_one_sentence(line, place, forgetful):
    line.inject("unknown", "PUT")
    with pytest.raises(StoreError, match="AWS_REQUEST_CHECKSUM_CALCULATION=when_required") as caught:
        store.write_bytes(f"{place}/x", DATA)
    assert "\n" not in str(caught.value)
    line.clear()
    store.write_bytes(f"{place}/x", DATA)
    assert any(name.startswith("x-amz-checksum-") for name in line.seen("PUT")[0].headers)


def test_a_full_server_is_an_error_of_its_own_at_once(line, place):
    line.inject("full", "PUT")
    with pytest.raises(StoreFull, match="the disk is full; free space and start the same command again"):
        store.write_bytes(f"{place}/x", DATA)
    assert len(line.seen("PUT")) == 1


# ---- a store that is away for a while


def test_a_store_that_is_away_for_many_tries_is_waited_for(line, place, monkeypatch):
    monkeypatch.delenv("AWS_MAX_ATTEMPTS")
    monkeypatch.setattr(objects, "wait_after", lambda attempt: 0.001)
    store.write_bytes(f"{place}/x", DATA)
    line.inject("throttled", times=30)
    assert store.read_bytes(f"{place}/x") == DATA
    assert Counter(r.fault for r in line.seen("GET")) == {"throttled": 30, "": 1}


def test_a_server_that_refuses_connections_for_many_tries_is_waited_for(s3, place, monkeypatch):
    store.write_bytes(f"{place}/x", DATA)
    (port,) = free_ports(1)
    monkeypatch.delenv("AWS_MAX_ATTEMPTS")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    s3fs.S3FileSystem.clear_instance_cache()
    waited = []
    with ExitStack() as server:

        def wait_after(attempt: int) -> float:
            waited.append(attempt)
            if attempt == 11:
                server.enter_context(fault_proxy(s3.endpoint, port))
            return 0.001

        monkeypatch.setattr(objects, "wait_after", wait_after)
        assert store.read_bytes(f"{place}/x") == DATA
    assert waited == list(range(12))
    s3fs.S3FileSystem.clear_instance_cache()


def test_tries_go_on_until_the_timeout_and_the_last_one_begins_then(monkeypatch):
    monkeypatch.delenv("AWS_MAX_ATTEMPTS", raising=False)
    now, begun = 0.0, []

    class Away:
        """A server that nobody reaches, in a time that passes by waiting alone."""

        async def _call_s3(self, method: str, **request: object) -> None:
            begun.append(now)
            raise ConnectionRefusedError

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(objects, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(objects.asyncio, "sleep", sleep)
    with pytest.raises(ConnectionRefusedError):
        asyncio.run(objects.ask(Away(), "get_object"))
    assert begun[0] == 0 and begun[-1] == objects.RETRY_TIMEOUT == 180
    assert len(begun) > 12
    waits = [after - before for before, after in itertools.pairwise(begun)]
    assert min(waits) > 0 and max(waits) <= objects.LONGEST_WAIT


def test_the_number_of_tries_that_the_user_sets_is_kept(line, place, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    line.inject("throttled")
    with pytest.raises(StoreError, match="too many requests"):
        store.read_bytes(f"{place}/x")
    assert len(line.requests) == 2


def test_the_wait_after_a_try_that_nobody_counts_is_a_number():
    assert objects.wait_after(100_000) <= objects.LONGEST_WAIT


# ---- what is asked for


@pytest.mark.slow
def test_each_page_of_a_listing_is_asked_for_once_and_nothing_of_a_single_object(line, place, s3):
    names = [f"{i:05d}.jpg" for i in range(2_001)]
    direct = s3fs.S3FileSystem(endpoint_url=s3.endpoint)
    direct.pipe({f"{place}/{name}": b"1" for name in names})
    line.inject("throttled", after=1, times=1)
    kind, found = list_input(place, "auto")
    (shard,) = make_shards(kind, found, len(found))
    assert [a.member for unit in cut_units(shard, 64, "image") for a in unit.images] == names
    pages = Counter(r.target for r in line.requests if not r.fault)
    assert len(pages) == 3 and set(pages.values()) == {1}
    assert line.seen("GET", "list-type=2") == line.requests


def big_tar(sizes: list[int]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for number, size in enumerate(sizes):
            info = tarfile.TarInfo(f"{number:03d}.png")
            info.size = size
            tar.addfile(info, io.BytesIO(bytes(size)))
    return buffer.getvalue()


def test_planning_a_tar_of_large_members_reads_little_more_than_their_headers(line, place):
    store.write_bytes(uri := f"{place}/a.tar", big_tar([2 << 20] * 12))
    entry = store.stat(uri)
    line.clear()
    units = cut_units(Shard("a", "tar", (entry,)), 4, "image")
    assert [len(unit.images) for unit in units] == [4, 4, 4]
    got = line.seen("GET")
    # one request a member, and the two at either end
    assert len(got) <= 14
    assert sum(r.body_bytes for r in got) <= 14 * ranges.SMALLEST_BLOCK < entry.size / 20


def test_planning_a_tar_of_small_members_reads_through_it_in_large_blocks(line, place):
    store.write_bytes(uri := f"{place}/a.tar", big_tar([100_000] * 300))
    entry = store.stat(uri)
    line.clear()
    units = cut_units(Shard("a", "tar", (entry,)), 64, "image")
    assert sum(len(unit.images) for unit in units) == 300
    got = line.seen("GET")
    assert len(got) <= 14
    assert sum(r.body_bytes for r in got) <= entry.size


def test_a_picture_of_a_tar_costs_one_request_of_its_own_bytes(line, place):
    store.write_bytes(uri := f"{place}/a.tar", big_tar([100_000, 70_000, 90_000]))
    (unit,) = cut_units(Shard("a", "tar", (store.stat(uri),)), 4, "image")
    line.clear()
    assert [len(data) for _, data in read_unit(unit, "image")] == [100_000, 70_000, 90_000]
    assert [r.body_bytes for r in line.requests] == [100_000, 70_000, 90_000]


def test_a_unit_of_parquet_reads_its_row_groups_and_not_the_whole_file(line, place):
    rows = [os.urandom(50_000) for _ in range(80)]
    buffer = io.BytesIO()
    pq.write_table(pa.table({"image": rows}), buffer, row_group_size=8, compression="none")
    store.write_bytes(uri := f"{place}/a.parquet", buffer.getvalue())
    images = tuple(Address(str(row), uri, row, 0) for row in range(32, 40))
    line.clear()
    read = read_unit(Unit("a", "parquet", 4, False, images, uri, (0, 0)), "image")
    assert [data for _, data in read] == rows[32:40]
    wanted = 8 * 50_000
    assert wanted <= sum(r.body_bytes for r in line.seen("GET")) <= wanted + 4 * ranges.SMALLEST_BLOCK


def test_the_reader_gives_the_same_bytes_as_a_file_whatever_the_jumps():
    data, fetched = os.urandom(3 << 20), []

    def fetch(begin: int, end: int) -> bytes:
        fetched.append((begin, end))
        return data[begin:end]

    file, plain = ranges.RangeReader(fetch, len(data)), io.BytesIO(data)
    for place, length in [
        (0, 10),
        (5, 100_000),
        (2 << 20, 1),
        (3, 3),
        (3 << 20, 9),
        ((3 << 20) - 7, 99),
        (4 << 20, 1),
    ]:
        assert (file.seek(place), file.read(length)) == (plain.seek(place), plain.read(length))
    assert file.seek(-5, os.SEEK_END) == (3 << 20) - 5
    assert file.read() == data[-5:]
    assert max(end for _, end in fetched) == len(data)
    with pytest.raises(ValueError, match="a place in the file"):
        file.seek(-1)


# ---- rights and secrets


def test_rights_that_do_not_allow_to_read_or_write_are_refused(line, place):
    store.write_bytes(f"{place}/in/x", DATA)
    line.inject("denied", "PUT")
    with pytest.raises(StoreError, match="the rights or credentials we have do not allow it"):
        store.check_writable(f"{place}/out")
    line.clear()
    # a list may be had, the objects not
    line.inject("denied", "HEAD")
    with pytest.raises(StoreError, match="the rights or credentials we have do not allow it"):
        store.check_readable(f"{place}/in")
    assert len(line.seen()) == 2


def test_without_the_right_to_delete_all_but_a_real_deletion_goes(line, place):
    line.inject("denied", "DELETE")
    store.check_writable(place)
    store.delete(f"{place}/never there")
    store.write_bytes(f"{place}/x", DATA)
    with pytest.raises(StoreError, match="do not allow it"):
        store.delete(f"{place}/x")


def test_a_prefix_is_not_readable_because_a_neighbour_begins_alike(line, place):
    store.write_bytes(f"{place}/in2/x", b"1")
    with pytest.raises(StoreError, match="nothing of that name"):
        store.check_readable(f"{place}/in")


@pytest.mark.parametrize(
    "address", ["s3://key:se+cr/et@bucket/in", "s3://key:secret@bucket/in", "s3://key@bucket"]
)
def test_credentials_in_an_address_are_refused_without_being_shown(address, line):
    line.clear()
    for act in (store.check_readable, store.check_writable, store.exists, store.read_bytes, store.list_files):
        with pytest.raises(StoreError, match="an address without credentials was wanted") as caught:
            act(address)
        assert not any(part in str(caught.value) for part in ("key", "cr/et", "secret@"))
    assert line.requests == []


def test_no_failure_shows_a_credential(line, place, monkeypatch, capfd):
    token = "session-token-that-nobody-may-see"
    monkeypatch.setenv("AWS_SESSION_TOKEN", token)
    s3fs.S3FileSystem.clear_instance_cache()
    said = []
    for fault in ("throttled", "denied", "reset", "cut", "lost"):
        line.clear()
        line.inject(fault, times=ALWAYS)
        for act in (store.read_bytes, store.exists, store.check_writable, store.list_files):
            try:
                act(f"{place}/x")
            except StoreError as error:
                assert error.__cause__ is None and error.__suppress_context__
                said.append(repr(error))
    s3fs.S3FileSystem.clear_instance_cache()
    # otherwise nothing was in danger
    assert any(token in r.headers.get("x-amz-security-token", "") for r in line.requests)
    text = " ".join(said) + "".join(capfd.readouterr())
    assert len(said) >= 16
    for secret in (SECRET_KEY, token, "test-access-key", "Signature="):
        assert secret not in text
