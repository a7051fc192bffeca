"""From options to a method with its weights, and to the stages that carry it out. Not a command itself."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.console.hints import Report, ignore
from pipeline.console.options import UsageError
from pipeline.diffusion.schedule import chain_from, make_schedule
from pipeline.diffusion.task import Task
from pipeline.faces.detect import Selection
from pipeline.faces.geometry import CropFrame
from pipeline.io import store
from pipeline.io.weights import DETECTOR_WEIGHTS, find_upscaler, resolve
from pipeline.metrics.measure import MeasureSettings
from pipeline.metrics.suite import Suite, columns_of, parse_metrics
from pipeline.networks.checkpoint import read_state
from pipeline.networks.presets import Preset, find_preset, load_network
from pipeline.networks.spandrel_models import load_upscaler
from pipeline.networks.tiling import MARGIN, TILE
from pipeline.restoration.config import RestoreConfig, fingerprint
from pipeline.stages.align import DetectorChoice, ReadAndAlign
from pipeline.stages.background import Background
from pipeline.stages.publish import Publish
from pipeline.stages.restore import RestoreSettings


@dataclass(frozen=True)
class Method:
    """The preset with the command line's wishes applied, and what its weights resolved to."""

    preset: Preset
    eta: float
    # of a chain that every face walks; what `treatment` does not say of a face's own
    start_step: int
    calls: int | None
    hold: float
    steps: str
    start_rule: Any
    # rows of the preset's table with the wishes applied; empty where every face is treated alike
    treatment: tuple[Mapping[str, Any], ...]
    # digests of the weights by role
    sha256: dict[str, str]
    # what is measured besides, of --metrics what can be
    metrics: tuple[str, ...] = ()

    @property
    def model_sha256(self) -> str:
        """One name for the networks together."""
        return "+".join(self.sha256[role][:16] for role in ("prior", "estimator") if role in self.sha256)

    @property
    def frame(self) -> CropFrame:
        """What the preset's crops show."""
        return CropFrame.from_table(self.preset.side, self.preset.crop)


def choose_method(config: RestoreConfig, preset: Preset | None = None) -> tuple[Preset, dict[str, Any]]:
    """The preset and the method's settings; raises when N is not in the schedule or above what the prior knows.

    preset: taken instead of the one that the configuration names.
    """
    preset = preset or find_preset(config.preset_name)
    names = ("eta", "steps", "start_rule")
    if config.method == "estimator":
        no_chain = {"eta": 0.0, "start_step": 0, "calls": None, "hold": 0.0, "treatment": ()}
        return preset, {n: getattr(preset, n) for n in names} | no_chain
    chosen = {n: getattr(preset if getattr(config, n) is None else config, n) for n in names}
    is_blind = config.task == "restore"
    own = {"calls": preset.calls if is_blind else None, "hold": preset.hold if is_blind else 0.0}
    chosen |= {n: value if getattr(config, n) is None else getattr(config, n) for n, value in own.items()}
    chosen["start_step"] = preset.start_of(config.task) if config.start_step is None else config.start_step
    by_damage = is_blind and config.method == "auto" and config.start_step is None
    wished = {n: getattr(config, n) for n in ("calls", "hold") if getattr(config, n) is not None}
    chosen["treatment"] = tuple(
        dict(row) | (wished if "start_step" in row else {}) for row in (preset.treatment if by_damage else ())
    )
    if config.solver == "dpm++" and config.eta:
        raise UsageError(f"--solver dpm++ draws no noise; leave --eta {config.eta} out")
    own_steps = (row["start_step"] for row in chosen["treatment"] if "start_step" in row)
    for start_step in (chosen["start_step"], *own_steps):
        check_start(preset, chosen["steps"], start_step, chosen["start_rule"])
    return preset, chosen


def calls_of(chosen: Mapping[str, Any]) -> int:
    """Network calls of a chain; where each face is treated by its damage, those of a typical one. 0 without a chain."""
    if not chosen["start_step"]:
        return 0
    schedule = make_schedule(chosen["steps"])
    return len(chain_from(schedule, chosen["start_step"], chosen["start_rule"], chosen["calls"]).indices)


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
    if config.task == "upscale" and not is_whole(config, CropFrame.from_table(preset.side, preset.crop)):
        raise UsageError(
            f"--task upscale enlarges whole crops, and those of {preset.name} show less than FFHQ's do; "
            "give crops that jobs.align made for it, with --alignment preset"
        )
    method = Method(preset, sha256=check_weights(config, preset), **chosen)
    # a run file gives lists back where tuples were
    resolved = chosen | {"treatment": [dict(row) for row in chosen["treatment"]]}
    resolved |= {"weights": method.sha256, "preset_side": preset.side}
    if (config.truth or "").startswith("sibling:"):
        resolved |= {"truth": config.truth}  # such pictures are not restored
    if preset.estimator.kind == "spandrel":  # whose options change pixels and not only what file fits
        resolved |= {"estimator_options": dict(preset.estimator.options)}
    if preset.crop:
        resolved |= {"crop": dict(preset.crop)}
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
        frame=m.frame,
        aligned=is_whole(c, m.frame),
        max_pixels=c.max_pixels,
        weights_dir=c.weights_dir,
        device=device if gpus else "cpu",
    )


def read_stage(config: RestoreConfig, method: Method, stop_uri: str, report: Report = ignore) -> ReadAndAlign:
    """The stage that reads pictures and cuts out their faces."""
    c = config
    return ReadAndAlign(
        frame=method.frame,
        detector=DetectorChoice(c.detector, c.min_score, c.weights_dir),
        selection=Selection(c.min_face, c.max_faces, c.max_overlap),
        aligned=c.aligned,
        whole=is_whole(c, method.frame),
        max_crispness=c.max_crispness,
        max_scale=c.max_scale,
        # a preset that treats each face by its damage has judged already what may be pasted
        strength=1.0 if c.strength is None and method.preset.treatment else c.strength,
        max_pixels=most_pixels(c),
        image_column=c.image_column,
        stop_uri=stop_uri,
        task=task_of(c),
        mask=c.mask,
        truth=c.truth,
        report=report,
    )


def most_pixels(config: RestoreConfig) -> int:
    """Pixels of the largest picture that is taken: what it becomes must stay within --max-pixels, too."""
    return config.max_pixels // config.upscale**2


def is_whole(config: RestoreConfig, frame: CropFrame) -> bool:
    """Whether each picture is one face's crop, and not a part of a picture that is."""
    return config.aligned and (config.alignment == "preset" or frame.is_ffhq)


def pastes_change(config: RestoreConfig) -> bool:
    """Whether the change of a crop is pasted, and not the crop; a hole has nothing that a change could be added to."""
    return config.paste == "change" and config.task != "inpaint"


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
    config: RestoreConfig, method: Method, device: str, threads: int, stop_uri: str, report: Report = ignore
) -> RestoreSettings:
    """What every engine is told."""
    m, c = method, config
    return RestoreSettings(
        preset=m.preset,
        weights_dir=c.weights_dir,
        eta=m.eta,
        start_step=m.start_step,
        calls=m.calls,
        hold=m.hold,
        treatment=m.treatment,
        steps=m.steps,
        start_rule=m.start_rule,
        solver=c.solver,
        seed=c.seed,
        free_colour=c.free_colour,
        pastes_change=pastes_change(c),
        device=device,
        precision=c.precision,
        slots=c.slot_count,
        threads=threads,
        stop_uri=stop_uri,
        task=task_of(c),
        without_prior=c.method == "estimator",
        report=report,
    )


def publish_stage(config: RestoreConfig, method: Method, device: str) -> Publish:
    """The stage that writes what a unit delivers, and its marker."""
    m, c = method, config
    return Publish(
        output=c.output,
        frame=m.frame,
        image_column=c.image_column,
        aligned=is_whole(c, m.frame),
        pastes_change=pastes_change(c),
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
