"""The ways in which an evaluation restores its set: each a run of jobs.restore. Not a command itself."""

import io
import json
import time
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from pipeline.console.commands import INTERRUPTED, OK, carry_out, say
from pipeline.console.options import UsageError, with_values
from pipeline.evaluation.scores import Measured, hole_psnr, read_run
from pipeline.evaluation.testset import EvaluationSet
from pipeline.io import images, layout, store
from pipeline.networks import presets as preset_files
from pipeline.networks.presets import Preset
from pipeline.records.fingerprint import fingerprint_digest
from pipeline.restoration import start
from pipeline.restoration.config import RestoreConfig
from pipeline.restoration.method import choose_method

NOTE = "evaluation.json"
# Tasks that an estimator alone can be asked for.
ALONE = ("restore", "inpaint")


@dataclass(frozen=True)
class Sweep:
    """What is varied: each as it was given, an empty text for the preset's own."""

    start_step: tuple[str, ...] = ("",)
    eta: tuple[str, ...] = ("",)
    steps: tuple[str, ...] = ("",)
    calls: tuple[str, ...] = ("all",)
    solver: tuple[str, ...] = ("ddim",)

    def wishes(self) -> list[dict[str, str]]:
        """Every combination, by name."""
        return [dict(zip(vars(self), values, strict=True)) for values in product(*vars(self).values())]


@dataclass(frozen=True)
class Way:
    """One way of restoring the set: a row of the table."""

    name: str
    # the row of the same estimator alone; None for that row itself, and where an estimator cannot do the task
    base: str | None
    preset: Preset
    config: RestoreConfig

    @property
    def is_chain(self) -> bool:
        """Whether the prior takes part."""
        return self.config.method.name != "estimator"

    @property
    def calls(self) -> int:
        """Network calls a face, 0 for an estimator alone; of an N of each face's own those of the typical one."""
        if not self.is_chain:
            return 0
        return choose_method(self.config, self.preset)[1].network_calls

    @property
    def parameters(self) -> float | None:
        """Parameters of its networks; None where only a file knows them."""
        specs = [self.preset.estimator, *([self.preset.prior] if self.is_chain else [])]
        if any(spec.kind == "spandrel" for spec in specs):
            return None
        return float(sum(p.numel() for spec in specs for p in preset_files.build(spec).parameters()))

    def walk(self, surroundings: Mapping[str, Any]) -> int:
        """Restore the set with the pipeline; its exit code. What it took is noted where nothing broke it off.

        surroundings: options of jobs.restore that change no pixels.
        """
        output = self.config.output.uri
        fresh = not store.exists(store.join(output, layout.RUN))
        told = io.StringIO()
        began = time.monotonic()
        with redirect_stdout(told):
            code = carry_out(partial(start.run, with_values(self.config, **surroundings)))
        if code == OK and fresh:
            spent = {"seconds": time.monotonic() - began}
            store.write_bytes(store.join(output, NOTE), json.dumps(spent).encode())
        if code not in (OK, INTERRUPTED):
            print(told.getvalue())
            say(f"error: {self.name} ended with exit code {code}; its output is {output}")
        return code

    def measured(self, found: EvaluationSet) -> Measured:
        """Its row of the table, once it was walked."""
        output, names = self.config.output.uri, found.names
        row = read_run(output, names, self.name, self.cost(len(names)))
        if found.mask is None:
            return row
        inside = np.array([hole_psnr(found, name, self.picture(name)) for name in names])
        return replace(row, values={"hole_psnr": inside} | dict(row.values))

    def cost(self, faces: int) -> dict[str, float]:
        """What is known of its cost, once it was walked: parameters, calls and seconds a face."""
        cost = {"calls": float(self.calls)} if self.is_chain else {}
        size = self.parameters
        cost |= {} if size is None else {"parameters": size}
        note = store.join(self.config.output.uri, NOTE)
        if store.exists(note):
            cost["seconds"] = json.loads(store.read_bytes(note))["seconds"] / faces
        return cost

    def picture(self, name: str) -> "np.typing.NDArray[np.uint8]":
        """One face as it was delivered, [S, S, 3]."""
        return images.decode_rgb(store.read_bytes(store.join(self.pictures, f"{name}.png")))

    @property
    def pictures(self) -> str:
        """The folder of what it delivered, under the names of the set's pictures."""
        return store.join(self.config.output.uri, layout.IMAGES)


def list_ways(
    presets: Mapping[str, Preset], sweep: Sweep, common: Mapping[str, Any], output: str
) -> list[Way]:
    """Every combination of presets and sweep, each preset after its estimator alone.

    Raises UsageError when one cannot be walked. presets: by the name that was given. common: options of jobs.restore
    that all ways share. output: where each way gets a folder of its own.
    """
    found = []
    for (given, preset), called in zip(presets.items(), row_names(list(presets.values())), strict=True):
        options = {**common, "preset": given}
        alone = called if common["task"] in ALONE else None
        if alone:
            found.append(_way(alone, None, preset, options | {"method": "estimator"}, output))
        for wished in sweep.wishes():
            name = _name(wished, preset, called, common["task"], len(sweep.eta) > 1)
            found.append(_way(name, alone, preset, options | _parsed(wished), output))
    return found


def row_names(presets: list[Preset]) -> list[str]:
    """What each preset is called in the table: its estimator, or its own name where two have the same estimator."""
    kinds = [p.estimator.kind for p in presets]
    return [p.estimator.kind if kinds.count(p.estimator.kind) == 1 else p.name for p in presets]


def _name(wished: dict[str, str], preset: Preset, called: str, task: str, several_etas: bool) -> str:
    """A way in the table: N, and what else was varied; by the preset's name alone where that says what faces get."""
    words = [f"η = {wished['eta'] or preset.eta}"] if several_etas else []
    words += [wished["steps"]] if wished["steps"] else []
    words += [f"{wished['calls']} calls"] if wished["calls"] != "all" else []
    words += [wished["solver"]] if wished["solver"] != "ddim" else []
    if preset.treatment and task == "restore" and not wished["start_step"]:
        return ", ".join([preset.name, *words])
    return ", ".join([f"DifFace({called})", f"N = {wished['start_step'] or preset.start_of(task)}", *words])


def _parsed(wished: dict[str, str]) -> dict[str, Any]:
    """A way's settings as jobs.restore takes them. Raises UsageError for what it does not take."""
    if wished["solver"] not in ("ddim", "dpm++"):
        raise UsageError(f"--solvers must be among ddim, dpm++, got {wished['solver']!r}")
    try:
        return {
            "start_step": int(wished["start_step"]) if wished["start_step"] else None,
            "eta": float(wished["eta"]) if wished["eta"] else None,
            "steps": wished["steps"] or None,
            "calls": None if wished["calls"] == "all" else int(wished["calls"]),
            "solver": wished["solver"],
        }
    except ValueError as error:
        raise UsageError(
            f"--start-steps, --etas and --calls must be numbers separated by commas ({error})"
        ) from error


def _way(name: str, base: str | None, preset: Preset, options: Mapping[str, Any], output: str) -> Way:
    """The way with these options of jobs.restore. Raises UsageError when it cannot be walked."""
    slug = "".join(c if c.isalnum() or c in "=.-" else "_" for c in name.replace("η", "eta"))
    digest = fingerprint_digest({k: v for k, v in options.items() if k != "weights_dir"})[:8]
    source, place = options["input"], store.join(output, f"{slug}-{digest}")
    rest = {flag: value for flag, value in options.items() if flag != "input"}
    config = RestoreConfig.of(source, place, run_name=name, **rest)
    choose_method(config, preset)
    return Way(name, base, preset, config)
