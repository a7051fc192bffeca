import hashlib
import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pipeline import store, weights
from pipeline.weights import WeightsError, resolve

DATA = bytes(range(256)) * 9000  # 2.3 MB: more than two pieces of a download
DIGEST = hashlib.sha256(DATA).hexdigest()
NAME = "net.safetensors"


@dataclass
class Site:
    """A published address on loopback, and what it has been asked."""

    url: str = ""
    data: bytes = DATA
    etag: str = '"one"'
    # how many bytes of an answer are sent before the connection breaks; one entry a request
    breaks: list[int] = field(default_factory=list)
    status: int = 200
    asked: list[str | None] = field(default_factory=list)
    sent: int = 0


class Handler(http.server.BaseHTTPRequestHandler):
    site: Site

    def do_GET(self) -> None:
        site = self.site
        wanted = self.headers.get("Range")
        site.asked.append(wanted)
        if site.status != 200:
            self.send_error(site.status)
            return
        start = 0
        if wanted and self.headers.get("If-Range") == site.etag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        self.send_response(206 if start else 200)
        self.send_header("ETag", site.etag)
        self.send_header("Content-Length", str(len(site.data) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(site.data) - 1}/{len(site.data)}")
        self.end_headers()
        stop = start + site.breaks.pop(0) if site.breaks else len(site.data)
        site.sent += len(site.data[start:stop])
        self.wfile.write(site.data[start:stop])

    def log_message(self, *_args: object) -> None:
        pass


@contextmanager
def published() -> Iterator[Site]:
    site = Site()
    handler = type("SiteHandler", (Handler,), {"site": site})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    site.url = f"http://127.0.0.1:{server.server_port}/{NAME}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def site() -> Iterator[Site]:
    with published() as one:
        yield one


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("DIFFACE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(weights, "PACKAGED", tmp_path / "packaged")
    return tmp_path / "cache"


def put(folder: Path, data: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NAME).write_bytes(data)
    return folder / NAME


def kept(cache: Path) -> list[str]:
    """Names of the files in the cache, locks left out."""
    return sorted(p.name for p in cache.rglob("*") if p.is_file() and p.suffix != ".lock")


def test_places_are_searched_in_order(tmp_path, cache, site):
    beside = put(tmp_path / "mine", b"beside")
    places = [
        put(tmp_path / "packaged", b"packaged"),
        put(tmp_path / "weights", b"folder"),
        put(cache, b"cached"),
    ]
    assert resolve(str(beside), site.url, weights_dir=str(tmp_path / "weights")).path == beside
    for place in places:
        found = resolve(NAME, site.url, weights_dir=str(tmp_path / "weights"))
        assert found.path == place
        assert found.sha256 == hashlib.sha256(place.read_bytes()).hexdigest()
        place.unlink()
    assert resolve(NAME, site.url, weights_dir=str(tmp_path / "weights")).sha256 == DIGEST
    assert site.asked == [None]


def test_a_path_that_is_not_there_is_looked_for_by_its_name(tmp_path):
    place = put(tmp_path / "weights", DATA)
    assert resolve(f"/nowhere/{NAME}", weights_dir=str(tmp_path / "weights")).path == place


def test_a_file_that_is_nowhere_names_the_places(tmp_path, cache):
    with pytest.raises(WeightsError) as caught:
        resolve(NAME, weights_dir=str(tmp_path))
    assert str(caught.value) == (
        f"weights file {NAME} is in none of the package, {tmp_path}, {cache}, and it has no published address; "
        "put it into a folder and give that as --weights-dir"
    )


def test_a_weights_dir_that_is_no_folder_is_refused(tmp_path, site):
    with pytest.raises(WeightsError, match="is not a folder; give the folder that holds"):
        resolve(NAME, site.url, weights_dir=str(tmp_path / "typo"))


@pytest.mark.parametrize("place", ["packaged", "weights", "cache"])
def test_a_found_file_with_another_digest_is_refused_and_left_alone(tmp_path, place):
    path = put(tmp_path / place, b"other")
    (tmp_path / "weights").mkdir(exist_ok=True)
    other = hashlib.sha256(b"other").hexdigest()
    with pytest.raises(WeightsError, match=f"{NAME}: wanted sha256 {DIGEST}, got {other}"):
        resolve(NAME, sha256=DIGEST, weights_dir=str(tmp_path / "weights"))
    assert path.read_bytes() == b"other"


def test_a_digest_may_be_written_in_capitals(tmp_path):
    put(tmp_path / "packaged", DATA)
    assert resolve(NAME, sha256=DIGEST.upper()).sha256 == DIGEST


def test_a_changed_file_gets_a_new_digest(tmp_path):
    path = put(tmp_path / "packaged", b"one")
    first = resolve(NAME).sha256
    put(tmp_path / "packaged", b"two!")
    assert resolve(NAME).sha256 != first
    assert resolve(NAME).path == path


def test_a_published_file_is_fetched_once(cache, site, capsys):
    found = resolve(NAME, site.url, DIGEST)
    assert found.path.read_bytes() == DATA
    assert found.sha256 == DIGEST
    assert resolve(NAME, site.url, DIGEST) == found
    assert site.asked == [None]
    assert kept(cache) == [NAME]
    progress = capsys.readouterr().err
    assert progress.endswith(f"fetching {NAME}: 2.3 of 2.3 MB (100 %)\n")


def test_a_download_that_breaks_off_goes_on_where_it_stopped(cache, site):
    site.breaks = [1_000_000]
    assert resolve(NAME, site.url, DIGEST).path.read_bytes() == DATA
    assert site.asked == [None, "bytes=1000000-"]
    assert site.sent == len(DATA)
    assert kept(cache) == [NAME]


def test_a_download_given_up_is_continued_by_the_next_run(cache, site, monkeypatch):
    monkeypatch.setattr(weights, "TRIES", 1)
    site.breaks = [700_000, 0]
    with pytest.raises(WeightsError, match=r"the connection broke off; run again to go on where it stopped"):
        resolve(NAME, site.url, DIGEST)
    assert NAME not in kept(cache)
    assert resolve(NAME, site.url, DIGEST).path.read_bytes() == DATA
    assert site.asked == [None, "bytes=700000-", "bytes=700000-"]


def test_a_file_replaced_between_two_tries_is_fetched_anew(site, monkeypatch):
    monkeypatch.setattr(weights, "TRIES", 1)
    site.breaks = [700_000, 0]
    with pytest.raises(WeightsError):
        resolve(NAME, site.url)
    site.data, site.etag = DATA[::-1], '"two"'
    assert resolve(NAME, site.url).path.read_bytes() == DATA[::-1]


def test_a_published_file_with_another_digest_is_refused_and_not_kept(cache, site):
    with pytest.raises(
        WeightsError, match=rf"{NAME} from {site.url}: wanted sha256 {'0' * 64}, got {DIGEST}"
    ):
        resolve(NAME, site.url, "0" * 64)
    assert kept(cache) == []


def test_a_cached_download_that_was_damaged_is_fetched_again(site):
    path = resolve(NAME, site.url, DIGEST).path
    path.write_bytes(DATA[:-1])
    assert resolve(NAME, site.url, DIGEST).path.read_bytes() == DATA
    assert len(site.asked) == 2


def test_files_of_one_name_from_two_addresses_are_two_files(site):
    with published() as other:
        other.data = b"another network"
        assert resolve(NAME, site.url).path.read_bytes() == DATA
        assert resolve(NAME, other.url).path.read_bytes() == b"another network"


def test_an_address_that_has_no_such_file_is_asked_once(site):
    site.status = 404
    with pytest.raises(
        WeightsError, match=r"could not be fetched: the server answered 404 Not Found; .*--weights-dir"
    ):
        resolve(NAME, site.url)
    assert len(site.asked) == 1


def test_a_server_in_trouble_is_asked_again_and_then_given_up(site, monkeypatch):
    monkeypatch.setattr(weights.time, "sleep", lambda _seconds: None)
    site.status = 503
    with pytest.raises(WeightsError, match="the server answered 503"):
        resolve(NAME, site.url)
    assert len(site.asked) == weights.TRIES


def test_an_address_that_does_not_answer_says_what_to_do(site, monkeypatch):
    monkeypatch.setattr(weights.time, "sleep", lambda _seconds: None)
    with published() as gone:
        url = gone.url
    with pytest.raises(
        WeightsError, match=r"could not be fetched: .*refused.*give its folder as --weights-dir"
    ):
        resolve(NAME, url)


def test_an_address_that_is_no_web_address_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="must start with https:// or http://"):
        resolve(NAME, f"file://{put(tmp_path, DATA)}")


def test_a_cache_that_can_not_be_written_says_so(tmp_path, site, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("DIFFACE_CACHE", str(tmp_path / "file"))
    with pytest.raises(WeightsError, match=r"can not be kept under .* set DIFFACE_CACHE to another folder"):
        resolve(NAME, site.url)


def test_many_processes_at_once_fetch_once_and_all_get_the_whole_file(site):
    script = (
        "import sys; from pipeline.weights import resolve; "
        "print(resolve(sys.argv[1], sys.argv[2], sys.argv[3]).sha256)"
    )
    command = [sys.executable, "-c", script, NAME, site.url, DIGEST]
    site.breaks = [1_000_000]
    actors = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) for _ in range(4)]
    assert [actor.communicate(timeout=60)[0].strip() for actor in actors] == [DIGEST] * 4
    assert site.sent == len(DATA)


def test_many_threads_at_once_fetch_once(site):
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(resolve(NAME, site.url, DIGEST))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1 and len(found) == 6
    assert site.sent == len(DATA)


def test_a_bucket_of_ones_own_is_read_once_for_each_version(s3, cache):
    folder = f"{s3.uri}/weights"
    store.write_bytes(f"{folder}/{NAME}", DATA)
    found = resolve(NAME, sha256=DIGEST, weights_dir=folder)
    assert found.path.read_bytes() == DATA
    assert resolve(NAME, sha256=DIGEST, weights_dir=folder) == found
    store.write_bytes(f"{folder}/{NAME}", b"trained longer")
    assert resolve(NAME, weights_dir=folder).path.read_bytes() == b"trained longer"
    assert kept(cache) == [NAME, NAME]


def test_a_file_that_is_not_in_the_bucket_is_looked_for_further(s3, site):
    assert resolve(NAME, site.url, weights_dir=f"{s3.uri}/empty").sha256 == DIGEST


def test_a_bucket_that_is_not_there_is_refused(s3):
    with pytest.raises(WeightsError, match=f"weights file {NAME}"):
        resolve(NAME, weights_dir="s3://no-such-bucket-anywhere/weights")


def test_the_detector_files_have_addresses_and_digests():
    assert set(weights.DETECTOR_WEIGHTS) == {"retinaface-mobile0.25", "retinaface-resnet50"}
    for published_file in weights.DETECTOR_WEIGHTS.values():
        assert published_file.url.endswith(f"/{published_file.file}")
        assert len(published_file.sha256) == 64
