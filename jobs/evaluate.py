"""Score presets on clean aligned faces: degrade them as the paper does, restore them, compare.

`python -m jobs.evaluate --shards 'FOLDER/test-*.tar' --output OUT --presets small-swinir,small-srcnn`
"""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline import images, store
from pipeline.config import UsageError, option, parse
from pipeline.diffusion.difface import enter_chain, face_noise, from_signed, reverse_chain
from pipeline.diffusion.noise import DRAW_X_N, noise_key
from pipeline.diffusion.schedule import Chain, Schedule, chain_from, make_schedule
from pipeline.metrics.distribution import DIMENSIONS, FID, InceptionFeatures
from pipeline.metrics.fidelity import LPIPS, LPIPS_BACKBONE, psnr, ssim
from pipeline.networks.checkpoint import CheckpointError
from pipeline.networks.zoo import Preset, PresetError, find_preset, load_network
from pipeline.tracking import RunTracker, default_uri
from pipeline.training.degradation import degrade, draw_test_degradation
from pipeline.training.samples import SampleError, check_side, find_shards, list_faces, to_picture, to_tensor
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
        None, help="starting steps N to score, separated by commas (default: the preset's)", group="method"
    )
    eta: float | None = option(None, help="randomness of the chain (default: the preset's)", group="method")
    steps: str | None = option(None, help="respacing (default: the preset's)", group="method")
    seed: int = option(0, help="seed of degradations and noises", group="method")
    batch: int = option(16, help="faces a network call", group="surroundings")
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
    if config.limit:
        faces = [faces[i] for i in np.linspace(0, len(faces) - 1, min(config.limit, len(faces))).astype(int)]
    clean, degraded, names = [], [], []
    for number, face in enumerate(faces):
        rng = np.random.default_rng([config.seed, number])
        picture = images.decode_rgb(store.read_range(face.shard, face.offset, face.length))
        low, truth = degrade(picture, draw_test_degradation(rng), rng)
        clean.append(to_tensor(truth))
        degraded.append(to_tensor(low))
        names.append(f"{number:08x}")
    cut = range(0, len(faces), config.batch)
    return TestSet(
        [torch.stack(clean[i : i + config.batch]) for i in cut],
        [torch.stack(degraded[i : i + config.batch]) for i in cut],
        [names[i : i + config.batch] for i in cut],
    )


def chains(config: EvaluateConfig, preset: Preset) -> tuple[Schedule, dict[int, Chain]]:
    """The chain of every starting step to score. Raises UsageError when one cannot be entered."""
    try:
        schedule = make_schedule(config.steps or preset.steps)
        steps = [int(n) for n in (config.start_steps or str(preset.start_step)).split(",")]
        entered = {n: chain_from(schedule, n, preset.start_rule) for n in steps}
    except ValueError as error:
        raise UsageError(f"--steps and --start-steps: {error}") from error
    if max(steps) > preset.max_step:
        raise UsageError(
            f"--start-steps of {preset.name} must not exceed {preset.max_step}, got {max(steps)}"
        )
    return schedule, entered


def row_names(presets: list[Preset]) -> list[str]:
    """What each preset is called in the table: its estimator, or its own name where two have the same estimator."""
    kinds = [p.estimator.kind for p in presets]
    return [p.estimator.kind if kinds.count(p.estimator.kind) == 1 else p.name for p in presets]


def restorations(
    config: EvaluateConfig, preset: Preset, called: str, faces: TestSet
) -> Iterator[tuple[str, list[Tensor], float]]:
    """Rows of the table for one preset: its name, the faces, seconds a face."""
    estimator, prior = (
        load_network(s, resolve(s.file, s.url, s.sha256, config.weights_dir).path).to(config.device)
        for s in (preset.estimator, preset.prior)
    )
    count = sum(map(len, faces.clean))
    schedule, entered = chains(config, preset)
    eta = preset.eta if config.eta is None else config.eta
    with torch.inference_mode():
        began = time.monotonic()
        estimates = [estimator(b.to(config.device)).float().clamp(0, 1) for b in faces.degraded]
        spent = time.monotonic() - began
        yield called, [e.cpu() for e in estimates], spent / count
        for start_step, chain in entered.items():
            began = time.monotonic()
            restored = []
            for estimate, names in zip(estimates, faces.names, strict=True):
                keys = [noise_key(config.seed, name, 0) for name in names]
                noise = face_noise(keys, preset.side, config.device)
                x_n = enter_chain(estimate, schedule, chain, noise(DRAW_X_N))
                restored.append(from_signed(reverse_chain(x_n, prior, schedule, chain, eta, noise)).cpu())
            seconds = (time.monotonic() - began + spent) / count
            yield f"DifFace({called}), N = {start_step}", restored, seconds


def markdown(rows: dict[str, dict[str, float]], faces: int) -> str:
    """The table for people."""
    names = [n for n in ("PSNR", "SSIM", "LPIPS", "FID") if n in next(iter(rows.values()))]
    better = {"PSNR": "↑", "SSIM": "↑", "LPIPS": "↓", "FID": "↓"}
    lines = [
        f"| {faces} faces | " + " | ".join(n + better[n] for n in names) + " | s/face |",
        "|---|" + "---|" * (len(names) + 1),
    ]
    for row, scores in rows.items():
        cells = [
            f"{scores[n]:.4g}" + (f" ± {scores[n + '±']:.2g}" if n + "±" in scores else "") for n in names
        ]
        seconds = f"{scores['seconds']:.2f}" if "seconds" in scores else ""
        lines.append(f"| {row} | " + " | ".join(cells) + f" | {seconds} |")
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
        chains(config, preset)
    faces = make_test_set(config, presets[0].side)
    scorer = Scorer(config.weights_dir)
    for name, why in scorer.left_out.items():
        print(f"{name} is left out: {why}", file=sys.stderr)
    scorer.truth(faces.clean)
    rows = {"degraded input": scorer(faces.degraded)}
    shown = [faces.clean, faces.degraded]
    for preset, called in zip(presets, row_names(presets), strict=True):
        for name, restored, seconds in restorations(config, preset, called, faces):
            rows[name] = scorer(restored) | {"seconds": seconds}
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
