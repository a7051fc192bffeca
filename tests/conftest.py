"""What every test may ask for."""

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress

import pytest
from servers import S3Server, s3_server

# Read by Ray before it starts. Workers at a lower priority than the test would starve on a busy machine; the rest
# keeps a developer's own cluster, tokens and statistics out.
os.environ |= {
    # the tests' networks are tiny: threads would only wait for each other, and more so on a busy machine
    "OMP_NUM_THREADS": "1",
    "RAY_worker_niceness": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
}
for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "MLFLOW_TRACKING_URI"):
    os.environ.pop(name, None)

MEMORY, ENOUGH = "/dev/shm", 6 << 30


def pytest_configure() -> None:
    """Put the tests' files into memory where there is room: on a disk they mostly wait for writes to be confirmed."""
    with suppress(OSError):
        if shutil.disk_usage(MEMORY).free > ENOUGH:
            os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", MEMORY)


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server with the bucket `s3.uri`; the AWS variables of this process point at it until the tests end."""
    with s3_server(tmp_path_factory.mktemp("s3")) as server, pytest.MonkeyPatch.context() as patch:
        # a developer's own profile must not take part
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in server.env.items():
            patch.setenv(name, value)
        yield server
