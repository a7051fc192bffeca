"""From options to a method with its weights, and to the stages that carry it out. Not a command itself."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipeline import store
from pipeline.config import RestoreConfig, UsageError, fingerprint
from pipeline.diffusion.schedule import chain_from, make_schedule
from pipeline.faces.detect import Selection
from pipeline.metrics.suite import Suite, columns_of, parse_metrics
from pipeline.networks.checkpoint import read_state
from pipeline.networks.foreign import load_upscaler
from pipeline.networks.tiles import MARGIN, TILE
from pipeline.networks.zoo import Preset, find_preset, load_network
from pipeline.stages.align import DetectorChoice, ReadAndAlign
from pipeline.stages.background import Background
from pipeline.stages.measure import MeasureSettings
from pipeline.stages.publish import Publish
from pipeline.stages.restore import RestoreSettings
from pipeline.stages.task import Task
from pipeline.weights import DETECTOR_WEIGHTS, find_upscaler, resolve


@dataclass(frozen=True)
class Method:
    """The preset with the command line's wishes applied, and what its weights resolved to."""

    preset: Preset
    eta: float
    # N, or where there are bounds to each face's own N that of a typical face
    start_step: int
    start_bounds: list[int] | None
    steps: str
    start_rule: Any
    # digests of the weights by role
    sha256: dict[str, str]
    # what is measured besides, of --metrics what can be
    metrics: tuple[str, ...] = ()

    @property
    def model_sha256(self) -> str:
        """One name for the networks together."""
        return "+".join(self.sha256[role][:16] for role in ("prior", "estimator") if role in self.sha256)


def choose_method(config: RestoreConfig, preset: Preset | None = None) -> tuple[Preset, dict[str, Any]]:
    """The preset and the method's settings; raises when N is not in the schedule or above what the prior knows.

    preset: taken instead of the one that the configuration names.
    """
    preset = preset or find_preset(config.preset)
    names = ("eta", "steps", "start_rule")
    if config.method == "estimator":
        no_chain = {"eta": 0.0, "start_step": 0, "start_bounds": None}
        return preset, {n: getattr(preset, n) for n in names} | no_chain
    chosen = {n: getattr(preset if getattr(config, n) is None else config, n) for n in names}
    wished = config.start_step or ""
    chosen |= {"start_step": int(wished.removeprefix("auto").lstrip(":") or preset.start_of(config.task))}
    chosen |= {"start_bounds": None}
    if wished.startswith("auto"):
        if not preset.auto_start:
            raise UsageError(f"{preset.name} has no [auto_start]; give --start-step as a number")
        within = config.start_bounds.split(",") if config.start_bounds else preset.auto_start["bounds"]
        chosen |= {"start_bounds": [int(n) for n in within]}
    if config.solver == "dpm++" and config.eta:
        raise UsageError(f"--solver dpm++ draws no noise; leave --eta {config.eta} out")
    for start_step in (chosen["start_step"], *(chosen["start_bounds"] or ())):
        check_start(preset, chosen["steps"], start_step, chosen["start_rule"])
    return preset, chosen


def check_start(preset: Preset, steps: str, start_step: int, rule: Any) -> None:
    """Refuse an N that no chain of the preset can be entered at."""
    try:
        chain_from(make_schedule(steps), start_step, rule)
    except ValueError as error:
        raise UsageError(f"--steps {steps} --start-step {start_step}: {error}") from error
    if start_step > preset.max_step:
        raise UsageError(
            f"--start-step {start_step} lies above {preset.max_step}, the last step that the prior of "
            f"{preset.name} was trained on; choose a smaller one"
        )


def check_weights(config: RestoreConfig, preset: Preset) -> dict[str, str]:
    """Find, verify and load every weights file once, here, before any actor starts; their digests by role."""
    digests = {}
    roles = {"prior": preset.prior, "estimator": preset.estimator}
    if config.method == "estimator":
        del roles["prior"]
    for role, spec in roles.items():
        found = resolve(spec.file, spec.url, spec.sha256, config.weights_dir)
        load_network(spec, found.path)
        digests[role] = found.sha256
    if config.detector in DETECTOR_WEIGHTS and not config.aligned:
        published = DETECTOR_WEIGHTS[config.detector]
        digests["detector"] = resolve(
            published.file, published.url, published.sha256, config.weights_dir
        ).sha256
    if config.background is not None:
        published = find_upscaler(config.background)
        found = resolve(published.file, published.url, published.sha256, config.weights_dir)
        load_upscaler(read_state(found.path), TILE + 2 * MARGIN, str(found.path))
        digests["background"] = found.sha256
    return digests


def settle_method(
    config: RestoreConfig, preset: Preset, chosen: dict[str, Any]
) -> tuple[Method, dict[str, Any]]:
    """The method with its weights found and checked, and the fingerprint of a run with it."""
    method = Method(preset, sha256=check_weights(config, preset), **chosen)
    resolved = chosen | {"weights": method.sha256, "preset_side": preset.side}
    if (config.truth or "").startswith("sibling:"):
        resolved |= {"truth": config.truth}  # such pictures are not restored
    if preset.estimator.kind == "spandrel":  # whose options change pixels and not only what file fits
        resolved |= {"estimator_options": dict(preset.estimator.options)}
    if config.background is not None:
        name = store.name_of(config.background)
        resolved |= {"background": {"network": name, "upscale": config.upscale, "tile": [TILE, MARGIN]}}
    return method, fingerprint(config, resolved)


def settle_metrics(config: RestoreConfig, say: Callable[[str], None]) -> tuple[str, ...]:
    """What of --metrics can be measured: every network is loaded once, here, and what is missing named.

    Raises UsageError.
    """
    if config.metrics == "none":
        return ()
    try:
        names = parse_metrics(config.metrics, config.truth is not None)
    except ValueError as error:
        raise UsageError(f"--metrics {config.metrics}: {error}") from error
    suite = Suite(names, weights_dir=config.weights_dir)
    for name, why in suite.left_out.items():
        say(f"warning: the metric {name} is left out: {why}")
    return suite.names


def measure_stage(config: RestoreConfig, method: Method, device: str, gpus: float) -> MeasureSettings | None:
    """What every measuring actor is told; None where nothing is measured."""
    m, c = method, config
    if not m.metrics:
        return None
    return MeasureSettings(
        metrics=m.metrics,
        truth=c.truth,
        side=m.preset.side,
        aligned=c.aligned,
        max_pixels=c.max_pixels,
        weights_dir=c.weights_dir,
        device=device if gpus else "cpu",
    )


def read_stage(config: RestoreConfig, method: Method, stop_uri: str) -> ReadAndAlign:
    """The stage that reads pictures and cuts out their faces."""
    c = config
    return ReadAndAlign(
        side=method.preset.side,
        detector=DetectorChoice(c.detector, c.min_score, c.weights_dir),
        selection=Selection(c.min_face, c.max_faces, c.max_overlap),
        aligned=c.aligned,
        max_crispness=c.max_crispness,
        max_scale=c.max_scale,
        strength=c.strength,
        max_pixels=most_pixels(c),
        image_column=c.image_column,
        stop_uri=stop_uri,
        task=task_of(c),
        mask=c.mask,
        truth=c.truth,
    )


def most_pixels(config: RestoreConfig) -> int:
    """Pixels of the largest picture that is taken: what it becomes must stay within --max-pixels, too."""
    return config.max_pixels // config.upscale**2


def background_of(config: RestoreConfig, device: str) -> Background | None:
    """What enhances the pictures around their faces."""
    if config.background is None:
        return None
    published = find_upscaler(config.background)
    return Background(published, config.weights_dir, config.upscale, device, config.precision)


def task_of(config: RestoreConfig) -> Task:
    """What is asked of the faces."""
    return Task(config.task, config.weight, config.gradient_steps, config.gradient_rate, config.factor)


def restore_stage(
    config: RestoreConfig, method: Method, device: str, threads: int, stop_uri: str
) -> RestoreSettings:
    """What every engine is told."""
    m, c = method, config
    return RestoreSettings(
        preset=m.preset,
        weights_dir=c.weights_dir,
        eta=m.eta,
        start_step=m.start_step,
        start_bounds=m.start_bounds,
        steps=m.steps,
        start_rule=m.start_rule,
        calls=c.calls,
        solver=c.solver,
        seed=c.seed,
        free_colour=c.free_colour,
        device=device,
        precision=c.precision,
        slots=c.slot_count,
        threads=threads,
        stop_uri=stop_uri,
        task=task_of(c),
        method=c.method,
    )


def publish_stage(config: RestoreConfig, method: Method, device: str) -> Publish:
    """The stage that writes what a unit delivers, and its marker."""
    m, c = method, config
    return Publish(
        output=c.output,
        side=m.preset.side,
        image_column=c.image_column,
        aligned=c.aligned,
        keep_detail=c.keep_detail,
        max_pixels=most_pixels(c),
        save_faces=c.save_faces,
        settings={
            "eta": m.eta,
            "seed": c.seed,
            "model_sha256": m.model_sha256,
        },
        device=device,
        task=task_of(c),
        mask=c.mask,
        measured=columns_of(m.metrics),
        background=background_of(c, device),
    )
