"""The options of `jobs.models`."""

from dataclasses import dataclass
from typing import Literal

from pipeline.console.options import UsageError, option


@dataclass(frozen=True)
class ModelsConfig:
    """One operation on the weights of some models."""

    operation: Literal["list", "fetch", "mirror", "check"] = option(
        "list", help="what to do; list by default", group="what", positional=True
    )
    models: tuple[str, ...] = option(
        (),
        help="names as `list` shows them, or paths of preset files; list and check take all by default",
        group="what",
        metavar="MODEL",
        positional=True,
    )
    to: str | None = option(
        None, help="mirror: folder or s3:// prefix to copy the files to", group="what", metavar="PATH_OR_URI"
    )
    weights_dir: str | None = option(
        None,
        help="folder or s3:// prefix, such as a mirror, that is searched before the cache",
        group="how",
        metavar="PATH_OR_URI",
    )
    json: str | None = option(
        None,
        help="also write the result to this JSON file; - prints it instead of the text",
        group="how",
        metavar="PATH_OR_URI|-",
    )

    def __post_init__(self) -> None:
        if self.operation in ("fetch", "mirror") and not self.models:
            raise UsageError(f"{self.operation} needs the names of models; `list` shows them")
        if (self.operation == "mirror") != (self.to is not None):
            raise UsageError("--to is where mirror copies files to: give both or neither")
