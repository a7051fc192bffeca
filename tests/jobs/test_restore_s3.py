"""The job on a real Ray cluster, submitted as users submit it, from and to a real S3 server."""

import io
import json
import tarfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import ray
from mlflow import MlflowClient
from photographs import LATIN_1, OUTCOMES, mixed, read_folder, write_folder, write_tar
from ray_cluster import RayCluster, ray_cluster
from s3fs import S3FileSystem
from servers import SECRET_KEY, S3Server

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
# a key of S3 is UTF-8
PICTURES = {name: content for name, content in mixed().items() if name != LATIN_1}
OPTIONS = ("--unit-images", "4", "--max-error-rate", "0.5")


@pytest.fixture(scope="module")
def cluster(s3: S3Server) -> Iterator[RayCluster]:
    """A cluster whose nodes know the S3 server and its credentials by their environment."""
    with ray_cluster(env={"RAY_metrics_report_interval_ms": "1000"}) as running:
        # whoever has joined one stays there, and ends with it
        ray.shutdown()
        yield running
        ray.shutdown()


@pytest.fixture(scope="module")
def bucket(s3: S3Server) -> S3FileSystem:
    """The server's files, with the archive uploaded below `album`."""
    files = S3FileSystem(use_listings_cache=False)
    for name, content in PICTURES.items():
        files.pipe_file(f"{s3.uri}/my album/{name}", content)
    return files


@pytest.fixture(scope="module")
def arguments(s3: S3Server, restore) -> list[str]:
    return restore.arguments(f"{s3.uri}/my album", f"{s3.uri}/restored", *OPTIONS)


@pytest.fixture(scope="module")
def submitted(cluster: RayCluster, bucket: S3FileSystem, arguments: list[str]) -> str:
    """What the submission printed, after the run came to its end."""
    done = cluster.submit("first", ROOT, "python", "-m", "jobs.restore", *arguments)
    assert done.returncode == 0, done.stdout
    return done.stdout


def delivered(bucket: S3FileSystem, uri: str) -> dict[str, bytes]:
    """Objects below the prefix: relative key → content."""
    root = uri.removeprefix("s3://")
    return {key[len(root) + 1 :]: bucket.cat_file(key) for key in bucket.find(root)}


def test_a_submitted_job_restores_a_prefix_into_another(submitted, cluster, bucket, s3):
    assert cluster.job("first")["driver_exit_code"] == 0
    assert "every image accounted for" in submitted
    objects = delivered(bucket, f"{s3.uri}/restored")
    assert {n.removeprefix("images/") for n in objects if n.startswith("images/")} == PICTURES.keys()
    files = [io.BytesIO(content) for name, content in objects.items() if name.startswith("records/")]
    rows = [row for file in files for row in pq.read_table(file).to_pylist() if row["kind"] == "image"]
    assert len(files) == 3
    assert {r["member"]: (r["outcome"], r["reason"]) for r in rows} == {n: OUTCOMES[n] for n in PICTURES}
    assert len(rows) == len(PICTURES)
    assert {"report/index.html", "report/contact_sheet.png"} <= objects.keys()


def test_prometheus_is_told_what_the_run_did(submitted, cluster):
    images = {f'outcome="{outcome}"': 0.0 for outcome, _ in OUTCOMES.values()}
    for name in PICTURES:
        images[f'outcome="{OUTCOMES[name][0]}"'] += 1

    def numbers() -> dict[str, float]:
        told = {label: total(cluster, "ray_difface_images_total", label) for label in images}
        return told | {
            stage: total(cluster, "ray_difface_stage_seconds_count", f'stage="{stage}"')
            for stage in ("read", "restore", "publish")
        }

    # a worker tells once a second
    expected = images | dict.fromkeys(("read", "restore", "publish"), 3.0)
    deadline = time.monotonic() + 60
    while numbers() != expected and time.monotonic() < deadline:
        time.sleep(0.5)
    assert numbers() == expected
    assert total(cluster, "ray_difface_units_total") == 3
    faces = total(cluster, "ray_difface_faces_total")
    assert faces >= total(cluster, "ray_difface_engine_faces_total") > 0
    steps = total(cluster, "ray_difface_engine_steps_total")
    assert 0 < steps <= total(cluster, "ray_difface_engine_slots_total")


def total(cluster: RayCluster, name: str, label: str = "") -> float:
    """The sum of a metric over all processes that tell it, of those with the label."""
    with urllib.request.urlopen(cluster.metrics, timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return sum(
        float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{name}{{") and label in line
    )


def test_mlflow_has_the_run_of_a_submitted_job(submitted, bucket, s3, restore):
    state = json.loads(bucket.cat_file(f"{s3.uri}/restored/_ledger/tracking.json"))
    client = MlflowClient(restore.mlflow_uri)
    assert client.get_run(state["run_id"]).info.status == "FINISHED"
    history = client.get_metric_history(state["run_id"], "images")
    assert [(m.step, m.value) for m in history] == [(1, len(PICTURES))]


def test_the_same_submission_again_goes_on_and_its_exit_code_is_the_jobs(
    submitted, cluster, arguments, bucket, s3
):
    before = {k: v["ETag"] for k, v in bucket.find(f"{s3.uri}/restored/images", detail=True).items()}
    done = cluster.submit("second", ROOT, "python", "-m", "jobs.restore", *arguments, "--strict")
    assert "going on with 0 units, the rest is done" in done.stdout
    # the command line of Ray knows 0 and 1 only
    assert (done.returncode, cluster.job("second")["driver_exit_code"]) == (1, 4)
    assert {k: v["ETag"] for k, v in bucket.find(f"{s3.uri}/restored/images", detail=True).items()} == before


def test_a_driver_elsewhere_joins_the_cluster_and_local_files_give_the_same_bits(
    submitted, cluster, bucket, s3, restore, tmp_path
):
    source = write_folder(tmp_path / "in", PICTURES)
    assert restore(source, tmp_path / "out", *OPTIONS, "--ray-address", cluster.address) == 0
    assert read_folder(tmp_path / "out" / "images") == delivered(bucket, f"{s3.uri}/restored/images")


def test_tar_shards_are_streamed_from_s3_and_delivered_there(cluster, bucket, s3, restore, tmp_path):
    members = [("a.txt", b"a portrait"), ("a.jpg", PICTURES["portrait.jpg"]), ("b.png", PICTURES["cat.png"])]
    shard = write_tar(tmp_path / "shard-000.tar", members)
    bucket.put_file(str(shard), f"{s3.uri}/shards/shard-000.tar")
    options = ("--unit-images", "1", "--ray-address", cluster.address)
    assert restore(f"{s3.uri}/shards", f"{s3.uri}/restored shards", *options) == 0
    found = []
    for content in delivered(bucket, f"{s3.uri}/restored shards/shards").values():
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            found += [(member.name, tar.extractfile(member).read()) for member in tar]
    assert [name for name, _ in found] == [name for name, _ in members]
    assert [a == b for a, b in zip(found, members, strict=True)] == [True, False, True]


def test_the_secret_key_is_written_nowhere(submitted, cluster, bucket, s3, restore):
    database = Path(restore.mlflow_uri.removeprefix("sqlite:///"))
    # but for the copy of this repository, where the tests name it
    written = {n: c for n, c in read_folder(cluster.folder).items() if "/working_dir_files/" not in n}
    assert any(name.endswith("job-driver-first.log") for name in written)
    places = {
        "logs of Ray": written,
        "output": delivered(bucket, f"{s3.uri}/restored"),
        "MLflow": read_folder(database.parent),
        "terminal": {"": submitted.encode()},
        "job": {"": json.dumps(cluster.job("first")).encode()},
    }
    for place, files in places.items():
        assert files, place
        assert [name for name, content in files.items() if SECRET_KEY.encode() in content] == [], place
