"""The options of jobs.clean."""

from dataclasses import dataclass
from typing import Any, Literal

from pipeline.cleaning.gates import version_gates
from pipeline.cleaning.policy import Policy, read_policy
from pipeline.console.options import UsageError, option
from pipeline.tracking.address import mlflow_option

# Options shared with jobs.restore; the [restore] table may set them.
SHARED = (
    "preset", "calls", "detector", "min_score", "max_pixels",
    "device", "precision", "engines", "readers", "unit_images",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CleanConfig(Policy):
    """The options of one start of a cleaning."""

    input: str = option(
        help="pictures: a folder or prefix of image files, WebDataset tar shards, or Parquet shards; local or s3://",
        group="what",
        metavar="PATH_OR_URI",
    )
    output: str = option(
        help="folder or s3:// prefix for versions and repaired pictures", group="what", metavar="PATH_OR_URI"
    )
    kind: Literal["auto", "folder", "tar", "parquet"] = option(
        "auto", help="type of the input; auto decides by the file names", group="what"
    )
    exclude: tuple[str, ...] = option(
        (),
        help="leave out matching paths below the input, as in jobs.restore; may be given several times",
        group="what",
        metavar="PATTERN",
    )
    image_column: str = option("image", help="Parquet column that holds the image bytes", group="what")

    policy: str | None = option(
        None,
        help="TOML file of thresholds, by the names of these options; options on the command line override it",
        group="policy",
        metavar="PATH_OR_URI",
    )

    repair: bool = option(
        True, help="restore repairable pictures; without, they are only listed", group="repair"
    )
    preset: str = option("small-swinir", help="a preset's name or the path of a preset file", group="repair")
    calls: int | None = option(
        None, help="network calls per face (default: one at every kept step)", group="repair"
    )
    weights_dir: str | None = option(
        None, help="folder or s3:// prefix searched for weights first", group="repair"
    )
    max_error_rate: float = option(
        0.1, help="stop and exit 3 when more than this share of the repairs fails", group="repair"
    )
    detector: Literal["centerface", "retinaface-mobile0.25", "retinaface-resnet50"] = option(
        "centerface", help="face detector; centerface needs no download", group="measuring"
    )
    min_score: float | None = option(
        None, help="detector score below which a face is ignored", group="measuring"
    )
    max_pixels: int = option(
        178_956_970,
        help="pictures above this many pixels are unreadable, those of 16-bit colour above half as many",
        group="measuring",
    )

    device: str = option("auto", help="auto, cpu, cuda", group="engine")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = option(
        "auto", help="number type of the networks", group="engine"
    )
    engines: int = option(
        0, help="engine actors; 0 takes one per GPU of the cluster, or one on CPU", group="engine"
    )
    readers: int = option(
        0, help="maximum concurrent reading tasks of repairs; 0: by the size of the cluster", group="engine"
    )
    unit_images: int = option(64, help="maximum number of images in a unit", group="engine")
    gpu_tflops: float = option(
        150.0,
        help="TFLOP/s that a GPU reaches with these networks, to estimate GPU hours; about 150 on an H100",
        group="engine",
    )

    mlflow_uri: str | None = mlflow_option(group="surroundings")
    experiment: str = option("difface-clean", help="MLflow experiment", group="surroundings")
    ray_address: str | None = option(
        None, help="Ray cluster to join (default: RAY_ADDRESS, else a local one)", group="surroundings"
    )

    fail_if: str = option(
        "",
        help="exit 5 when one of these conditions is true, on shares of all pictures or (new.) of new ones: "
        "no_face>0.2,new.drop>0.5,images<1000",
        group="outcome",
        metavar="CONDITION,...",
    )
    materialise: bool = option(
        False,
        help="also write the kept and repaired pictures of the version as tar shards",
        group="outcome",
    )
    dry_run: bool = option(
        False, help="measure and report without GPU, repair nothing, write no version", group="outcome"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        version_gates(self.fail_if)
        if self.gpu_tflops <= 0:
            raise UsageError(f"--gpu-tflops must be above 0, got {self.gpu_tflops}")
        if self.dry_run and self.materialise:
            raise UsageError("--dry-run writes no version for --materialise; leave one of them out")


def policy_of(config: CleanConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """The policy file's values: defaults of the options, and further options of jobs.restore. Raises UsageError."""
    if config.policy is None:
        return {}, {}
    defaults, restore = read_policy(config.policy)
    return defaults | {name: restore.pop(name) for name in SHARED if name in restore}, restore
