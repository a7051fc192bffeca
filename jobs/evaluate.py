"""Score presets on clean aligned faces: degrade them as the paper does, restore them, compare.

`python -m jobs.evaluate --shards 'FOLDER/test-*.tar' --output OUT --presets small-swinir,small-srcnn`
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline import images, store
from pipeline.config import UsageError, option, parse
from pipeline.diffusion.engine import FaceJob
from pipeline.diffusion.noise import noise_key
from pipeline.diffusion.sampler import Solver
from pipeline.diffusion.schedule import Chain, Schedule, chain_from, make_schedule
from pipeline.diffusion.start import StartChoice
from pipeline.metrics.distribution import DIMENSIONS, FID, InceptionFeatures
from pipeline.metrics.fidelity import LPIPS, LPIPS_BACKBONE, psnr, ssim
from pipeline.networks.checkpoint import CheckpointError
from pipeline.networks.unet import UNet
from pipeline.networks.zoo import Preset, PresetError, find_preset, load_network
from pipeline.stages.restore import choose_start, make_engine
from pipeline.tracking import RunTracker, default_uri
from pipeline.training.degradation import degrade, draw_test_degradation
from pipeline.training.samples import (
    FaceAddress,
    SampleError,
    check_side,
    find_shards,
    list_faces,
    to_picture,
    to_tensor,
)
from pipeline.weights import WeightsError, resolve

REFUSALS = (UsageError, PresetError, CheckpointError, WeightsError, SampleError, store.StoreError)
GRID_FACES = 10


@dataclass(frozen=True)
class EvaluateConfig:
    """One evaluation."""

    shards: str = option(
        help="tar shards of clean aligned faces: 'FOLDER/test-*.tar'", group="what", metavar="PATH_OR_URI"
    )
    output: str = option(
        help="folder for scores.json, scores.md and grid.png", group="what", metavar="PATH_OR_URI"
    )
    presets: str = option(
        "small-swinir,small-srcnn", help="presets to score, separated by commas", group="what"
    )
    limit: int = option(
        0, help="score this many faces, spread evenly over the shards; 0 takes all", group="what"
    )
    start_steps: str | None = option(
        None,
        help="starting steps N to score, separated by commas; auto:N gives each face its own, around N "
        "(default: the preset's)",
        group="method",
    )
    calls: str = option(
        "all",
        help="network calls a face to score, separated by commas; all: at every kept step",
        group="method",
    )
    solvers: str = option(
        "ddim", help="solvers to score, ddim and dpm++, separated by commas", group="method"
    )
    eta: float | None = option(None, help="randomness of the chain (default: the preset's)", group="method")
    steps: str | None = option(None, help="respacing (default: the preset's)", group="method")
    seed: int = option(0, help="seed of degradations and noises", group="method")
    batch: int = option(16, help="faces judged at once", group="surroundings")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = option(
        "auto", help="number type of the networks", group="method"
    )
    device: str = option("cpu", help="cpu or cuda", group="surroundings")
    weights_dir: str | None = option(None, help="where weights are looked for first", group="surroundings")
    mlflow_uri: str | None = option(
        None, help="MLflow server or database (default: a SQLite file beside the output); `none` tracks nothing",
        group="surroundings",
    )  # fmt: skip

    def __post_init__(self) -> None:
        if self.eta is not None and not 0 <= self.eta <= 1:
            raise UsageError(f"--eta must lie in [0, 1], got {self.eta}")
        if self.batch < 1 or self.limit < 0:
            raise UsageError(
                f"--batch must be at least 1 and --limit not negative, got {self.batch}, {self.limit}"
            )


class Scorer:
    """The metrics whose weights are at hand; `left_out` names the others."""

    def __init__(self, weights_dir: str | None) -> None:
        self.left_out: dict[str, str] = {}
        self._each: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"PSNR": psnr, "SSIM": ssim}
        self._fid: FID | None = None
        try:
            self._each["LPIPS"] = LPIPS(resolve(LPIPS_BACKBONE, weights_dir=weights_dir).path)
        except (WeightsError, ImportError) as error:
            self.left_out["LPIPS"] = str(error)
        try:
            self._fid = FID(InceptionFeatures(), DIMENSIONS)
        except FileNotFoundError as error:
            self.left_out["FID"] = str(error)

    def truth(self, faces: list[Tensor]) -> None:
        """The true set."""
        self._truth = faces
        for batch in faces if self._fid else []:
            assert self._fid
            self._fid.add_truth(batch)

    def __call__(self, faces: list[Tensor]) -> dict[str, float]:
        """Means over the faces, each with the half width of its 95 % interval as NAME±."""
        scores = {}
        for name, measure in self._each.items():
            values = torch.cat([measure(a, b) for a, b in zip(faces, self._truth, strict=True)])
            scores[name] = float(values.mean())
            scores[name + "±"] = float(1.96 * values.std() / len(values) ** 0.5)
        if self._fid:
            scores["FID"] = self._fid(faces)
        return scores


@dataclass(frozen=True)
class TestSet:
    """Clean and degraded faces, in batches [B, 3, S, S] in [0, 1], and each face's noise name."""

    clean: list[Tensor]
    degraded: list[Tensor]
    names: list[list[str]]


def make_test_set(config: EvaluateConfig, side: int) -> TestSet:
    """Faces spread over the shards, each degraded by a draw from the paper's test grid that its number decides."""
    faces = list_faces(find_shards(config.shards))
    check_side(faces, side)
    return degraded_set(spread(faces, config.limit), config.seed, config.batch)


def spread(faces: Sequence[FaceAddress], limit: int) -> list[FaceAddress]:
    """At most `limit` of the faces, taken evenly; 0 takes all."""
    count = min(limit or len(faces), len(faces))
    return [faces[i] for i in np.linspace(0, len(faces) - 1, count).astype(int)]


def degraded_set(faces: Sequence[FaceAddress], seed: int, batch: int) -> TestSet:
    """Faces of one side, each degraded by a draw from the paper's test grid that seed and its number decide."""
    clean, degraded, names = [], [], []
    for number, face in enumerate(faces):
        rng = np.random.default_rng([seed, number])
        low, truth = degrade(images.decode_rgb(face.read()), draw_test_degradation(rng), rng)
        clean.append(to_tensor(truth))
        degraded.append(to_tensor(low))
        names.append(f"{number:08x}")
    cut = range(0, len(faces), batch)
    return TestSet(
        [torch.stack(clean[i : i + batch]) for i in cut],
        [torch.stack(degraded[i : i + batch]) for i in cut],
        [names[i : i + batch] for i in cut],
    )


@dataclass(frozen=True)
class Way:
    """One way of walking the chain, and what it is called in the table."""

    name: str
    chain: Chain | StartChoice
    solver: Solver


def ways(config: EvaluateConfig, preset: Preset) -> tuple[Schedule, list[Way]]:
    """Every combination of starting step, calls and solver. Raises UsageError when one cannot be walked."""
    found = []
    try:
        schedule = make_schedule(config.steps or preset.steps)
        for start in (config.start_steps or str(preset.start_step)).split(","):
            auto, number = start.startswith("auto"), start.removeprefix("auto").lstrip(":")
            step = int(number or preset.start_step)
            if step > preset.max_step:
                raise UsageError(
                    f"--start-steps of {preset.name} must not exceed {preset.max_step}, got {step}"
                )
            if auto and not preset.auto_start:
                raise UsageError(f"{preset.name} has no [auto_start]; give --start-steps as numbers")
            for told in config.calls.split(","):
                calls = None if told == "all" else int(told)
                rule = preset.start_rule
                chain: Chain | StartChoice = chain_from(schedule, step, rule, calls)
                if auto:
                    bounds = preset.auto_start["bounds"]
                    chain = choose_start(preset, schedule, step, bounds, rule, calls)
                for solver in config.solvers.split(","):
                    if solver not in get_args(Solver):
                        raise UsageError(f"--solvers must be among {get_args(Solver)}, got {solver!r}")
                    name = f"N = {start}" + ("" if calls is None else f", {calls} calls")
                    name += "" if solver == "ddim" else f", {solver}"
                    found.append(Way(name, chain, solver))  # type: ignore[arg-type]  # checked above
    except ValueError as error:
        raise UsageError(f"--steps, --start-steps and --calls: {error}") from error
    return schedule, found


def row_names(presets: list[Preset]) -> list[str]:
    """What each preset is called in the table: its estimator, or its own name where two have the same estimator."""
    kinds = [p.estimator.kind for p in presets]
    return [p.estimator.kind if kinds.count(p.estimator.kind) == 1 else p.name for p in presets]


def restorations(
    config: EvaluateConfig, preset: Preset, called: str, faces: TestSet
) -> Iterator[tuple[str, list[Tensor], dict[str, float]]]:
    """Rows of the table for one preset: its name, the faces, what one cost. The engine of the jobs restores them."""
    estimator, prior = (
        load_network(s, resolve(s.file, s.url, s.sha256, config.weights_dir).path)
        for s in (preset.estimator, preset.prior)
    )
    assert isinstance(prior, UNet)
    schedule, walked = ways(config, preset)
    cores = os.cpu_count() or 1
    engine = make_engine(preset, estimator, prior, schedule, config.device, config.precision, threads=cores)
    eta = preset.eta if config.eta is None else config.eta
    crops = [to_picture(face) for batch in faces.degraded for face in batch]
    names = [name for batch in faces.names for name in batch]
    for number, way in enumerate(walked):
        began = time.monotonic()
        futures = [
            engine.submit(FaceJob(crop, noise_key(config.seed, name, 0), eta, way.chain, way.solver))
            for crop, name in zip(crops, names, strict=True)
        ]
        results = [future.result() for future in futures]
        cost = {
            "calls": sum(r.steps for r in results) / len(crops),
            "seconds": (time.monotonic() - began) / len(crops),
        }
        if number == 0:
            yield called, in_batches([r.estimated for r in results], config.batch), {}
        yield f"DifFace({called}), {way.name}", in_batches([r.restored for r in results], config.batch), cost
    engine.close()


def in_batches(pictures: "list[NDArray[np.uint8]]", size: int) -> list[Tensor]:
    """Pictures [S, S, 3] uint8 → batches [B, 3, S, S] in [0, 1]."""
    tensors = [to_tensor(p) for p in pictures]
    return [torch.stack(tensors[i : i + size]) for i in range(0, len(tensors), size)]


def markdown(rows: dict[str, dict[str, float]], faces: int) -> str:
    """The table for people."""
    names = [n for n in ("PSNR", "SSIM", "LPIPS", "FID") if n in next(iter(rows.values()))]
    better = {"PSNR": "↑", "SSIM": "↑", "LPIPS": "↓", "FID": "↓"}
    lines = [
        f"| {faces} faces | " + " | ".join(n + better[n] for n in names) + " | calls | s/face |",
        "|---|" + "---|" * (len(names) + 2),
    ]
    for row, scores in rows.items():
        cells = [
            f"{scores[n]:.4g}" + (f" ± {scores[n + '±']:.2g}" if n + "±" in scores else "") for n in names
        ]
        cells += [
            f"{scores[n]:.{digits}f}" if n in scores else "" for n, digits in (("calls", 0), ("seconds", 2))
        ]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def grid(columns: list[list[Tensor]]) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
    """[rows * S, GRID_FACES * S, 3] uint8: one row per way, one column per face."""
    rows = [torch.cat(batches)[:GRID_FACES] for batches in columns]
    return np.concatenate([np.concatenate([to_picture(f) for f in row], axis=1) for row in rows], axis=0)


def evaluate(config: EvaluateConfig) -> dict[str, dict[str, float]]:
    """Score everything, write the files, tell MLflow; the rows of the table."""
    presets = [find_preset(name) for name in config.presets.split(",")]
    if len({p.side for p in presets}) > 1:
        raise UsageError(f"presets of one side are compared, got {[(p.name, p.side) for p in presets]}")
    for preset in presets:
        ways(config, preset)
    faces = make_test_set(config, presets[0].side)
    scorer = Scorer(config.weights_dir)
    for name, why in scorer.left_out.items():
        print(f"{name} is left out: {why}", file=sys.stderr)
    scorer.truth(faces.clean)
    rows = {"degraded input": scorer(faces.degraded)}
    shown = [faces.clean, faces.degraded]
    for preset, called in zip(presets, row_names(presets), strict=True):
        for name, restored, cost in restorations(config, preset, called, faces):
            rows[name] = scorer(restored) | cost
            shown.append(restored)
            print(f"{name}: " + ", ".join(f"{k} {v:.4g}" for k, v in rows[name].items()), flush=True)
    table = markdown(rows, sum(map(len, faces.clean)))
    store.write_bytes(store.join(config.output, "scores.json"), json.dumps(rows, indent=1).encode())
    store.write_bytes(store.join(config.output, "scores.md"), table.encode())
    store.write_bytes(store.join(config.output, "grid.png"), images.encode_png(grid(shown)))
    print("\n" + table)
    track(config, rows)
    return rows


def track(config: EvaluateConfig, rows: dict[str, dict[str, float]]) -> None:
    """One MLflow run with the table and the grid."""
    if config.mlflow_uri == "none":
        return
    uri = config.mlflow_uri or default_uri(config.output)
    tracker = RunTracker.open(uri, "difface-evaluate", store.name_of(config.output), params=asdict(config))
    flat = {f"{row}/{k}": v for row, scores in rows.items() for k, v in scores.items() if "±" not in k}
    tracker.log_metrics(
        0, {"".join(c if c.isalnum() or c in " /-_." else "_" for c in k): v for k, v in flat.items()}
    )
    for name in ("scores.md", "scores.json", "grid.png"):
        tracker.log_artifact(store.join(config.output, name), name)
    tracker.finish()


def main(argv: Sequence[str] | None = None) -> int:
    """The job: returns its exit code."""
    config = parse(EvaluateConfig, argv, description=__doc__ or "")
    try:
        evaluate(config)
    except REFUSALS as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
