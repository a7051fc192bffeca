"""The demonstration: an archive is written, and restored."""

from dataclasses import dataclass

from pipeline.console.commands import OK
from pipeline.console.options import option
from pipeline.datasets.demo_archive import write_archive
from pipeline.io import store
from pipeline.restoration import start
from pipeline.restoration.config import RestoreConfig


@dataclass(frozen=True)
class DemoConfig:
    """Where the demonstration happens."""

    folder: str = option("build/demo", help="where photos/ and restored/ are written", metavar="PATH_OR_URI")
    photos_only: bool = option(False, help="write photos/ and stop")


def run(config: DemoConfig) -> int:
    """Write the archive and restore it. Returns the exit code."""
    photos = store.join(config.folder, "photos")
    files = write_archive(photos)
    print(f"{len(files)} files in {photos} (docs/demo.md says where the photographs come from)")
    if config.photos_only:
        return OK
    restored = store.join(config.folder, "restored")
    # three of the fifteen files are broken on purpose
    return start.run(RestoreConfig.of(photos, restored, unit_images=3, max_error_rate=0.25))
