"""The variants of an evaluation: each restores the test set with one configuration, as a run of jobs.restore."""

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
from pipeline.restoration.method import bounds_of, choose_method

NOTE = "evaluation.json"
# Tasks that an estimator can do without a chain.
ALONE = ("restore", "inpaint")


@dataclass(frozen=True)
class Sweep:
    """The varied settings, as given on the command line; an empty text is the preset's default."""

    start_step: tuple[str, ...] = ("",)
    eta: tuple[str, ...] = ("",)
    steps: tuple[str, ...] = ("",)
    calls: tuple[str, ...] = ("all",)
    solver: tuple[str, ...] = ("ddim",)
    gate: tuple[str, ...] = ("normal",)

    def combinations(self) -> list[dict[str, str]]:
        """Every combination, as setting → value."""
        return [dict(zip(vars(self), values, strict=True)) for values in product(*vars(self).values())]


@dataclass(frozen=True)
class Variant:
    """One configuration that restores the set: a row of the table."""

    name: str
    # the row of the same estimator without a chain; None for that row itself, and where an estimator cannot do the task
    base: str | None
    preset: Preset
    config: RestoreConfig
    # the row of the same configuration without gates, where there are both
    ungated: str | None = None

    @property
    def is_chain(self) -> bool:
        """Whether the prior is used."""
        return self.config.method.name != "estimator"

    @property
    def has_gates(self) -> bool:
        """Whether its results have to pass gates."""
        return bounds_of(self.config, self.preset) is not None

    @property
    def calls(self) -> int:
        """Network calls per face, 0 for an estimator alone; the typical number where N depends on the face."""
        if not self.is_chain:
            return 0
        return choose_method(self.config, self.preset)[1].network_calls

    @property
    def parameters(self) -> float | None:
        """Number of parameters of its networks; None where only the weights file determines it."""
        specs = [self.preset.estimator, *([self.preset.prior] if self.is_chain else [])]
        if any(spec.kind == "spandrel" for spec in specs):
            return None
        return float(sum(p.numel() for spec in specs for p in preset_files.build(spec).parameters()))

    def restore(self, options: Mapping[str, Any]) -> int:
        """Restore the set with the pipeline. Returns the exit code; records the time of an uninterrupted run.

        options: options of jobs.restore that change no pixels.
        """
        output = self.config.output.uri
        fresh = not store.exists(store.join(output, layout.RUN))
        printed = io.StringIO()
        began = time.monotonic()
        with redirect_stdout(printed):
            code = carry_out(partial(start.run, with_values(self.config, **options)))
        if code == OK and fresh:
            spent = {"seconds": time.monotonic() - began}
            store.write_bytes(store.join(output, NOTE), json.dumps(spent).encode())
        if code not in (OK, INTERRUPTED):
            print(printed.getvalue())
            say(f"error: {self.name} ended with exit code {code}; its output is {output}")
        return code

    def measured(self, found: EvaluationSet) -> Measured:
        """Its row of the table, after `restore`."""
        output, names = self.config.output.uri, found.names
        row = read_run(output, names, self.name, self.cost(len(names)))
        if found.mask is None:
            return row
        inside = np.array([hole_psnr(found, name, self.picture(name)) for name in names])
        return replace(row, values={"hole_psnr": inside} | dict(row.values))

    def cost(self, faces: int) -> dict[str, float]:
        """Its known costs, after `restore`: parameters, calls and seconds per face."""
        cost = {"calls": float(self.calls)} if self.is_chain else {}
        size = self.parameters
        cost |= {} if size is None else {"parameters": size}
        note = store.join(self.config.output.uri, NOTE)
        if store.exists(note):
            cost["seconds"] = json.loads(store.read_bytes(note))["seconds"] / faces
        return cost

    def picture(self, name: str) -> "np.typing.NDArray[np.uint8]":
        """One delivered face, [S, S, 3]."""
        return images.decode_rgb(store.read_bytes(store.join(self.pictures, f"{name}.png")))

    @property
    def pictures(self) -> str:
        """The folder of delivered pictures, which have the names of the set's."""
        return store.join(self.config.output.uri, layout.IMAGES)


def list_variants(
    presets: Mapping[str, Preset], sweep: Sweep, common: Mapping[str, Any], output: str
) -> list[Variant]:
    """Every combination of presets and sweep, each preset preceded by its estimator alone.

    Raises UsageError for an invalid one. presets: by the given name. common: options of jobs.restore shared by all
    variants. output: parent of the variants' folders.
    """
    found = []
    for (given, preset), row_name in zip(presets.items(), row_names(list(presets.values())), strict=True):
        options = {**common, "preset": given}
        alone = row_name if common["task"] in ALONE else None
        if alone:
            estimator = options | {"method": "estimator", "gate": "off"}
            found.append(_variant(alone, None, preset, estimator, output))
        for setting in sweep.combinations():
            name = _name(setting, preset, row_name, common["task"], len(sweep.eta) > 1)
            variant = _variant(
                _gated(name, setting, sweep), alone, preset, options | _parsed(setting), output
            )
            has_both = "off" in sweep.gate and setting["gate"] != "off"
            found.append(replace(variant, ungated=_gated(name, {"gate": "off"}, sweep) if has_both else None))
    return found


def _gated(name: str, setting: Mapping[str, str], sweep: Sweep) -> str:
    """The name of a variant with its gates, where those are varied."""
    return f"{name}, gates {setting['gate']}" if len(sweep.gate) > 1 else name


def row_names(presets: list[Preset]) -> list[str]:
    """The name of each preset in the table: its estimator, or its own name where that does not say which it is."""
    kinds = [p.estimator.kind for p in presets]
    return [
        k if kinds.count(k) == 1 and k != "spandrel" else p.name for k, p in zip(kinds, presets, strict=True)
    ]


def _name(setting: dict[str, str], preset: Preset, row_name: str, task: str, several_etas: bool) -> str:
    """The name of a variant in the table: N and what else is varied, or the preset where treatment is per face."""
    words = [f"η = {setting['eta'] or preset.eta}"] if several_etas else []
    words += [setting["steps"]] if setting["steps"] else []
    words += [f"{setting['calls']} calls"] if setting["calls"] != "all" else []
    words += [setting["solver"]] if setting["solver"] != "ddim" else []
    if preset.treatment and task == "restore" and not setting["start_step"]:
        return ", ".join([preset.name, *words])
    return ", ".join(
        [f"DifFace({row_name})", f"N = {setting['start_step'] or preset.start_of(task)}", *words]
    )


def _parsed(setting: dict[str, str]) -> dict[str, Any]:
    """A variant's settings as options of jobs.restore. Raises UsageError for invalid ones."""
    if setting["solver"] not in ("ddim", "dpm++"):
        raise UsageError(f"--solvers must be among ddim, dpm++, got {setting['solver']!r}")
    if setting["gate"] not in ("off", "normal", "strict"):
        raise UsageError(f"--gates must be among off, normal, strict, got {setting['gate']!r}")
    try:
        return {
            "start_step": int(setting["start_step"]) if setting["start_step"] else None,
            "eta": float(setting["eta"]) if setting["eta"] else None,
            "steps": setting["steps"] or None,
            "calls": None if setting["calls"] == "all" else int(setting["calls"]),
            "solver": setting["solver"],
            "gate": setting["gate"],
        }
    except ValueError as error:
        raise UsageError(
            f"--start-steps, --etas and --calls must be numbers separated by commas ({error})"
        ) from error


def _variant(name: str, base: str | None, preset: Preset, options: Mapping[str, Any], output: str) -> Variant:
    """The variant with these options of jobs.restore. Raises UsageError for an invalid one."""
    slug = "".join(c if c.isalnum() or c in "=.-" else "_" for c in name.replace("η", "eta"))
    digest = fingerprint_digest({k: v for k, v in options.items() if k != "weights_dir"})[:8]
    source, place = options["input"], store.join(output, f"{slug}-{digest}")
    rest = {flag: value for flag, value in options.items() if flag != "input"} | {"review": "off"}
    config = RestoreConfig.of(source, place, run_name=name, **rest)
    choose_method(config, preset)
    return Variant(name, base, preset, config)
