"""All known models and their weights files: presets, detectors of faces and scratches, background networks, metrics."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.io.weights import DETECTOR_WEIGHTS, MASK_WEIGHTS, METRIC_WEIGHTS, UPSCALER_WEIGHTS, Published
from pipeline.networks.presets import NetworkSpec, PresetError, find_preset, preset_names, unknown_channels


@dataclass(frozen=True)
class WeightsFile:
    """One weights file of a model."""

    file: str
    url: str | None
    sha256: str | None
    licence: str
    # the network that it must fit, where its specification is known
    network: NetworkSpec | None = None
    # a network for whole pictures, whose architecture is detected from the file
    upscales: bool = False


@dataclass(frozen=True)
class Model:
    """A named model and its weights files."""

    name: str
    # of the face crop, pixels; presets only
    side: int | None
    use: Literal["restoration", "inpainting", "detection", "mask", "background", "metric"]
    files: tuple[WeightsFile, ...]


# Models of one published file that are no presets: their use, and the files by model name.
SINGLE: tuple[tuple[Literal["detection", "mask", "background", "metric"], Mapping[str, Published]], ...] = (
    ("detection", DETECTOR_WEIGHTS),
    ("mask", MASK_WEIGHTS),
    ("background", UPSCALER_WEIGHTS),
    ("metric", METRIC_WEIGHTS),
)


def known_models() -> list[str]:
    """Names of all models that the program knows."""
    return [*preset_names(), *(name for _, files in SINGLE for name in files)]


def find_model(name: str) -> Model:
    """The model of this name, or the preset of this path. Raises PresetError when there is none."""
    for use, files in SINGLE:
        if name in files:
            p = files[name]
            weights = WeightsFile(p.file, p.url, p.sha256, p.licence, upscales=use == "background")
            return Model(name, None, use, (weights,))
    if name not in preset_names() and not name.endswith(".toml"):
        raise PresetError(
            f"model {name!r} is not known; choose one of {', '.join(known_models())}, or give the path of your own "
            ".toml file of a preset"
        )
    preset = find_preset(name)
    return Model(
        preset.name,
        preset.side,
        "inpainting" if unknown_channels(preset.estimator) else "restoration",
        tuple(WeightsFile(s.file, s.url, s.sha256, s.licence, s) for s in (preset.prior, preset.estimator)),
    )


def files_of(models: Sequence[Model], once: bool) -> Iterator[tuple[Model, WeightsFile]]:
    """Every file of every model. once: a shared file only with the first model that has it."""
    seen: set[tuple[str, str | None, str | None]] = set()
    for model in models:
        for weights in model.files:
            identity = (weights.file, weights.url, weights.sha256)
            if not (once and identity in seen):
                yield model, weights
            seen.add(identity)
