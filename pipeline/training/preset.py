"""A trained network as a preset: its weights, and the small file that every job's --preset takes."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from torch import Tensor

from pipeline.io.weights import digest_of
from pipeline.networks import presets
from pipeline.networks.checkpoint import write_state
from pipeline.networks.presets import as_toml

Role = Literal["prior", "estimator"]


def export_preset(
    base: presets.Preset,
    role: Role,
    state: Mapping[str, Tensor],
    path: Path,
    licence: str,
    max_step: int | None,
) -> presets.Preset:
    """Write weights and preset file; the preset as it reads back, its new network loaded once.

    The other network and the method's defaults are the base's. path: of the file, NAME.toml; the weights lie beside
    it, and so does the other network's file where the base has it in a folder of its own. max_step: highest step that
    a prior was trained on.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = path.with_name(f"{path.stem}_{role}.safetensors")
    write_state(state, weights)
    other: Role = "estimator" if role == "prior" else "prior"
    trained: presets.NetworkSpec = getattr(base, role)
    specs = {
        role: replace(
            trained, file=weights.name, sha256=digest_of(str(weights.absolute())), url=None, licence=licence
        ),
        other: _beside(getattr(base, other), path.parent),
    }
    preset = replace(base, name=path.stem, **specs, description=f"{base.name} with its {role} trained anew")  # type: ignore[arg-type]
    if max_step is not None:
        task_start = {task: min(step, max_step) for task, step in base.task_start.items()}
        start_step = min(base.start_step, max_step)
        preset = replace(preset, max_step=max_step, start_step=start_step, task_start=task_start)
    if role == "estimator":
        preset = replace(preset, treatment=())  # was fitted to the base's estimator
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(as_toml(preset), encoding="utf-8")
    partial.replace(path)
    written = presets.find_preset(path)
    presets.load_network(getattr(written, role), getattr(written, role).file)
    return written


def _beside(spec: presets.NetworkSpec, folder: Path) -> presets.NetworkSpec:
    """The specification with a file of a folder of its own copied beside the new preset; names stay as they are."""
    source = Path(spec.file)
    if source.name == spec.file or not source.is_file():
        return spec
    target = folder / source.name
    if not (target.exists() and target.samefile(source)):
        shutil.copyfile(source, target)
    return replace(spec, file=target.name)
