"""The options of jobs.evaluate."""

from dataclasses import dataclass
from typing import Literal

from pipeline.console.options import UsageError, option
from pipeline.datasets.holes import HOLES, KINDS, Hole
from pipeline.diffusion.task import TaskName
from pipeline.evaluation.realworld import LEVELS
from pipeline.restoration.config import BLIND_PRESET
from pipeline.tracking.address import mlflow_option

DEFAULT_PRESETS: dict[TaskName, str] = {"restore": "small-swinir,small-srcnn", "inpaint": "small-inpaint"}
# default of the real-world grid
REAL_PRESETS = BLIND_PRESET
# default of the sets of 512 px crops; a preset whose weights are not there is left out
PRESETS_512 = "portrait,difface-512-swinir,difface-512-srcnn,gfpgan-512,codeformer-512,restoreformer-512"
METRICS = "psnr,ssim,lpips,ids,lmd,quality,features"


@dataclass(frozen=True)
class EvaluateConfig:
    """The options of one evaluation."""

    faces: str = option(
        help="clean aligned faces: tar shards made by jobs.align, a folder of them or 'FOLDER/test-*.tar'; with --grid "
        "real photographs with faces in them, in tars or a folder; with --set real and 512 either",
        group="what",
        metavar="PATH_OR_URI",
    )
    output: str = option(
        help="folder or prefix for test set, restorations, tables and plots", group="what",
        metavar="PATH_OR_URI",
    )  # fmt: skip
    test_set: Literal["degraded", "real", "512"] = option(
        "degraded",
        help="degraded: the faces, damaged by --grid; real: degraded faces as they are, without ground truth, "
        "scored as the NTIRE challenge on real-world face restoration does, without reference; 512: "
        "clean faces as aligned 512 px crops, damaged by both grids, for presets of any side",
        group="what",
        flag="set",
    )
    grid: Literal["paper", "real"] = option(
        "paper",
        help="paper: aligned faces, degraded as in the paper; real: photographs at five levels of damage, from none to "
        "heavy, restored and measured at full size",
        group="what",
    )
    levels: str = option(
        ",".join(LEVELS),
        help="levels of damage of --grid real and --set 512, separated by commas; the latter also has the paper's",
        group="what",
    )
    task: Literal["restore", "inpaint", "colourise", "upscale"] = option(
        "restore",
        help="restore: the paper's grid of 4,000 degradations; inpaint: faces with --holes; colourise and "
        "upscale: grey and shrunk faces",
        group="what",
    )
    holes: str = option(
        ",".join(HOLES),
        help=f"kinds of holes of an inpainting, separated by commas, of {', '.join(KINDS)}",
        group="what",
    )
    factor: int = option(4, help="downscaling factor of the faces of upscale", group="what")
    presets: str | None = option(
        None,
        help="presets to score, separated by commas (default: the small ones that fit the task; of --grid real "
        f"{REAL_PRESETS}; of --set real and 512 those of {PRESETS_512} whose weights are there)",
        group="what",
    )
    restored: str = option(
        "",
        help="what other programs made of the same faces, as rows of --set real: NAME=FOLDER,..., each a folder or tar "
        "with pictures under the names of those in --faces",
        group="what",
        metavar="NAME=PATH_OR_URI,...",
    )
    reference: str | None = option(
        None,
        help="statistics of sharp faces for the FID of --set real, an .npz as jobs.reference makes it",
        group="what",
        metavar="PATH_OR_URI",
    )
    limit: int = option(
        0,
        help="number of faces, or photographs (each at every level), evenly spaced over the shards; 0 takes all",
        group="what",
    )
    by: str | None = option(
        None,
        help="labels of people by which scores are split, separated by commas: columns of --labels, else of KEY.json "
        "beside KEY.jpg (default: group, where a picture has it)",
        group="what",
        metavar="COLUMNS",
    )
    labels: str | None = option(
        None,
        help="CSV or Parquet table of labels: first the pictures' names, then a column for each --by",
        group="what",
        metavar="PATH_OR_URI",
    )
    metrics: str = option(
        METRICS,
        help="metrics, as in jobs.restore --metrics; features give FID (--grid real measures PSNR, SSIM, "
        "LPIPS and the identity's angle)",
        group="what",
    )

    start_steps: str | None = option(
        None,
        help="starting steps N, separated by commas (default: the preset's, per face where it has a "
        "treatment table)",
        group="sweep",
    )
    etas: str | None = option(
        None, help="randomness of the chain, separated by commas (default: the preset's)", group="sweep"
    )
    steps: str | None = option(
        None, help="respacings, separated by commas (default: the preset's)", group="sweep"
    )
    calls: str = option(
        "all", help="network calls per face, separated by commas; all: one at every kept step", group="sweep"
    )
    solvers: str = option("ddim", help="solvers, ddim and dpm++, separated by commas", group="sweep")
    gates: str | None = option(
        None,
        help="gates of jobs.restore, separated by commas: off, normal, strict; with off and another one the report has "
        "the harm before and after the gates, and what they cost (--task restore; default off,normal, of --set real "
        "and 512 normal)",
        group="sweep",
    )
    seed: int = option(0, help="seed of the test set and of the noise", group="sweep")

    precision: Literal["auto", "float32", "bfloat16", "float16"] = option(
        "auto", help="number type of the networks", group="surroundings"
    )
    device: str = option("auto", help="auto, cpu, cuda", group="surroundings")
    weights_dir: str | None = option(
        None, help="folder or s3:// prefix searched for weights first", group="surroundings"
    )
    mlflow_uri: str | None = mlflow_option(group="surroundings")
    experiment: str = option("difface-evaluate", help="MLflow experiment", group="surroundings")
    ray_address: str | None = option(
        None, help="Ray cluster to join (default: RAY_ADDRESS, else a local one)", group="surroundings"
    )
    dry_run: bool = option(
        False, help="list the variants and their estimated time; write nothing", group="surroundings"
    )

    def __post_init__(self) -> None:
        if self.limit < 0 or self.seed < 0:
            raise UsageError(f"--limit and --seed must not be negative, got {self.limit} and {self.seed}")
        for name, wanted, known in (("holes", self.kinds, KINDS), ("levels", self.level_names, LEVELS)):
            if unknown := sorted(set(wanted) - set(known)):
                raise UsageError(
                    f"--{name} must be among {', '.join(known)}, got {', '.join(map(repr, unknown))}"
                )
        if self.factor < 2 or self.factor & (self.factor - 1):
            raise UsageError(f"--factor must be a power of two above 1, got {self.factor}")
        if self.labels and not self.by:
            raise UsageError(f"--labels {self.labels} needs --by with the names of its columns")
        if self.test_set == "degraded":
            self._check_grid()
        self._check_set()

    def _check_set(self) -> None:
        """Raise UsageError for options that do not apply to the chosen set."""
        if self.test_set != "real" and (self.restored or self.reference):
            raise UsageError("--restored and --reference apply to --set real only; give them with it")
        if self.test_set == "degraded":
            return
        if self.task != "restore" or self.grid != "paper":
            raise UsageError(
                f"--set {self.test_set} has no --grid, and no --task but restore; leave them out"
            )
        if self.by:
            raise UsageError(f"--by applies to --set degraded only; leave --by {self.by} out")
        if self.test_set == "real" and self.metrics != METRICS:
            raise UsageError(f"--set real has the challenge's metrics; leave --metrics {self.metrics} out")
        if self.test_set == "real" and self.level_names != tuple(LEVELS):
            raise UsageError(f"--set real damages nothing; leave --levels {self.levels} out")
        _ = self.restored_folders  # raises

    def _check_grid(self) -> None:
        """Raise UsageError for options that do not apply to the chosen grid."""
        if self.grid == "paper":
            if self.level_names != tuple(LEVELS):
                raise UsageError(
                    f"--levels applies to --grid real only; give that with --levels {self.levels}"
                )
            return
        if self.task != "restore":
            raise UsageError(
                f"--grid real needs --task restore, got --task {self.task}; leave one of them out"
            )
        if self.metrics != METRICS:
            raise UsageError(
                "--grid real measures PSNR, SSIM, LPIPS and the identity's angle of what is delivered; leave "
                f"--metrics {self.metrics} out"
            )

    @property
    def kinds(self) -> tuple[Hole, ...]:
        """The kinds of holes."""
        return tuple(self.holes.split(","))  # type: ignore[arg-type]  # checked when made

    @property
    def label_columns(self) -> tuple[str, ...] | None:
        """The columns of labels; None where none is named."""
        return tuple(name.strip() for name in self.by.split(",")) if self.by else None

    @property
    def level_names(self) -> tuple[str, ...]:
        """The levels of damage, each once, from none to heavy; unknown ones last."""
        given = set(self.levels.split(","))
        return (*(level for level in LEVELS if level in given), *sorted(given - set(LEVELS)))

    @property
    def gate_levels(self) -> str:
        """The gates, separated by commas."""
        return self.gates or ("off,normal" if self.test_set == "degraded" else "normal")

    @property
    def restored_folders(self) -> dict[str, str]:
        """Row → folder of what another program made. Raises UsageError for another form, and for a name given twice."""
        found: dict[str, str] = {}
        for part in filter(None, self.restored.split(",")):
            name, equals, folder = part.partition("=")
            if not equals or not name or not folder or name in found:
                raise UsageError(
                    f"--restored must be NAME=FOLDER,... with different names, got {self.restored!r}"
                )
            found[name] = folder
        return found

    @property
    def preset_names(self) -> list[str]:
        """The presets, in the table's order."""
        default = REAL_PRESETS if self.grid == "real" else DEFAULT_PRESETS.get(self.task, "small-swinir")
        default = default if self.test_set == "degraded" else PRESETS_512
        return (self.presets or default).split(",")
