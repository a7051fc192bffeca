"""What the crash tests may ask for."""

from collections.abc import Iterator

import pytest
from crash.scene import Scene, assert_all_accounted, write_archive
from crash.starter import Starter


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """The archive, restored once without disturbance."""
    folder = tmp_path_factory.mktemp("crash")
    armed = folder / "armed"
    armed.mkdir()
    with Starter(armed) as starter:
        source = write_archive(folder / "photos")
        scene = Scene(folder, starter, str(source), f"sqlite:///{folder}/mlflow.db")
        scene.undisturbed()
        assert_all_accounted(scene.output("calm"), source)
        yield scene
