"""The options of a restoration by what they are about, each group with its own checks."""

from dataclasses import dataclass
from typing import Any, Literal

from pipeline.console.options import UsageError, option, require
from pipeline.diffusion.task import Task
from pipeline.tracking.address import mlflow_option


@dataclass(frozen=True)
class InputOptions:
    """What is restored."""

    uri: str = option(
        help="pictures: a folder or prefix of image files, WebDataset tar shards, or Parquet shards; "
        "local or s3:// (a single file, or a folder of them)",
        metavar="PATH_OR_URI",
        flag="input",
    )
    kind: Literal["auto", "folder", "tar", "parquet"] = option(
        "auto", help="what the input is; auto looks at the names"
    )
    exclude: tuple[str, ...] = option(
        (),
        help="leave out what lies at such paths below the input: lost+found, '*_small.jpg' (such names in every "
        "folder), 'scans/tmp/*', '**/cache/**'; may be given several times. What is planned already stays planned",
        metavar="PATTERN",
    )
    image_column: str = option("image", help="Parquet column that holds the image bytes", pixels=True)
    aligned: bool = option(
        False,
        help="every picture is one aligned face: restore it whole, search for nothing",
        pixels=True,
    )
    alignment: Literal["ffhq", "preset"] = option(
        "ffhq",
        help="with --aligned: whether the pictures show a face as FFHQ's do, or as the preset's crops",
        pixels=True,
    )

    def __post_init__(self) -> None:
        require(self, {"--exclude must not be empty": all(pattern.strip("/") for pattern in self.exclude)})


@dataclass(frozen=True)
class TaskOptions:
    """What is asked of the faces, and what is known of them (Eqs. 14-16)."""

    name: Literal["restore", "inpaint", "colourise", "upscale"] = option(
        "restore",
        help="restore faces of unknown degradation; or, with the known part kept: fill the holes of --mask, give grey "
        "faces colours, enlarge small ones (aligned pictures)",
        pixels=True,
        flag="task",
    )
    mask: str | None = option(
        None,
        help="where pictures have holes: alpha, black, #rrggbb, sibling:SUFFIX (NAME + SUFFIX beside NAME), a "
        "folder of masks under the pictures' names, white in the hole, or scratches, which are found",
        metavar="WHERE",
        pixels=True,
    )
    factor: int = option(
        0,
        help="how many times an upscale enlarges; 0 takes it from the picture's size",
        pixels=True,
    )
    weight: float | None = option(
        None,
        help="how closely each step holds to what is known, lambda of the paper's Eq. 15 (default: exactly)",
        pixels=True,
    )
    gradient_steps: int = option(
        0,
        help="hold to what is known by so many gradient steps instead of the closed form; the official program takes 1",
        pixels=True,
    )
    gradient_rate: float = option(0.5, help="size of a gradient step", pixels=True)

    def __post_init__(self) -> None:
        if (self.name == "inpaint") != (self.mask is not None):
            raise UsageError(
                f"--task inpaint and --mask go together, got --task {self.name} --mask {self.mask}"
            )
        is_power = self.factor >= 0 and self.factor & (self.factor - 1) == 0
        rules = {
            "--weight must be above 0": self.weight is None or self.weight > 0,
            "--gradient-steps must not be negative": self.gradient_steps >= 0,
            "--gradient-rate must be above 0": self.gradient_rate > 0,
            "--factor must be 0 or a power of two": is_power,
        }
        require(self, rules)

    @property
    def is_blind(self) -> bool:
        """Whether nothing is known but the degraded face."""
        return self.name == "restore"

    @property
    def task(self) -> Task:
        """What the stages need to know."""
        return Task(self.name, self.weight, self.gradient_steps, self.gradient_rate, self.factor)


@dataclass(frozen=True)
class MethodOptions:
    """The preset, and what is wanted otherwise than it says."""

    preset: str | None = option(
        None,
        help="a preset's name or the path of a preset file (default: portrait; portrait-inpaint for holes, "
        "portrait-colour for colours, small-swinir for --task upscale, and for colours of --aligned pictures)",
    )
    name: Literal["auto", "difface", "estimator"] = option(
        "auto",
        help="auto: each face by how damaged it is, as the preset's table says (left as it is, the estimator alone, or "
        "the chain), difface where it has none; difface: the estimator and then the reverse chain for every face; "
        "estimator: its picture as it is, without the prior",
        pixels=True,
        flag="method",
    )
    eta: float | None = option(
        None,
        help="randomness of the reverse chain, 0 (deterministic) to 1 (default: the preset's, 0.5)",
        pixels=True,
    )
    start_step: int | None = option(
        None,
        help="step N at which every face's chain is entered: larger is more realistic, smaller more faithful "
        "(default: by each face's damage where the preset has a table, else the preset's for the task)",
        metavar="N",
        pixels=True,
    )
    steps: str | None = option(
        None,
        help="respacing of the 1000 steps: ddimK or K (default: the preset's, ddim250)",
        pixels=True,
    )
    calls: int | None = option(
        None,
        help="network calls a face makes, spread evenly below N; fewer are faster (default: the preset's, else one at "
        "every kept step)",
        pixels=True,
    )
    hold: float | None = option(
        None,
        help="hold each step to the low frequencies of the estimate, those that a Gaussian of this width (standard "
        "deviation, pixels of the crop) leaves; 0 does not (default: the preset's)",
        metavar="SIGMA",
        pixels=True,
    )
    solver: Literal["ddim", "dpm++"] = option(
        "ddim",
        help="the paper's DDIM, or DPM-Solver++(2M), which draws no noise and gets by with fewer --calls",
        pixels=True,
    )
    start_rule: Literal["official", "paper"] | None = option(
        None,
        help="whether the network is first called below N (official program) or at N (Algorithm 1 as printed)",
        pixels=True,
    )
    seed: int = option(0, help="seed of the noise", pixels=True)

    def __post_init__(self) -> None:
        if self.name == "estimator":
            self._refuse_chain()
        rules = {
            "--eta must lie in [0, 1]": self.eta is None or 0 <= self.eta <= 1,
            "--start-step must not be negative": self.start_step is None or self.start_step >= 0,
            "--hold must not be negative": self.hold is None or self.hold >= 0,
            "--calls must be at least 1": self.calls is None or self.calls >= 1,
            "--seed must not be negative": self.seed >= 0,
        }
        require(self, rules)

    def _refuse_chain(self) -> None:
        """Raise UsageError when an option of the chain was given."""
        names = ("eta", "start_step", "steps", "calls", "start_rule", "hold")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        given |= {"solver": self.solver} if self.solver != "ddim" else {}
        for name, value in given.items():
            raise UsageError(without_chain(name, value))


@dataclass(frozen=True)
class BackgroundOptions:
    """What happens to the pictures around their faces."""

    network: str | None = option(
        None,
        help="enhance the pictures around their faces, those without faces too: realesrgan-x2plus, realesrgan-x4plus, "
        "or a weights file of any such network; takes seconds a megapixel on a GPU, many minutes on a CPU",
        metavar="NAME_OR_FILE",
        flag="background",
    )
    upscale: int = option(1, help="with --background: deliver pictures 2 or 4 times larger, faces too")
    gpus: float = option(
        0.25,
        help="share of each GPU that is set aside for --background; the engine has the rest",
        flag="background_gpus",
    )

    def __post_init__(self) -> None:
        if self.network is None and self.upscale != 1:
            raise UsageError(
                f"--upscale {self.upscale} delivers what --background makes; give --background realesrgan-x"
                f"{2 if self.upscale == 2 else 4}plus with it"
            )
        rules = {
            "--upscale must be 1, 2 or 4": self.upscale in (1, 2, 4),
            "--background-gpus must be above 0": self.gpus > 0,
        }
        require(self, rules)


@dataclass(frozen=True)
class MetricOptions:
    """What is measured of every face."""

    names: str = option(
        "none",
        help="what is measured of every face besides: all, none, or some of identity, landmarks, quality, niqe, "
        "features, and with --truth psnr, ssim, lpips, ids, lmd (docs/metrics.md, with those that `all` leaves out)",
        metavar="NAMES",
        flag="metrics",
    )
    truth: str | None = option(
        None,
        help="where the true pictures are: sibling:SUFFIX (NAME + SUFFIX beside NAME, which are then no inputs), "
        "column:NAME (Parquet), or a folder of pictures under the inputs' names",
        metavar="WHERE",
    )
    reference: str | None = option(
        None,
        help="with --metrics features: statistics of a set of faces (.npz, made by jobs.reference) that the restored "
        "ones are compared with by FID",
        metavar="PATH_OR_URI",
    )
    gpus: float = option(
        0.0,
        help="share of each engine's GPU for the networks that measure, 0.1 say; 0 measures on the CPU",
        flag="metrics_gpus",
    )

    def __post_init__(self) -> None:
        has_features = self.names == "all" or "features" in self.names.split(",")
        rules = {
            "--metrics-gpus must not be negative": self.gpus >= 0,
            "--truth is for --metrics; say which": self.truth is None or self.names != "none",
            "--reference is for --metrics features": self.reference is None or has_features,
        }
        require(self, rules)


@dataclass(frozen=True)
class MachineOptions:
    """What the run takes of machines and cluster, and where it finds its weights."""

    device: str = option("auto", help="auto, cpu, cuda")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = option(
        "auto",
        help="number type of the networks; auto is float16 on a GPU, bfloat16 on a CPU with AMX or AVX512_BF16, else "
        "float32; the chain itself is float32. What a run begins with it keeps",
        pixels=True,
    )
    slots: str = option(
        "auto",
        help="faces in flight in each engine: a number, or auto for what its memory and cores carry",
    )
    engines: int = option(0, help="engine actors; 0 takes one per GPU of the cluster, or one on CPU")
    readers: int = option(0, help="most concurrent read-and-align tasks; 0 fits the cluster")
    unit_images: int = option(
        0,
        help="most images in one unit of work; 0 goes by the size of the run: a sixteenth of it, at most 64",
        pixels=True,
    )
    shard_images: int = option(1024, help="images of one virtual shard of a folder input", pixels=True)
    weights_dir: str | None = option(
        None, help="folder or s3:// prefix searched for weights before the cache and the published address",
    )  # fmt: skip
    ray_address: str | None = option(
        None, help="Ray cluster to join (default: RAY_ADDRESS, else a local one)"
    )

    def __post_init__(self) -> None:
        rules = {
            "--unit-images must lie in 0..4096": 0 <= self.unit_images <= 4096,
            "--shard-images must be at least --unit-images": self.shard_images >= self.unit_images,
            "--slots must be auto or a number above 0": self.slots == "auto" or _number(self.slots) > 0,
            "--engines and --readers must not be negative": min(self.engines, self.readers) >= 0,
        }
        require(self, rules)

    @property
    def slot_count(self) -> int:
        """Faces in flight in each engine; 0 for auto."""
        return 0 if self.slots == "auto" else int(self.slots)


@dataclass(frozen=True)
class TrackingOptions:
    """The MLflow run."""

    mlflow_uri: str | None = mlflow_option()
    experiment: str = option("difface-restore", help="MLflow experiment")
    run_name: str | None = option(None, help="MLflow run name (default: the output's name)")
    tags: str = option(
        "",
        help="tags of the MLflow run, separated by commas; mlflow.parentRunId=ID shows it below another run",
        metavar="NAME=VALUE,...",
    )

    def __post_init__(self) -> None:
        all_named = all("=" in tag for tag in self.tags.split(",") if self.tags)
        require(self, {"--tags must be NAME=VALUE, separated by commas": all_named})

    @property
    def tag_values(self) -> dict[str, str]:
        """The tags by name."""
        return {name: value for name, _, value in (t.partition("=") for t in self.tags.split(",") if t)}


def without_chain(flag: str, value: Any) -> str:
    """Why an option is refused with --method estimator."""
    return f"--method estimator has no chain; leave --{flag.replace('_', '-')} {value} out"


def _number(text: str | None) -> int:
    """A whole number; -1 for what is none."""
    return int(text) if text and text.isdecimal() else -1
