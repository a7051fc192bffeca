"""The frozen dataclass that describes a restoration; its command line is made from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.console.options import UsageError, from_values, options, options_of, require, values_of
from pipeline.diffusion.task import TaskName
from pipeline.records.fingerprint import METHOD_VERSION
from pipeline.restoration.faces import FaceOptions
from pipeline.restoration.gates import GateOptions
from pipeline.restoration.options import (
    BackgroundOptions,
    InputOptions,
    MachineOptions,
    MethodOptions,
    MetricOptions,
    TaskOptions,
    TrackingOptions,
    without_chain,
)
from pipeline.restoration.output import OutputOptions
from pipeline.restoration.samples import SampleOptions

# Presets that are taken where none is named: for faces of unknown degradation, and where something is known of them.
BLIND_PRESET = "portrait"
TASK_PRESETS: Mapping[TaskName, str] = {
    "restore": BLIND_PRESET,
    "inpaint": "portrait-inpaint",
    "colourise": "portrait-colour",
    "upscale": "small-swinir",
}
ALIGNED_COLOURS = "small-swinir"

# Options that there are no more, as fingerprints have them: outputs begun before, without them, are gone on with.
FORMER = {"max_crispness": None, "max_scale": None}


@dataclass(frozen=True)
class RestoreConfig:
    """One restoration run."""

    input: InputOptions = options("input")
    output: OutputOptions = options("output")
    task: TaskOptions = options("task", TaskOptions)
    method: MethodOptions = options("method", MethodOptions)
    faces: FaceOptions = options("faces", FaceOptions)
    gate: GateOptions = options("gates", GateOptions)
    samples: SampleOptions = options("samples", SampleOptions)
    background: BackgroundOptions = options("background", BackgroundOptions)
    metrics: MetricOptions = options("metrics", MetricOptions)
    machine: MachineOptions = options("machine", MachineOptions)
    tracking: TrackingOptions = options("tracking", TrackingOptions)

    @classmethod
    def of(cls, input: str, output: str, **values: Any) -> "RestoreConfig":
        """The run with these values by flag (`min_face=20`), and defaults for the rest. Raises UsageError."""
        return from_values(cls, {"input": input, "output": output} | values)

    def __post_init__(self) -> None:
        if self.task.name == "upscale" and not self.input.aligned:
            raise UsageError(
                "--task upscale takes aligned faces; give --aligned, or --task restore for photographs"
            )
        if self.background.network is not None:
            self._check_background()
        # what these tasks know of a face is held in the chain
        if self.method.name == "estimator" and self.task.name in ("colourise", "upscale"):
            raise UsageError(without_chain("task", self.task.name))
        if self.method.name == "estimator" and self.samples.number > 1:
            raise UsageError(without_chain("samples", self.samples.number))
        is_held = not self.method.hold or self.task.is_blind
        require(self, {"--hold is for --task restore": is_held})
        shares = self.metrics.gpus + (self.background.gpus if self.background.network else 0)
        if shares >= 0.5:
            raise UsageError(
                "--metrics-gpus and --background-gpus must leave an engine more than half of its GPU, "
                f"got {shares:g} together"
            )

    def _check_background(self) -> None:
        """Raise UsageError where pictures have nothing around their faces, or pixels that must stay as they are."""
        if self.input.aligned:
            raise UsageError(
                "--background enhances what lies around faces, and with --aligned nothing does; leave one of them out"
            )
        if not self.task.is_blind:
            raise UsageError(
                f"--background changes every pixel, and --task {self.task.name} keeps what is known; do one after the "
                "other"
            )

    @property
    def preset_name(self) -> str:
        """The preset's name or file."""
        is_ffhq = self.input.aligned and self.input.alignment == "ffhq"
        # the crops of the usual one leave the margins of such a picture grey
        usual = ALIGNED_COLOURS if is_ffhq and self.task.name == "colourise" else TASK_PRESETS[self.task.name]
        return self.method.preset or usual

    @property
    def most_pixels(self) -> int:
        """Pixels of the largest picture that is taken: what it becomes must stay within --max-pixels, too."""
        return self.faces.max_pixels // self.background.upscale**2

    @property
    def pastes_change(self) -> bool:
        """Whether the change of a crop is pasted, and not the crop; a hole has nothing that could be added to."""
        return self.faces.paste == "change" and self.task.name != "inpaint"


def fingerprint(config: RestoreConfig, resolved: dict[str, Any]) -> dict[str, Any]:
    """Everything that changes pixels: the options marked so, and what the preset and weights resolved to.

    Two runs may share an output only when this is equal; `fingerprint_digest` is its short name.
    """
    marked = {one.flag for one in options_of(RestoreConfig) if one.field.metadata["pixels"]}
    chosen = {flag: value for flag, value in values_of(config).items() if flag in marked}
    return FORMER | chosen | resolved | {"method_version": METHOD_VERSION}
