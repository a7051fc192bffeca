"""Export of a trained network as a preset: its weights, and the preset file for --preset."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from pipeline.console.commands import OK
from pipeline.console.options import UsageError
from pipeline.io import store
from pipeline.io.weights import digest_of
from pipeline.networks import presets
from pipeline.networks.checkpoint import write_state
from pipeline.networks.preset_text import as_toml
from pipeline.training.checkpoint import CHECKPOINT, load_checkpoint, write_averaged
from pipeline.training.options import TrainingOptions
from pipeline.training.task import Role, Task


def export_preset(
    base: presets.Preset,
    task: Task,
    state: Mapping[str, Tensor],
    path: Path,
    licence: str,
    max_step: int | None,
) -> presets.Preset:
    """Write weights and preset file. Returns the preset as read back, after loading its new network once.

    The other network and the method's defaults are the base's. path: of the file, NAME.toml. The weights are written
    beside it, and the other network's file is copied there where the base has it in a folder of its own. max_step:
    highest step that a prior was trained on.
    """
    role = task.role
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = path.with_name(f"{path.stem}_{role}.safetensors")
    write_state(state, weights)
    other: Role = "estimator" if role == "prior" else "prior"
    specs = {
        role: replace(
            task.spec, file=weights.name, sha256=digest_of(str(weights.absolute())), url=None, licence=licence
        ),
        other: _beside(getattr(base, other), path.parent),
    }
    preset = replace(base, name=path.stem, **specs, description=f"{base.name} with its {role} trained anew")  # type: ignore[arg-type]
    if max_step is not None:
        task_start = {task: min(step, max_step) for task, step in base.task_start.items()}
        start_step = min(base.start_step, max_step)
        preset = replace(preset, max_step=max_step, start_step=start_step, task_start=task_start)
    # what was fitted to the base's networks; the treatments to its estimator alone
    preset = replace(preset, spread={}, treatment=() if role == "estimator" else preset.treatment)
    if task.spec.options != getattr(base, role).options:  # what only blind restoration has
        preset = replace(preset, gates={}, error={}, sides=(), calls=None, hold=0.0)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(as_toml(preset), encoding="utf-8")
    partial.replace(path)
    written = presets.find_preset(path)
    presets.load_network(getattr(written, role), getattr(written, role).file)
    return written


def _beside(spec: presets.NetworkSpec, folder: Path) -> presets.NetworkSpec:
    """The specification after copying its file into `folder`; one with a bare file name is returned unchanged."""
    source = Path(spec.file)
    if source.name == spec.file or not source.is_file():
        return spec
    target = folder / source.name
    if not (target.exists() and target.samefile(source)):
        shutil.copyfile(source, target)
    return replace(spec, file=target.name)


# Licence of weights for which none was given.
TERMS = "that of whoever trained it"


def export(options: TrainingOptions, task: Task, base: presets.Preset) -> int:
    """Write the averaged weights of the output's checkpoint, or a preset with them. Returns the exit code."""
    output = store.absolute(options.output)
    uri = store.join(output, CHECKPOINT)
    state = load_checkpoint(uri)
    if state is None:
        raise UsageError(f"no checkpoint at {uri}; train first, or give the --output it was trained with")
    if options.export:
        target = store.absolute(options.export)
        write_averaged(state, target)
        if not store.is_remote(target):
            presets.load_network(task.spec, target)
        print(f"averaged weights of step {state['step']:,} written to {target}")
    if options.export_preset:
        path = preset_path(options.export_preset, store.name_of(output))
        trained = json.loads(store.read_bytes(store.join(output, "training.json")))
        highest = trained["max_step"] - 1 if task.role == "prior" else None
        licence = options.licence or terms(trained)
        written = export_preset(base, task, state["ema"], path, licence, highest)
        print(f"preset of step {state['step']:,} written: give --preset {path} to any job")
        print(f"licence of {Path(getattr(written, task.role).file).name}: {licence}; --licence says another")
    return OK


def preset_path(place: str, name: str) -> Path:
    """Path of the preset file. Raises UsageError for a remote address."""
    if store.is_remote(place):
        raise UsageError(
            f"--export-preset needs a local path, got {place}; write it locally and copy it with "
            "`python -m jobs.models mirror NAME.toml --to ...`"
        )
    path = Path(store.absolute(place))
    return path if path.suffix == ".toml" else path / f"{name}.toml"


def terms(trained: dict[str, Any]) -> str:
    """The licence of weights for which none is given; fine-tuned ones keep that of the original weights."""
    if not trained.get("init"):
        return TERMS
    return f"{trained['init_licence']}; trained further from weights under these terms"
