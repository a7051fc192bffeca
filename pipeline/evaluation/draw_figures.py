"""The paper's figures, drawn with a preset's networks and one's own faces."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch

from pipeline.console.commands import OK
from pipeline.console.options import UsageError, option
from pipeline.datasets.faces import (
    FaceAddress,
    SampleError,
    find_shards,
    list_faces,
    require_side,
    spread,
    to_tensor,
)
from pipeline.diffusion.noise import noise_key
from pipeline.diffusion.schedule import Schedule, chain_from, make_schedule
from pipeline.evaluation import paper_figures
from pipeline.evaluation.testset import Recipe, make_pictures
from pipeline.io import images, store
from pipeline.io.weights import resolve
from pipeline.networks.inference_unet import InferenceUNet
from pipeline.networks.presets import Preset, find_preset, load_network, unknown_channels
from pipeline.networks.unet import UNet
from pipeline.tracking.address import mlflow_option, settle_uri
from pipeline.tracking.tracker import RunTracker

FIGURES = {
    "fig3": "fig3_diffuse_reconstruct.png",
    "fig4": "fig4_contraction.png",
    "grid": "fig_grid_n_eta.png",
}
TABLE = "fig4_contraction.csv"
# starting steps by default
COLUMNS = 12


@dataclass(frozen=True)
class FiguresConfig:
    """One set of figures."""

    faces: str = option(
        help="clean aligned faces: a folder of pictures, or tar shards made by jobs.align ('FOLDER/test-*.tar')",
        group="what",
        metavar="PATH_OR_URI",
    )
    output: str = option(help="folder for the figures", group="what", metavar="PATH_OR_URI")
    preset: str = option("small-swinir", help="a preset's name or the path of a preset file", group="what")
    figures: str = option(
        ",".join(FIGURES), help="which to draw, separated by commas: fig3 shows faces diffused and reconstructed, "
        "fig4 the contraction of the error, grid restorations over N and η", group="what",
    )  # fmt: skip
    count: int = option(16, help="faces that fig4 measures, spread evenly over the input", group="what")
    shown: int = option(2, help="faces that fig3 and grid show: the first of those", group="what")
    start_steps: str | None = option(
        None, help=f"starting steps N, separated by commas (default: {COLUMNS}, up to the last that the prior knows)",
        group="method",
    )  # fmt: skip
    etas: str = option("0,0.25,0.5,0.75,1", help="η of the grid's rows, separated by commas", group="method")
    eta: float | None = option(
        None, help="randomness of the chains of fig3 and fig4 (default: the preset's)", group="method"
    )
    calls: int | None = option(
        None, help="network calls of a chain at most (default: one at every kept step)", group="method"
    )
    steps: str | None = option(None, help="respacing (default: the preset's)", group="method")
    seed: int = option(0, help="seed of degradations and noises", group="method")
    batch: int = option(8, help="faces of one network call", group="surroundings")
    device: str = option("cpu", help="cpu or cuda", group="surroundings")
    weights_dir: str | None = option(None, help="where weights are looked for first", group="surroundings")
    mlflow_uri: str | None = mlflow_option(group="surroundings")

    def __post_init__(self) -> None:
        unknown = sorted(set(self.figures.split(",")) - set(FIGURES))
        if unknown:
            raise UsageError(f"--figures must be among {', '.join(FIGURES)}, got {', '.join(unknown)!r}")
        if min(self.count, self.shown, self.batch) < 1:
            raise UsageError(
                f"--count, --shown and --batch must be at least 1, got {self.count}, {self.shown}, {self.batch}"
            )
        for eta in [*self.grid_etas(), self.eta or 0]:
            if not 0 <= eta <= 1:
                raise UsageError(f"--eta and --etas must lie in [0, 1], got {eta}")

    def grid_etas(self) -> list[float]:
        """The grid's rows. Raises UsageError for what is no number."""
        try:
            return [float(eta) for eta in self.etas.split(",")]
        except ValueError as error:
            raise UsageError(f"--etas must be numbers separated by commas, got {self.etas!r}") from error


def choose_faces(config: FiguresConfig, side: int) -> list[FaceAddress]:
    """`--count` faces of the input. Raises SampleError when there are none, or one is unreadable or not side x side."""
    uri = config.faces
    if any(c in store.name_of(uri) for c in "*?["):
        found = list_faces(find_shards(uri))
    else:
        entries = store.list_files(uri)
        found = [FaceAddress(e.uri, 0, e.size) for e in entries if images.is_image_name(e.path)]
        if shards := [e.uri for e in entries if e.path.endswith(".tar")]:
            found = list_faces(shards)
    if not found:
        raise SampleError(
            f"{uri} holds neither pictures nor tar shards; make some with `python -m jobs.align`"
        )
    chosen = spread(found, config.count)
    for face in chosen:
        require_side(face.picture(), side, face.shard)
    return chosen


def choose_steps(config: FiguresConfig, preset: Preset, schedule: Schedule) -> list[int]:
    """Starting steps in rising order. Raises UsageError for one that the prior does not know."""
    if config.start_steps is None:
        width = max(preset.max_step // COLUMNS // 10 * 10, 1)
        kept = schedule.t[(schedule.t > 0) & (schedule.t <= preset.max_step)]
        near = [int(kept[abs(kept - width * i).argmin()]) for i in range(1, COLUMNS + 1)]
        return sorted(set(near))
    try:
        steps = sorted({int(step) for step in config.start_steps.split(",")})
    except ValueError as error:
        raise UsageError(
            f"--start-steps must be whole numbers separated by commas, got {config.start_steps!r}"
        ) from error
    if steps[-1] > preset.max_step:
        raise UsageError(f"--start-steps of {preset.name} must not exceed {preset.max_step}, got {steps[-1]}")
    return steps


def make_reconstructor(config: FiguresConfig, preset: Preset) -> paper_figures.Reconstructor:
    """The chains of every starting step. Raises UsageError for one that the schedule does not allow."""
    try:
        schedule = make_schedule(config.steps or preset.steps)
        chains = {
            step: chain_from(schedule, step, preset.start_rule, config.calls)
            for step in choose_steps(config, preset, schedule)
        }
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(f"--steps, --start-steps and --calls: {error}") from error
    spec = preset.prior
    prior = load_network(spec, resolve(spec.file, spec.url, spec.sha256, config.weights_dir).path)
    assert isinstance(prior, UNet)
    known = [int(t) for t in schedule.t if t <= preset.max_step]
    return paper_figures.Reconstructor(
        InferenceUNet(prior.to(config.device), known), schedule, chains, config.device
    )


@torch.inference_mode()
def make_faces(
    config: FiguresConfig, preset: Preset, addresses: Sequence[FaceAddress]
) -> list[paper_figures.Faces]:
    """The chosen faces in batches, each degraded by a draw from the paper's test grid, and estimated."""
    spec = preset.estimator
    if unknown_channels(spec):
        raise UsageError(f"a preset that restores degraded faces was wanted, {preset.name} fills holes")
    estimator = load_network(spec, resolve(spec.file, spec.url, spec.sha256, config.weights_dir).path)
    estimator.to(config.device)
    recipe = Recipe("restore", preset.side, config.seed)
    batches = []
    for first in range(0, len(addresses), config.batch):
        numbers = range(first, min(first + config.batch, len(addresses)))
        made = [make_pictures(addresses[n].picture(), n, recipe)[0] for n in numbers]
        truth, low = (torch.stack([to_tensor(m[name]) for m in made]) for name in ("truth", "degraded"))
        guess = estimator(low.to(config.device)).clamp(0, 1).cpu()
        batches.append(
            paper_figures.Faces(truth, low, guess, [noise_key(config.seed, f"{n:08x}", 0) for n in numbers])
        )
    return batches


def first_of(batches: Sequence[paper_figures.Faces], count: int) -> paper_figures.Faces:
    """The first `count` faces as one batch."""
    columns = [[getattr(b, name) for b in batches] for name in ("truth", "degraded", "estimated")]
    truth, degraded, estimated = (torch.cat(column)[:count] for column in columns)
    return paper_figures.Faces(truth, degraded, estimated, [key for b in batches for key in b.keys][:count])


def draw(config: FiguresConfig) -> int:
    """Draw what was asked for, write it, report it to MLflow. Returns the exit code."""
    preset = find_preset(config.preset)
    reconstruct = make_reconstructor(config, preset)
    batches = make_faces(config, preset, choose_faces(config, preset.side))
    store.check_writable(config.output)
    shown = first_of(batches, config.shown)
    eta = preset.eta if config.eta is None else config.eta
    steps, marked = list(reconstruct.chains), preset.start_step
    method = f"{preset.name}, {config.steps or preset.steps}, seed {config.seed}"
    method += "" if config.calls is None else f", at most {config.calls} calls"
    written: list[str] = []
    rows: list[dict[str, float]] = []

    def write(name: str, data: bytes) -> None:
        store.write_bytes(store.join(config.output, name), data)
        written.append(name)
        print(f"{store.join(config.output, name)}  ({time.monotonic() - began:.0f} s)", flush=True)

    began = time.monotonic()
    wanted = config.figures.split(",")
    if "fig3" in wanted:
        blocks = paper_figures.diffuse_and_reconstruct(shown, reconstruct, eta)
        title = "Diffused to step N and reconstructed, from the clean face and from the estimate"
        below = f"{method}, η = {eta:g}; each face with noise of its own, the same in both"
        write(FIGURES["fig3"], paper_figures.draw_sheet(title, below, steps, marked, blocks))
    if "grid" in wanted:
        blocks = paper_figures.restoration_grid(shown, reconstruct, config.grid_etas())
        title = "Restored from step N with randomness η"
        below = f"{method}; each face with noise of its own, the same in every row"
        write(FIGURES["grid"], paper_figures.draw_sheet(title, below, steps, marked, blocks))
    if "fig4" in wanted:
        found = paper_figures.measure_contraction(batches, reconstruct, eta)
        rows = found.rows()
        title = f"Contraction of the estimator's error ({method}, η = {eta:g})"
        write(FIGURES["fig4"], paper_figures.draw_contraction(found, reconstruct.schedule, title, marked))
        write(TABLE, paper_figures.contraction_csv(found))
    track(config, written, rows)
    return OK


def track(config: FiguresConfig, written: Sequence[str], rows: Sequence[dict[str, float]]) -> None:
    """One MLflow run with the figures, and the curves by step N."""
    uri = settle_uri(config.mlflow_uri, config.output)
    tracker = RunTracker.open(uri, "difface-figures", store.name_of(config.output), params=asdict(config))
    for row in rows:
        tracker.log_metrics(int(row["N"]), {k: v for k, v in row.items() if k != "N"})
    for name in written:
        tracker.log_artifact(store.join(config.output, name), name)
    tracker.finish()
