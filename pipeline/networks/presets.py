"""Presets: which networks restore a face, how they are shaped, where their weights come from.

A preset is a TOML file; `pipeline/presets/README.md` says how to write one. Nothing here touches the network:
`pipeline/io/weights.py` finds the files.
"""

import dataclasses
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from pipeline import Refusal
from pipeline.networks.checkpoint import CheckpointError, load_strict, read_state
from pipeline.networks.lama import LaMa, LaMaConfig
from pipeline.networks.nafnet import NAFNet, NAFNetConfig
from pipeline.networks.preset_checks import are_sides, is_above_zero, is_frame, is_table
from pipeline.networks.spandrel_models import SpandrelConfig, load_spandrel
from pipeline.networks.srcnn import SRCNN, SRCNNConfig
from pipeline.networks.swinir import SwinIRConfig, build_swinir, from_published
from pipeline.networks.unet import UNet, UNetConfig

Kind = Literal["unet", "srcnn", "swinir", "nafnet", "lama", "spandrel"]

PRESETS = Path(__file__).parent.parent / "presets"

# What makes a network of each kind: its configuration, and the builder where the preset alone says what it is.
Config = UNetConfig | SRCNNConfig | SwinIRConfig | NAFNetConfig | LaMaConfig | SpandrelConfig
_CONFIGS: dict[str, type[Config]] = {
    "unet": UNetConfig,
    "srcnn": SRCNNConfig,
    "swinir": SwinIRConfig,
    "nafnet": NAFNetConfig,
    "lama": LaMaConfig,
    "spandrel": SpandrelConfig,
}
_BUILDERS: dict[str, Callable[[Any], nn.Module]] = {
    "unet": UNet,
    "srcnn": SRCNN,
    "swinir": build_swinir,
    "nafnet": NAFNet,
    "lama": LaMa,
}
# Estimators by what a preset may call theirs.
ESTIMATORS = ("srcnn", "swinir", "nafnet", "lama", "spandrel")

# Tasks that may have an N of their own.
TASKS = ("restore", "inpaint", "colourise", "upscale")


class PresetError(Refusal, ValueError):
    """A preset that is not known, or that does not say what it must."""


@dataclass(frozen=True)
class NetworkSpec:
    """One network: its shape and its weights file."""

    kind: Kind
    # fields of the kind's configuration
    options: Mapping[str, Any]
    # name of the weights file, or a path to it
    file: str
    # hexadecimal digest of the file where it is known
    sha256: str | None = None
    # published address
    url: str | None = None
    # terms under which the weights may be used
    licence: str = "unknown"


@dataclass(frozen=True)
class Preset:
    """Everything a restoration needs to know about its networks, and the defaults of its method."""

    name: str
    # side of the square face crop, pixels
    side: int
    prior: NetworkSpec
    estimator: NetworkSpec
    # randomness of the reverse chain, 0..1
    eta: float = 0.5
    # N: original step number the chain is entered at
    start_step: int = 400
    # which steps are kept: "ddimK" or "K"
    steps: str = "ddim250"
    start_rule: Literal["official", "paper"] = "official"
    # highest step the prior was trained on: above it the prior gives nothing of use
    max_step: int = 999
    # faces of one network call
    lanes_cpu: int = 4
    lanes_gpu: int = 16
    # network calls of a blind face's chain; None: one at every kept step
    calls: int | None = None
    # original step at or below which the last of several calls is made; None: where the last of the equal shares into
    # which the calls divide the steps begins
    last_step: int | None = None
    # width (pixels of the crop) of the Gaussian whose low frequencies a blind face's chain is held to; 0: not held
    hold: float = 0.0
    # what part of a face's surroundings the crop shows, and how it is sampled: `zoom`, `centre`, `resampling` of
    # pipeline/faces/geometry.py. Empty: FFHQ's frame
    crop: Mapping[str, Any] = field(default_factory=dict)
    # sides that a blind face's crop has instead, rows of faces/sides.py with rising `side`. Empty: none
    sides: tuple[Mapping[str, Any], ...] = ()
    # what is done with a blind face by how far the estimator changes it: rows of `above` (levels of 0..255, rising
    # from 0) with `way` "left" or "estimator", or with `start_step`, `calls`, `hold` of a chain, and its `eta` where
    # that is not the preset's. Empty: the same chain for every face
    treatment: tuple[Mapping[str, Any], ...] = ()
    # what a restored face may differ from the one that came, by `normal` and `strict`: tables of faces/gates.py. Empty:
    # none were fitted
    gates: Mapping[str, Any] = field(default_factory=dict)
    # `invented`: the identity spread of a face's samples (faces/spread.py, degrees) above which the face is more the
    # model's than the person's. Empty: no such bound was fitted
    spread: Mapping[str, Any] = field(default_factory=dict)
    # what predicts a face's error: the table of faces/error_features.py. Empty: nothing was fitted
    error: Mapping[str, Any] = field(default_factory=dict)
    # N of tasks for which another one than `start_step` is better
    task_start: Mapping[str, Any] = field(default_factory=dict)
    # network calls of a chain of these tasks; of others than restoration one at every kept step where there are none
    task_calls: Mapping[str, Any] = field(default_factory=dict)
    # one sentence for people who choose
    description: str = field(default="", compare=False)

    @property
    def every_side(self) -> list[int]:
        """The sides that crops may have, its own first."""
        return [self.side, *(row["side"] for row in self.sides)]

    def start_of(self, task: str) -> int:
        """N of a task, where the user gives none."""
        step: int = self.task_start.get(task, self.start_step)
        return step

    def calls_of(self, task: str) -> int | None:
        """Network calls of a task's chain, where the user gives none; None: one at every kept step."""
        calls: int | None = self.task_calls.get(task, self.calls if task == "restore" else None)
        return calls


def preset_names() -> list[str]:
    """Names of the presets that ship with the package."""
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def find_preset(name: str | Path) -> Preset:
    """The preset of this name, or of this TOML file. Raises PresetError when there is none or it is wrong."""
    if str(name) in preset_names():
        path = PRESETS / f"{name}.toml"
    elif str(name).endswith(".toml"):
        path = Path(name).expanduser()
    else:
        raise PresetError(
            f"preset {str(name)!r} is not known; choose one of {', '.join(preset_names())}, "
            "or give the path of your own .toml file"
        )
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PresetError(f"preset file {path} can not be read ({error.strerror}); check the path") from error
    except ValueError as error:
        raise PresetError(f"preset file {path} is not valid TOML: {error}") from error
    return _preset(content, path)


def build(spec: NetworkSpec) -> nn.Module:
    """The untrained network of a specification, in evaluation mode. Raises PresetError on options it can not have."""
    config = network_config(spec)
    if spec.kind not in _BUILDERS:
        raise PresetError(
            f"{spec.file}: a {spec.kind} network is what its file says; it is built from that alone"
        )
    return _BUILDERS[spec.kind](config).eval()


def load_network(spec: NetworkSpec, path: Path | str) -> nn.Module:
    """The network with the weights of a file: float32, on the CPU, in evaluation mode.

    Raises CheckpointError when the file does not hold exactly this network's weights.
    """
    state = read_state(path)
    config = network_config(spec)
    if isinstance(config, SpandrelConfig):
        return load_spandrel(config, state, str(path))
    what = f"{path} as {spec.kind}"
    if spec.kind == "swinir":
        net = build(spec)
        try:
            state = from_published(state, net)
        except ValueError as error:
            raise CheckpointError(f"{what}: {error}; correct the preset's options") from error
        load_strict(net, state, what)
    else:
        # Built without storage: neither initialised nor copied, which matters at 160 million parameters.
        with torch.device("meta"):
            net = build(spec)
        load_strict(net, state, what, assign=True)
    return net.eval()


def unknown_channels(spec: NetworkSpec) -> int:
    """Channels behind the picture's that the estimator is given: 1 in the hole, then 1 where colours are unknown."""
    return 1 if spec.kind == "lama" else int(spec.options.get("unknown_channels", 0))


def network_config(spec: NetworkSpec) -> Config:
    """The specification's options as the configuration of its kind."""
    kind: Callable[..., Config] = _CONFIGS[spec.kind]
    known = {f.name: f for f in dataclasses.fields(_CONFIGS[spec.kind])}
    unknown = sorted(set(spec.options) - set(known))
    missing = [
        name for name, f in known.items() if f.default is dataclasses.MISSING and name not in spec.options
    ]
    if unknown or missing:
        problems = [
            f"{verb} {', '.join(names)}" for verb, names in (("lack", missing), ("hold", unknown)) if names
        ]
        raise PresetError(
            f"options of a {spec.kind} {' and '.join(problems)}; they must be among {', '.join(known)}"
        )
    options: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list | tuple) else v for k, v in spec.options.items()
    }
    for name, value in options.items():
        _check_type(f"option {name} of a {spec.kind}", value, known[name].type)
    try:
        return kind(**options)
    except ValueError as error:
        raise PresetError(f"options of a {spec.kind}: {error}") from error


def _preset(content: dict[str, Any], path: Path) -> Preset:
    where = f"preset file {path}"
    values = _fields(content, Preset, {"name"}, where)
    for role, kinds in (("prior", ("unet",)), ("estimator", ESTIMATORS)):
        values[role] = _network(content[role], kinds, f"{where}, [{role}]", path.parent)
    for rows in ("treatment", "sides"):
        values[rows] = tuple(values.get(rows, ()))
    preset = Preset(name=path.stem, **values)
    _check_ranges(preset, where)
    return preset


def _network(content: Any, kinds: tuple[str, ...], where: str, folder: Path) -> NetworkSpec:
    if not isinstance(content, dict):
        raise PresetError(f"{where}: wanted a table, got {content!r}")
    values = _fields(content, NetworkSpec, set(), where)
    if values["kind"] not in kinds:
        raise PresetError(f"{where}: kind must be {' or '.join(kinds)}, got {values['kind']!r}")
    # A file that lies beside the preset is meant to be that file, wherever the program runs.
    beside = (folder / str(values["file"])).absolute()
    if beside.is_file():
        values["file"] = str(beside)
    spec = NetworkSpec(**values)
    try:
        network_config(spec)
    except PresetError as error:
        raise PresetError(f"{where}: {error}") from error
    return spec


def _fields(content: dict[str, Any], kind: type[Any], implied: set[str], where: str) -> dict[str, Any]:
    """The table's values, checked against the fields of a dataclass; `implied` fields are not written."""
    known = {f.name: f for f in dataclasses.fields(kind) if f.name not in implied}
    unknown = sorted(set(content) - set(known))
    if unknown:
        raise PresetError(f"{where}: {', '.join(unknown)} not known; write {', '.join(known)}")
    needed = (n for n, f in known.items() if f.default is f.default_factory is dataclasses.MISSING)
    missing = [n for n in needed if n not in content]
    if missing:
        raise PresetError(f"{where}: {', '.join(missing)} must be given")
    for name, value in content.items():
        _check_type(f"{where}: {name}", value, known[name].type)
    return dict(content)


def _check_type(what: str, value: Any, wanted: Any) -> None:
    """Refuse a TOML value of another type than the field's; a bool is no number, an int is a float."""
    names: dict[Any, tuple[str, Callable[[Any], bool]]] = {
        int: ("a whole number", lambda v: isinstance(v, int) and not isinstance(v, bool)),
        float: ("a number", lambda v: isinstance(v, int | float) and not isinstance(v, bool)),
        str: ("text", lambda v: isinstance(v, str)),
        str | None: ("text", lambda v: isinstance(v, str)),
        tuple[int, ...]: (
            "a list of whole numbers",
            lambda v: isinstance(v, tuple) and all(isinstance(i, int) and not isinstance(i, bool) for i in v),
        ),
        int | None: ("a whole number", lambda v: isinstance(v, int) and not isinstance(v, bool)),
        Mapping[str, Any]: ("a table", lambda v: isinstance(v, dict)),
        tuple[Mapping[str, Any], ...]: (
            "a list of tables",
            lambda v: isinstance(v, list) and all(isinstance(row, dict) for row in v),
        ),
    }
    if wanted in names and not names[wanted][1](value):
        raise PresetError(f"{what} must be {names[wanted][0]}, got {value!r}")


def _check_ranges(preset: Preset, where: str) -> None:
    prior = preset.prior.options
    checks = (
        (0 <= preset.eta <= 1, f"eta must be from 0 to 1, got {preset.eta}"),
        (
            0 < preset.start_step <= preset.max_step <= 999,
            f"wanted 0 < start_step <= max_step <= 999, got {preset.start_step} and {preset.max_step}",
        ),
        (
            preset.start_rule in ("official", "paper"),
            f"start_rule must be official or paper, got {preset.start_rule!r}",
        ),
        (min(preset.lanes_cpu, preset.lanes_gpu) >= 1, "lanes_cpu and lanes_gpu must be at least 1"),
        (preset.calls is None or preset.calls >= 1, f"calls must be at least 1, got {preset.calls}"),
        (
            preset.last_step is None or 0 <= preset.last_step < preset.start_step,
            f"last_step must be from 0 to below start_step, got {preset.last_step}",
        ),
        (preset.hold >= 0, f"hold must not be negative, got {preset.hold}"),
        (
            is_frame(preset.crop),
            "[crop] must hold zoom (above 0), centre (two numbers from 0 to 1) and resampling (linear or fine), or "
            f"some of them, got {dict(preset.crop)}",
        ),
        (
            is_table(preset.treatment, preset.max_step),
            '[[treatment]] rows must have `above`, rising from 0, and either way = "left" or "estimator", or '
            f"start_step (1 to {preset.max_step}), calls, hold and, if wanted, eta, got "
            f"{[dict(row) for row in preset.treatment]}",
        ),
        (
            are_sides(preset.sides, preset.side, preset.prior.options),
            "[[sides]] rows must have side (whole, rising from the preset's, of a size that its prior can halve), "
            "above_scale and above_crispness, and may have left_below (above 0), "
            f"got {[dict(row) for row in preset.sides]}",
        ),
        (
            set(preset.gates) <= {"normal", "strict"}
            and all(isinstance(v, dict) for v in preset.gates.values()),
            f"[gates] holds the tables normal and strict, got {', '.join(preset.gates)}",
        ),
        (
            not preset.spread
            or (set(preset.spread) == {"invented"} and is_above_zero(preset.spread["invented"])),
            f"[spread] holds invented, degrees above 0, got {dict(preset.spread)}",
        ),
        (
            all(type(n) is int and 0 < n <= preset.max_step for n in preset.task_start.values()),
            f"[task_start] must hold steps from 1 to {preset.max_step}, got {dict(preset.task_start)}",
        ),
        (
            all(type(n) is int and n >= 1 for n in preset.task_calls.values()),
            f"[task_calls] must hold whole numbers from 1 on, got {dict(preset.task_calls)}",
        ),
        (
            {*preset.task_start, *preset.task_calls} <= set(TASKS),
            f"[task_start] and [task_calls] are for {', '.join(TASKS)}, "
            f"got {', '.join([*preset.task_start, *preset.task_calls])}",
        ),
        (
            prior["image_size"] * prior.get("patch", 1) == preset.side,
            f"the prior's image_size times its patch must be the preset's side {preset.side}, "
            f"got {prior['image_size'] * prior.get('patch', 1)}",
        ),
    )
    for good, problem in checks:
        if not good:
            raise PresetError(f"{where}: {problem}")
