"""Real servers for the tests, each on free loopback ports with its data in a folder of the test session."""

import os
import socket
import subprocess
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from s3fs import S3FileSystem

START_SECONDS = 240.0
# SeaweedFS takes 12 s and more to stop when asked; a test's data is not worth that wait.
STOP_SECONDS = 1.0
ACCESS_KEY = "test-access-key"
SECRET_KEY = "test-secret-that-nobody-may-see"


@dataclass(frozen=True)
class S3Server:
    """A running S3 server with one bucket."""

    # s3://bucket
    uri: str
    # http://127.0.0.1:port
    endpoint: str
    # what every AWS client reads: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, ...
    env: Mapping[str, str]


def free_ports(count: int) -> list[int]:
    """Distinct loopback ports on which nobody listens at this moment."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextmanager
def s3_server(folder: Path, bucket: str = "pictures") -> Iterator[S3Server]:
    """SeaweedFS holding its data in `folder`. Raises RuntimeError with the server's log when it does not come up."""
    names = ("master", "volume", "filer", "s3", "admin")
    ports = dict(zip(names, zip(*[iter(free_ports(2 * len(names)))] * 2, strict=True), strict=True))
    command = [
        str(Path(sysconfig.get_path("scripts")) / "weed"),
        "mini",
        f"-dir={folder}",
        f"-bucket={bucket}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        *[f"-{name}.port={http}" for name, (http, _) in ports.items()],
        *[f"-{name}.port.grpc={grpc}" for name, (_, grpc) in ports.items()],
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        # as on AWS: a put into a bucket that does not exist fails
        "-s3.autoCreateBucket=false",
        "-admin.ui=false",
        "-webdav=false",
        "-master.telemetry=false",
    ]
    endpoint = f"http://127.0.0.1:{ports['s3'][0]}"
    env = {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with running(command, {**os.environ, **env}, folder, f"{endpoint}/{bucket}"):
        await_bucket(bucket, endpoint)
        yield S3Server(uri=f"s3://{bucket}", endpoint=endpoint, env=env)


def await_bucket(bucket: str, endpoint: str) -> None:
    """Return once the bucket takes an object: the server answers a moment before its bucket is made."""
    give_up = time.monotonic() + START_SECONDS
    client = S3FileSystem(key=ACCESS_KEY, secret=SECRET_KEY, endpoint_url=endpoint, use_listings_cache=False)
    while True:
        try:
            client.pipe_file(f"{bucket}/.ready", b"")
            client.rm_file(f"{bucket}/.ready")
            return
        except OSError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.1)


@contextmanager
def running(command: Sequence[str], env: Mapping[str, str], folder: Path, url: str) -> Iterator[None]:
    """`command` as a child of this process, from the moment `url` answers until the end of the block.

    Its output goes to folder/server.log. Raises RuntimeError when the program ends early or never answers.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "server.log"
    with log.open("wb") as output:
        child = subprocess.Popen(command, env=dict(env), cwd=folder, stdout=output, stderr=subprocess.STDOUT)
    try:
        give_up = time.monotonic() + START_SECONDS
        while not answers(url):
            if child.poll() is not None or time.monotonic() > give_up:
                tail = log.read_text(errors="replace")[-4000:]
                raise RuntimeError(
                    f"{Path(command[0]).name} did not answer at {url}; its log ends with:\n{tail}"
                )
            time.sleep(0.1)
        yield
    finally:
        child.terminate()
        try:
            child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def answers(url: str) -> bool:
    """Whether a server speaks HTTP at `url`; being refused or turned away with 403 counts, an error of its own not."""
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except urllib.error.HTTPError as error:
        return error.code == 403
    except (urllib.error.URLError, OSError):
        return False
