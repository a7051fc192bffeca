"""Write a small archive of worn photographs and restore it: `python -m jobs.demo`."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.console.options import option, parse
from pipeline.datasets.demo_archive import write_archive
from pipeline.io import store


@dataclass(frozen=True)
class DemoConfig:
    """Where the demonstration happens."""

    folder: str = option("build/demo", help="where photos/ and restored/ are written", metavar="PATH_OR_URI")
    photos_only: bool = option(False, help="write photos/ and stop")


def main(argv: Sequence[str] | None = None) -> int:
    """Write the archive and, unless told otherwise, restore it. Returns the exit code."""
    config = parse(
        DemoConfig, argv, "Write a small archive of worn public-domain photographs, and restore it."
    )
    photos = store.join(config.folder, "photos")
    files = write_archive(photos)
    print(f"{len(files)} files in {photos} (docs/demo.md says where the photographs come from)")
    if config.photos_only:
        return 0
    from jobs import restore

    restored = store.join(config.folder, "restored")
    # three of the fifteen files are broken on purpose
    return restore.main(
        ["--input", photos, "--output", restored, "--unit-images", "3", "--max-error-rate", "0.25"]
    )


if __name__ == "__main__":
    raise SystemExit(main())
