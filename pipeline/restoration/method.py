"""From options to a method with its weights, and to the stages that carry it out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from pipeline.console.commands import say
from pipeline.console.options import UsageError
from pipeline.console.work_counts import Report, ignore
from pipeline.diffusion.method import Method
from pipeline.diffusion.schedule import chain_from, make_schedule
from pipeline.faces.detect import Selection
from pipeline.faces.error_features import ErrorModel
from pipeline.faces.gates import Bounds
from pipeline.faces.geometry import CropFrame
from pipeline.faces.sides import LargerSide
from pipeline.io import store
from pipeline.io.face_list import NO_FACES, FaceList, read_face_list
from pipeline.io.weights import (
    DETECTOR_WEIGHTS,
    MASK_WEIGHTS,
    WeightsError,
    find_upscaler,
    resolve,
    resolve_mask,
    resolve_metric,
)
from pipeline.metrics.measure import MeasureSettings
from pipeline.metrics.suite import METRICS, Suite, columns_of, parse_metrics
from pipeline.networks.checkpoint import read_state
from pipeline.networks.inference_unet import PACKED_SIDE
from pipeline.networks.presets import Preset, find_preset, load_network
from pipeline.networks.spandrel_models import load_upscaler
from pipeline.networks.tiling import MARGIN, TILE
from pipeline.records.fingerprint import METHOD_VERSION
from pipeline.restoration.config import RestoreConfig, fingerprint
from pipeline.restoration.gates import choose_bounds
from pipeline.restoration.samples import invented_above
from pipeline.stages.align import DetectorChoice, ReadAndAlign
from pipeline.stages.background import Background
from pipeline.stages.label import LabelPictures
from pipeline.stages.publish import Publish
from pipeline.stages.restore import HOLE_LEVEL, RestoreSettings

T = TypeVar("T")


@dataclass(frozen=True)
class Restorer:
    """A run's method with its networks: found, checked, and loaded once."""

    preset: Preset
    method: Method
    # digests of the weights by role
    sha256: dict[str, str]
    # what a restored face may differ from the one that came; None: whatever comes out is delivered
    bounds: Bounds | None = None
    # what predicts the error of an estimate; None: nothing does
    error_model: ErrorModel | None = None
    # what is measured besides, of --metrics what can be
    metrics: tuple[str, ...] = ()
    # faces that people named beforehand
    never: FaceList = NO_FACES
    only: FaceList | None = None

    @property
    def model_sha256(self) -> str:
        """One name for the networks together."""
        return "+".join(self.sha256[role][:16] for role in ("prior", "estimator") if role in self.sha256)

    @property
    def frame(self) -> CropFrame:
        """What the preset's crops show."""
        return CropFrame.from_table(self.preset.side, self.preset.crop)


def choose_method(config: RestoreConfig, preset: Preset | None = None) -> tuple[Preset, Method]:
    """The preset and the method; raises UsageError when N is not in the schedule or above what the prior knows.

    preset: taken instead of the one that the configuration names.
    """
    preset = preset or find_preset(config.preset_name)
    wanted = config.method
    if wanted.name == "estimator":
        nothing = (0.0, preset.steps, preset.start_rule, 0, None, 0.0, ())
        return preset, Method(*nothing, wanted.solver, wanted.seed, without_prior=True)
    if wanted.solver == "dpm++" and wanted.eta:
        raise UsageError(f"--solver dpm++ draws no noise; leave --eta {wanted.eta} out")
    is_blind = config.task.is_blind
    method = Method(
        eta=_given(wanted.eta, preset.eta),
        steps=_given(wanted.steps, preset.steps),
        start_rule=_given(wanted.start_rule, preset.start_rule),
        start_step=_given(wanted.start_step, preset.start_of(config.task.name)),
        calls=_given(wanted.calls, preset.calls_of(config.task.name)),
        hold=_given(wanted.hold, preset.hold if is_blind else 0.0),
        treatment=_treatment(config, preset),
        solver=wanted.solver,
        seed=wanted.seed,
        last_step=preset.last_step,
    )
    for start_step in method.start_steps:
        check_start(preset, method.steps, start_step, method.start_rule)
    return preset, method


def _given(wanted: T | None, default: T) -> T:
    return default if wanted is None else wanted


def _treatment(config: RestoreConfig, preset: Preset) -> tuple[Mapping[str, Any], ...]:
    """The rows of the preset's table, their chains as the options want them; none where all faces are treated alike."""
    wanted = config.method
    if not config.task.is_blind or wanted.name != "auto" or wanted.start_step is not None:
        return ()
    given = {"calls": wanted.calls, "hold": wanted.hold, "eta": wanted.eta}
    changed = {name: value for name, value in given.items() if value is not None}
    return tuple(dict(row) | (changed if "start_step" in row else {}) for row in preset.treatment)


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
    if config.method.name == "estimator":
        del roles["prior"]
    for role, spec in roles.items():
        found = resolve(spec.file, spec.url, spec.sha256, config.machine.weights_dir)
        load_network(spec, found.path)
        digests[role] = found.sha256
    if config.faces.detector in DETECTOR_WEIGHTS and not config.input.aligned:
        published = DETECTOR_WEIGHTS[config.faces.detector]
        digests["detector"] = resolve(
            published.file, published.url, published.sha256, config.machine.weights_dir
        ).sha256
    if config.task.mask in MASK_WEIGHTS:
        digests["mask"] = resolve_mask(config.task.mask).sha256
    if config.background.network is not None:
        published = find_upscaler(config.background.network)
        found = resolve(published.file, published.url, published.sha256, config.machine.weights_dir)
        load_upscaler(read_state(found.path), TILE + 2 * MARGIN, str(found.path))
        digests["background"] = found.sha256
    return digests


def bounds_of(config: RestoreConfig, preset: Preset) -> Bounds | None:
    """What the gates allow; None where none is asked. Raises UsageError where the preset's table is none."""
    if not config.task.is_blind:  # what such a task knows of a face is kept
        return None
    return choose_bounds(config.gate, preset, config.faces.free_colour)


def error_model_of(config: RestoreConfig, preset: Preset) -> ErrorModel | None:
    """What predicts the error of a blind face's estimate. Raises UsageError where the preset's table is none."""
    if not config.task.is_blind or not preset.error:
        return None
    try:
        return ErrorModel.from_table(preset.error)
    except ValueError as error:
        raise UsageError(f"--preset {preset.name}: {error}") from error


def _askable(bounds: Bounds | None, weights_dir: str | None) -> Bounds | None:
    """The bounds without that of the identity where its network is missing, which is said."""
    if bounds is None or bounds.identity is None:
        return bounds
    try:
        resolve_metric("identity", weights_dir)
    except WeightsError as error:
        say(f"warning: the gate identity is off: {error}")
        return replace(bounds, identity=None)
    return bounds


def settle_method(config: RestoreConfig, preset: Preset, method: Method) -> tuple[Restorer, dict[str, Any]]:
    """The method with its weights found and checked, and the fingerprint of a run with it."""
    if config.task.name == "upscale" and not is_whole(config, CropFrame.from_table(preset.side, preset.crop)):
        raise UsageError(
            f"--task upscale enlarges whole crops, and those of {preset.name} show less than FFHQ's do; "
            "give crops that jobs.align made for it, with --alignment preset"
        )
    bounds = _askable(bounds_of(config, preset), config.machine.weights_dir)
    never = read_face_list(config.faces.never) if config.faces.never else NO_FACES
    only = read_face_list(config.faces.only) if config.faces.only else None
    model = error_model_of(config, preset)
    weights = check_weights(config, preset)
    restorer = Restorer(preset, method, weights, bounds, model, never=never, only=only)
    resolved = method.resolved | {"weights": restorer.sha256, "preset_side": preset.side}
    if (config.metrics.truth or "").startswith("sibling:"):
        resolved |= {"truth": config.metrics.truth}  # such pictures are not restored
    if preset.estimator.kind == "spandrel":  # whose options change pixels and not only what file fits
        resolved |= {"estimator_options": dict(preset.estimator.options)}
    if preset.crop:
        resolved |= {"crop": dict(preset.crop)}
    if rows := sides_of(config, preset):
        resolved |= {"sides": [dict(row) for row in rows]}
    if preset.prior.options["image_size"] >= PACKED_SIDE:  # outputs begun before have other bits
        resolved |= {"prior_form": "packed"}
    if config.task.mask:  # outputs begun before filled more than the holes
        resolved |= {"hole_level": HOLE_LEVEL}
    if bounds is not None:
        resolved |= {"gates": bounds.as_table}
    resolved |= {"never": never.digest} if config.faces.never else {}
    resolved |= {"only": only.digest} if only is not None else {}
    resolved |= config.samples.resolved(invented_above(preset, config.task.is_blind))
    if config.background.network is not None:
        name = store.name_of(config.background.network)
        resolved |= {
            "background": {"network": name, "upscale": config.background.upscale, "tile": [TILE, MARGIN]}
        }
    if config.output.convert != "none":  # which outputs begun before do not name
        resolved |= {"convert": config.output.convert}
    label = label_stage(config, restorer)
    resolved |= label.resolved if label is not None else {}
    return restorer, fingerprint(config, resolved)


def settle_metrics(config: RestoreConfig, say: Callable[[str], None]) -> tuple[str, ...]:
    """What of --metrics can be measured: every network is loaded once, here, and what is missing named.

    Raises UsageError.
    """
    if config.metrics.names == "none":
        return ()
    try:
        names = parse_metrics(config.metrics.names, config.metrics.truth is not None)
    except ValueError as error:
        raise UsageError(f"--metrics {config.metrics.names}: {error}") from error
    suite = Suite(names, weights_dir=config.machine.weights_dir)
    for name, why in suite.left_out.items():
        say(f"warning: the metric {name} is left out: {why}")
    for name in suite.names:
        if METRICS[name].terms:
            say(f"note: the metric {name}: {METRICS[name].terms}")
    return suite.names


def measure_stage(
    config: RestoreConfig, restorer: Restorer, device: str, gpus: float
) -> MeasureSettings | None:
    """The settings of every measuring actor; None where nothing is measured."""
    m, c = restorer, config
    if not m.metrics:
        return None
    return MeasureSettings(
        metrics=m.metrics,
        truth=c.metrics.truth,
        frame=m.frame,
        aligned=is_whole(c, m.frame),
        max_pixels=c.faces.max_pixels,
        weights_dir=c.machine.weights_dir,
        device=device if gpus else "cpu",
    )


def read_stage(
    config: RestoreConfig, restorer: Restorer, stop_uri: str, report: Report = ignore
) -> ReadAndAlign:
    """The stage that reads pictures and cuts out their faces."""
    c = config
    return ReadAndAlign(
        frame=restorer.frame,
        detector=DetectorChoice(c.faces.detector, c.faces.min_score, c.machine.weights_dir),
        selection=Selection(c.faces.min_face, c.faces.max_faces, c.faces.max_overlap),
        aligned=c.input.aligned,
        whole=is_whole(c, restorer.frame),
        # a preset that treats each face by its damage has judged already what may be pasted
        strength=1.0 if c.faces.strength is None and restorer.preset.treatment else c.faces.strength,
        max_pixels=c.most_pixels,
        image_column=c.input.image_column,
        stop_uri=stop_uri,
        into=c.output.convert,
        task=c.task.task,
        mask=c.task.mask,
        truth=c.metrics.truth,
        never=restorer.never,
        only=restorer.only,
        larger=tuple(
            LargerSide(row["side"], row["above_scale"], row["above_crispness"])
            for row in sides_of(c, restorer.preset)
        ),
        report=report,
    )


def sides_of(config: RestoreConfig, preset: Preset) -> tuple[Mapping[str, Any], ...]:
    """The preset's rows of larger sides, where faces may have them."""
    frame = CropFrame.from_table(preset.side, preset.crop)
    may = config.faces.sides == "preset" and config.task.is_blind and not is_whole(config, frame)
    return preset.sides if may else ()


def is_whole(config: RestoreConfig, frame: CropFrame) -> bool:
    """Whether each picture is one face's crop, and not a part of a picture that is."""
    return config.input.aligned and (config.input.alignment == "preset" or frame.is_ffhq)


def background_of(config: RestoreConfig, device: str) -> Background | None:
    """What enhances the pictures around their faces."""
    if config.background.network is None:
        return None
    published = find_upscaler(config.background.network)
    machine = config.machine
    return Background(published, machine.weights_dir, config.background.upscale, device, machine.precision)


def restore_stage(
    config: RestoreConfig,
    restorer: Restorer,
    device: str,
    threads: int,
    stop_uri: str,
    report: Report = ignore,
) -> RestoreSettings:
    """The settings of every engine actor."""
    m, c = restorer, config
    return RestoreSettings(
        preset=m.preset,
        weights_dir=c.machine.weights_dir,
        method=m.method,
        free_colour=c.faces.free_colour,
        pastes_change=c.pastes_change,
        device=device,
        precision=c.machine.precision,
        slots=c.machine.slot_count,
        threads=threads,
        stop_uri=stop_uri,
        task=c.task.task,
        bounds=m.bounds,
        samples=c.samples.number,
        takes_nearest=c.samples.takes_nearest,
        invented=invented_above(m.preset, c.task.is_blind),
        error_model=m.error_model,
        report=report,
    )


def label_stage(config: RestoreConfig, restorer: Restorer) -> LabelPictures | None:
    """What labels restored pictures; None where nothing does."""
    if config.output.label != "xmp":
        return None
    weights = ", ".join(f"{role} {digest[:16]}" for role, digest in sorted(restorer.sha256.items()))
    agent = f"difface-pipeline, method {METHOD_VERSION}"
    preset = "".join(letter for letter in restorer.preset.name if letter.isprintable())
    return LabelPictures(preset, agent, weights, config.output.label_date or "")


def publish_stage(config: RestoreConfig, restorer: Restorer, device: str) -> Publish:
    """The stage that writes what a unit delivers, and its marker."""
    m, c = restorer, config
    return Publish(
        output=c.output.uri,
        frame=m.frame,
        image_column=c.input.image_column,
        aligned=is_whole(c, m.frame),
        pastes_change=c.pastes_change,
        keep_detail=c.faces.keep_detail,
        max_pixels=c.most_pixels,
        save_faces=c.output.save_faces,
        settings={**m.method.columns, "model_sha256": m.model_sha256},
        device=device,
        task=c.task.task,
        mask=c.task.mask,
        measured=columns_of(m.metrics),
        background=background_of(c, device),
        review=c.output.review == "on",
        never=m.never,
        label=label_stage(c, m),
        into=c.output.convert,
    )
