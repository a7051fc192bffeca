import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from website import Site, published

from pipeline.io import download, store, weights, weights_cache
from pipeline.io.digests import RECORD
from pipeline.io.weights import WeightsError, resolve

DATA = bytes(range(256)) * 9000  # 2.3 MB: more than two pieces of a download
DIGEST = hashlib.sha256(DATA).hexdigest()
NAME = "net.safetensors"


@pytest.fixture
def site() -> Iterator[Site]:
    with published(DATA) as one:
        yield one


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("DIFFACE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(weights, "PACKAGED", tmp_path / "packaged")
    return tmp_path / "cache"


def url_of(site: Site) -> str:
    return f"{site.root}/{NAME}"


def put(folder: Path, data: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NAME).write_bytes(data)
    return folder / NAME


def kept(cache: Path) -> list[str]:
    """Names of the files in the cache, locks and records left out."""
    left_out = (".lock", RECORD)
    return sorted(p.name for p in cache.rglob("*") if p.is_file() and p.suffix not in left_out)


def test_places_are_searched_in_order(tmp_path, cache, site):
    beside = put(tmp_path / "mine", b"beside")
    places = [
        put(tmp_path / "packaged", b"packaged"),
        put(tmp_path / "weights", b"folder"),
        put(cache, b"cached"),
    ]
    assert resolve(str(beside), url_of(site), weights_dir=str(tmp_path / "weights")).path == beside
    for place in places:
        found = resolve(NAME, url_of(site), weights_dir=str(tmp_path / "weights"))
        assert found.path == place
        assert found.sha256 == hashlib.sha256(place.read_bytes()).hexdigest()
        place.unlink()
    assert resolve(NAME, url_of(site), weights_dir=str(tmp_path / "weights")).sha256 == DIGEST
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
        resolve(NAME, url_of(site), weights_dir=str(tmp_path / "typo"))


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
    found = resolve(NAME, url_of(site), DIGEST)
    assert found.path.read_bytes() == DATA
    assert found.sha256 == DIGEST
    assert resolve(NAME, url_of(site), DIGEST) == found
    assert site.asked == [None]
    assert kept(cache) == [NAME]
    progress = capsys.readouterr().err
    assert progress.endswith(f"fetching {NAME}: 2.3 of 2.3 MB (100 %)\n")


def test_a_download_that_breaks_off_goes_on_where_it_stopped(cache, site):
    site.breaks = [1_000_000]
    assert resolve(NAME, url_of(site), DIGEST).path.read_bytes() == DATA
    assert site.asked == [None, "bytes=1000000-"]
    assert site.sent == len(DATA)
    assert kept(cache) == [NAME]


def test_a_download_given_up_is_continued_by_the_next_run(cache, site, monkeypatch):
    monkeypatch.setattr(download, "TRIES", 1)
    site.breaks = [700_000, 0]
    with pytest.raises(WeightsError, match=r"the connection broke off; run again to go on where it stopped"):
        resolve(NAME, url_of(site), DIGEST)
    assert NAME not in kept(cache)
    assert resolve(NAME, url_of(site), DIGEST).path.read_bytes() == DATA
    assert site.asked == [None, "bytes=700000-", "bytes=700000-"]


def test_a_download_that_had_all_but_its_final_name_is_not_fetched_again(cache, site, monkeypatch):
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(weights_cache, "file_sha256", killed)
        resolve(NAME, url_of(site))
    assert kept(cache) == [f"{NAME}.partial", f"{NAME}.partial.from"]
    assert resolve(NAME, url_of(site), DIGEST).path.read_bytes() == DATA
    assert site.sent == len(DATA)


def test_a_file_replaced_between_two_tries_is_fetched_anew(site, monkeypatch):
    monkeypatch.setattr(download, "TRIES", 1)
    site.breaks = [700_000, 0]
    with pytest.raises(WeightsError):
        resolve(NAME, url_of(site))
    site.data, site.etag = DATA[::-1], '"two"'
    assert resolve(NAME, url_of(site)).path.read_bytes() == DATA[::-1]


def test_a_published_file_with_another_digest_is_refused_and_not_kept(cache, site):
    with pytest.raises(
        WeightsError, match=rf"{NAME} from {url_of(site)}: wanted sha256 {'0' * 64}, got {DIGEST}"
    ):
        resolve(NAME, url_of(site), "0" * 64)
    assert kept(cache) == []


def test_a_cached_download_that_was_damaged_is_fetched_again(site):
    path = resolve(NAME, url_of(site), DIGEST).path
    path.write_bytes(DATA[:-1])
    assert resolve(NAME, url_of(site), DIGEST).path.read_bytes() == DATA
    assert len(site.asked) == 2


def test_the_first_fetch_records_the_digest_that_the_publisher_does_not_give(site):
    path = resolve(NAME, url_of(site)).path
    assert weights.recorded(str(path)) == DIGEST
    checked = subprocess.run(
        ["sha256sum", "--check", "--strict", f"{NAME}.sha256"],
        cwd=path.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stdout) == (0, f"{NAME}: OK\n")


def test_a_cached_download_that_was_damaged_is_known_by_its_record_and_fetched_again(site):
    path = resolve(NAME, url_of(site)).path
    path.write_bytes(DATA[:-1])
    assert resolve(NAME, url_of(site)).path.read_bytes() == DATA
    assert len(site.asked) == 2


def test_an_address_that_gives_another_file_than_before_is_refused_until_that_is_meant(cache, site):
    path = resolve(NAME, url_of(site)).path
    path.unlink()
    site.data, site.etag = DATA[::-1], '"two"'
    with pytest.raises(WeightsError, match=rf"wanted sha256 {DIGEST}, got .*; .* delete {path}\.sha256"):
        resolve(NAME, url_of(site))
    assert kept(cache) == []
    path.with_name(f"{NAME}.sha256").unlink()
    assert resolve(NAME, url_of(site)).path.read_bytes() == DATA[::-1]


def test_a_damaged_record_is_refused(tmp_path):
    put(tmp_path / "packaged", DATA).with_name(f"{NAME}.sha256").write_text("no digest\n")
    with pytest.raises(WeightsError, match=rf"{NAME}\.sha256 holds no sha256; delete it"):
        resolve(NAME)


def test_the_copies_are_listed_in_the_order_in_which_they_are_taken_and_nothing_is_asked(
    tmp_path, cache, site
):
    fetched = resolve(NAME, url_of(site)).path
    beside = put(tmp_path / "mine", b"beside")
    there = [put(tmp_path / "packaged", b"package"), put(tmp_path / "weights", b"dir"), put(cache, b"cache")]
    asked = len(site.asked)
    found = list(weights.copies(str(beside), url_of(site), str(tmp_path / "weights")))
    assert [(c.place, Path(c.file.uri), c.file.size) for c in found] == [
        ("path", beside, 6),
        ("package", there[0], 7),
        ("weights-dir", there[1], 3),
        ("cache", there[2], 5),
        ("cache", fetched, len(DATA)),
    ]
    assert len(site.asked) == asked


def mirrored(folder: str, data: bytes, tmp_path: Path) -> bool:
    """Mirror a file of these bytes into the folder; whether it was missing."""
    path = put(tmp_path / "from", data)
    found = weights.Resolved(path, hashlib.sha256(data).hexdigest())
    return weights.mirror(found, folder, "https://example.org/net", "CC0-1.0")


@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_a_mirror_is_read_as_weights_dir_and_told_from_another_file_by_its_record(kind, tmp_path, s3, cache):
    place = str(tmp_path / "mirror") if kind == "folder" else f"{s3.uri}/mirror"
    assert mirrored(place, DATA, tmp_path)
    assert not mirrored(place, DATA, tmp_path)
    uri = f"{place}/{NAME}"
    assert b"# licence: CC0-1.0\n" in store.read_bytes(f"{uri}.sha256")
    assert resolve(NAME, weights_dir=place).path.read_bytes() == DATA
    with pytest.raises(WeightsError, match=r"is another file than .*; mirror to another place"):
        mirrored(place, b"another", tmp_path)
    store.write_bytes(uri, DATA[:-1])
    with pytest.raises(WeightsError, match=rf"wanted sha256 {DIGEST}, got .*mirror/{NAME}\.sha256"):
        resolve(NAME, weights_dir=place)
    # a damaged copy of the same file is written again
    assert mirrored(place, DATA, tmp_path)
    assert weights.digest_of(uri) == DIGEST


def test_only_what_was_fetched_is_discarded(tmp_path, cache, site):
    own, fetched = resolve(str(put(tmp_path / "mine", DATA))), resolve(NAME, url_of(site))
    assert not weights.discard(own) and own.path.is_file()
    assert weights.discard(fetched)
    assert [p for p in fetched.path.parent.iterdir() if p.suffix != ".lock"] == []


def test_files_of_one_name_from_two_addresses_are_two_files(site):
    with published() as other:
        other.data = b"another network"
        assert resolve(NAME, url_of(site)).path.read_bytes() == DATA
        assert resolve(NAME, url_of(other)).path.read_bytes() == b"another network"


def test_an_address_that_has_no_such_file_is_asked_once(site):
    site.status = 404
    with pytest.raises(
        WeightsError, match=r"could not be fetched: the server answered 404 Not Found; .*--weights-dir"
    ):
        resolve(NAME, url_of(site))
    assert len(site.asked) == 1


def test_a_server_in_trouble_is_retried_and_then_given_up(site, monkeypatch):
    monkeypatch.setattr(download.time, "sleep", lambda _seconds: None)
    site.status = 503
    with pytest.raises(WeightsError, match="the server answered 503"):
        resolve(NAME, url_of(site))
    assert len(site.asked) == download.TRIES


def test_an_address_that_does_not_answer_says_what_to_do(site, monkeypatch):
    monkeypatch.setattr(download.time, "sleep", lambda _seconds: None)
    with published() as gone:
        url = url_of(gone)
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
        resolve(NAME, url_of(site))


def test_many_processes_at_once_fetch_once_and_all_get_the_whole_file(site):
    script = (
        "import sys; from pipeline.io.weights import resolve; "
        "print(resolve(sys.argv[1], sys.argv[2], sys.argv[3]).sha256)"
    )
    command = [sys.executable, "-c", script, NAME, url_of(site), DIGEST]
    site.breaks = [1_000_000]
    actors = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) for _ in range(4)]
    assert [actor.communicate(timeout=60)[0].strip() for actor in actors] == [DIGEST] * 4
    assert site.sent == len(DATA)


def test_many_threads_at_once_fetch_once(site):
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(resolve(NAME, url_of(site), DIGEST))) for _ in range(6)
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
    assert resolve(NAME, url_of(site), weights_dir=f"{s3.uri}/empty").sha256 == DIGEST


def test_a_bucket_that_is_not_there_is_refused(s3):
    with pytest.raises(WeightsError, match=f"weights file {NAME}"):
        resolve(NAME, weights_dir="s3://no-such-bucket-anywhere/weights")


def test_the_detector_files_have_addresses_and_digests():
    assert set(weights.DETECTOR_WEIGHTS) == {"retinaface-mobile0.25", "retinaface-resnet50"}
    for published_file in weights.DETECTOR_WEIGHTS.values():
        assert published_file.url.endswith(f"/{published_file.file}")
        assert len(published_file.sha256) == 64
