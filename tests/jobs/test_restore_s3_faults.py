"""Whole runs against a real S3 server behind a bad line."""

import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import s3fs
from fault_proxy import FaultProxy, fault_proxy
from photographs import encoded, portrait, portraits, read_folder, write_folder
from servers import ACCESS_KEY, SECRET_KEY, S3Server

from jobs import restore as job
from pipeline.io import store
from pipeline.restoration import run as restoration

TOKEN = "session-token-that-nobody-may-see"
PASSWORD = "tracking-password-that-nobody-may-see"
PICTURES = portraits(3) | {"lost.png": encoded(portrait(90, 100), "PNG")}
OPTIONS = ("--unit-images", "2", "--max-error-rate", "0.5")


@pytest.fixture(scope="module")
def line(s3: S3Server, own_ray: None) -> Iterator[FaultProxy]:
    """A proxy in front of the server, for this process and the Ray that it starts."""
    with fault_proxy(s3.endpoint) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        patch.setenv("AWS_MAX_ATTEMPTS", "5")
        s3fs.S3FileSystem.clear_instance_cache()
        yield proxy
    s3fs.S3FileSystem.clear_instance_cache()


def files_below(uri: str) -> dict[str, bytes]:
    """Every object below: path → bytes."""
    return {entry.path: store.read_bytes(entry.uri) for entry in store.list_files(uri)}


@pytest.mark.slow
def test_passing_faults_are_not_seen_in_what_is_delivered_and_one_lost_picture_costs_only_itself(
    line, s3, restore, tmp_path, capfd
):
    for name, data in PICTURES.items():
        store.write_bytes(f"{s3.uri}/bad line/{name}", data)
    line.clear()
    line.inject("throttled", "GET", "bad line/lost.png")
    for fault in ("throttled", "reset", "cut", "lost"):
        line.inject(fault, odds=0.05)
    output = f"{s3.uri}/bad line out"
    tracking = f"http://somebody:{PASSWORD}@127.0.0.1:9"
    code = restore(f"{s3.uri}/bad line", output, *OPTIONS, "--mlflow-uri", tracking)
    passed = [r for r in line.requests if r.fault and "lost.png" not in r.target]
    line.rules.clear()
    said = capfd.readouterr()
    assert code == 0, said
    assert len(passed) >= 3

    left = files_below(output)
    rows = [
        row
        for name, data in left.items()
        if name.startswith("records/")
        for row in pq.read_table(io.BytesIO(data)).to_pylist()
        if row["kind"] == "image"
    ]
    outcomes = {row["member"]: row["outcome"] for row in rows}
    assert outcomes == {name: "failed" if name == "lost.png" else "restored" for name in PICTURES}
    (lost,) = [row for row in rows if row["outcome"] == "failed"]
    assert (lost["stage"], lost["reason"]) == ("read", "unreadable")
    assert "too many requests" in lost["error"]

    source = write_folder(tmp_path / "in", {n: d for n, d in PICTURES.items() if n != "lost.png"})
    assert restore(source, tmp_path / "out", *OPTIONS) == 0
    delivered = {n.removeprefix("images/"): d for n, d in left.items() if n.startswith("images/")}
    assert delivered == read_folder(tmp_path / "out" / "images")

    database = Path(restore.mlflow_uri.removeprefix("sqlite:///")).parent
    ray_logs = read_folder(ray_logs_folder())
    assert any("worker" in name for name in ray_logs)
    places = {"output": left, "MLflow": read_folder(database), "Ray": ray_logs}
    places["terminal"] = {"out": said.out.encode(), "err": said.err.encode()}
    for where, files in places.items():
        for secret in (SECRET_KEY, PASSWORD, ACCESS_KEY):
            holders = [name for name, data in files.items() if secret.encode() in data]
            assert holders == [], (where, secret)


def ray_logs_folder() -> Path:
    """Where this process's Ray writes."""
    import ray

    return Path(ray._private.worker._global_node.get_logs_dir_path())


@pytest.fixture
def refused(line: FaultProxy, s3: S3Server, monkeypatch, capsys):
    """Runs the command, which must be refused before Ray or any write, and gives its one sentence."""
    monkeypatch.setattr(restoration, "connect", lambda _address: pytest.fail("the job went on to Ray"))

    def run(source: str, output: str) -> str:
        line.requests.clear()
        s3fs.S3FileSystem.clear_instance_cache()
        code = job.main(["--input", source, "--output", output, "--preset", "small-srcnn"])
        shown = capsys.readouterr()
        assert (code, shown.out) == (2, "")
        assert shown.err.startswith("error: ") and shown.err.count("\n") == 1
        assert not [r for r in line.requests if r.method == "PUT" and r.status == 200], (
            "something was written"
        )
        return shown.err

    line.clear()
    store.write_bytes(f"{s3.uri}/refused/a.png", PICTURES["p00.png"])
    return run


def test_an_output_that_may_only_be_read_is_refused_up_front(refused, line, s3):
    line.inject("denied", "PUT|POST|DELETE")
    said = refused(f"{s3.uri}/refused", f"{s3.uri}/refused out")
    assert "could not write to s3://" in said and "do not allow it" in said


def test_an_input_that_may_only_be_listed_is_refused_up_front(refused, line, s3):
    line.inject("denied", "HEAD", "refused/a.png")
    said = refused(f"{s3.uri}/refused", f"{s3.uri}/refused out")
    assert "could not read s3://" in said and "do not allow it" in said


def test_wrong_credentials_a_missing_bucket_and_credentials_in_the_address_are_refused_up_front(
    refused, s3, monkeypatch
):
    assert "'no-such-bucket' does not exist" in refused("s3://no-such-bucket/in", f"{s3.uri}/refused out")
    assert "'no-such-bucket' does not exist" in refused(f"{s3.uri}/refused", "s3://no-such-bucket/out")
    address = f"s3://{ACCESS_KEY}:{SECRET_KEY}@pictures/refused"
    for places in ((address, "out"), (f"{s3.uri}/refused", address)):
        said = refused(*places)
        assert "an address without credentials was wanted" in said
        assert SECRET_KEY not in said and ACCESS_KEY not in said
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", wrong := "another-secret-that-is-wrong")
    said = refused(f"{s3.uri}/refused", f"{s3.uri}/refused out")
    assert "AWS_SECRET_ACCESS_KEY" in said and wrong not in said
    # the server knows no sessions
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    said = refused(f"{s3.uri}/refused", f"{s3.uri}/refused out")
    s3fs.S3FileSystem.clear_instance_cache()
    assert "check AWS_ACCESS_KEY_ID" in said and TOKEN not in said and wrong not in said
