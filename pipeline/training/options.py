"""The options that both training commands share."""

from dataclasses import dataclass
from typing import Literal

from pipeline.console.options import UsageError, option
from pipeline.tracking.address import mlflow_option
from pipeline.training.configs import config_names


@dataclass(frozen=True)
class TrainingOptions:
    """The options of one training. Each command may override defaults."""

    output: str = option(
        help="folder or s3:// prefix for checkpoint, weights, metrics and sample grids; the same command run "
        "again continues from its checkpoint",
        group="what",
        metavar="PATH_OR_URI",
    )
    config: str | None = option(
        None,
        help=f"options from a file: one of {', '.join(config_names())}, or the path of a TOML file; options on the "
        "command line override it",
        group="what",
        metavar="NAME_OR_FILE",
    )
    shards: str | None = option(
        None,
        help="tar shards of aligned faces (made by jobs.align): a folder, one shard, or 'FOLDER/train-*.tar'; or a "
        "folder of aligned pictures",
        group="what",
        metavar="PATH_OR_URI",
    )
    validation: str | None = option(
        None,
        help="shards of faces that are not trained on, for the validation loss and the sample grids "
        "(default: some of the training faces, which shows no overfitting)",
        group="what",
        metavar="PATH_OR_URI",
    )
    preset: str = option(
        "small-swinir", help="preset, or preset file, that defines the networks", group="what"
    )
    init: str | None = option(
        None,
        help="start from the weights of this preset, or weights file, instead of random ones",
        group="what",
        metavar="PRESET_OR_FILE",
    )
    export: str | None = option(
        None,
        help="only write the averaged weights of the last checkpoint to this safetensors file",
        group="what",
        metavar="FILE",
    )
    export_preset: str | None = option(
        None,
        help="only write the averaged weights and a preset file for them, with the other network of --preset: "
        "FOLDER/NAME.toml, or a folder",
        group="what",
        metavar="PATH",
    )
    licence: str | None = option(
        None,
        help="with --export-preset: licence of the weights (default: that of --init's weights, else unspecified)",
        group="what",
        metavar="TEXT",
    )

    steps: int = option(300_000, help="total optimiser steps, over all restarts", group="training")
    batch: int = option(32, help="faces per step, over all workers", group="training")
    accumulate: int = option(
        1,
        help="gradient accumulation: parts into which each worker's batch is split to save memory",
        group="training",
    )
    lr: float = option(5e-5, help="AdamW's learning rate after the warm-up", group="training")
    lr_final: float = option(5e-6, help="learning rate at the end of the cosine decay", group="training")
    warmup: int = option(0, help="steps over which the learning rate rises from 0", group="training")
    weight_decay: float = option(0.0, help="AdamW's weight decay", group="training")
    clip: float = option(1.0, help="maximum gradient norm; 0 disables clipping", group="training")
    ema: float = option(0.999, help="decay of the averaged weights, which are exported", group="training")
    flip: bool = option(False, help="mirror half of the faces", group="training")
    seed: int = option(0, help="seed of weights, order, degradations and noises", group="training")
    precision: Literal["float32", "bfloat16", "float16"] = option(
        "float32", help="autocast type of activations; weights stay float32", group="training"
    )

    log_every: int = option(50, help="steps between reported metrics", group="reports")
    checkpoint_every: int = option(500, help="steps between checkpoints", group="reports")
    validate_every: int = option(1000, help="steps between validations; 0 never validates", group="reports")
    validation_faces: int = option(64, help="faces of the fixed validation batch", group="reports")
    mlflow_uri: str | None = mlflow_option(
        further="; with workers on several machines use a server", group="reports"
    )
    experiment: str = option("difface-train", help="MLflow experiment", group="reports")
    run_name: str | None = option(None, help="MLflow run name (default: the output's name)", group="reports")

    weights_dir: str | None = option(
        None,
        help="folder or s3:// prefix that is searched for weights (of --init, and of LPIPS) before the cache",
        group="surroundings",
        metavar="PATH_OR_URI",
    )
    workers: int = option(1, help="Ray Train workers, one GPU each with --device gpu", group="surroundings")
    device: Literal["auto", "cpu", "gpu"] = option(
        "auto", help="auto uses GPUs where the cluster has one for every worker", group="surroundings"
    )
    cpus_per_worker: int = option(1, help="CPUs (and threads) of each worker", group="surroundings")
    loaders: int = option(
        0,
        help="data loader processes of each worker; 0 loads in the worker itself",
        group="surroundings",
    )
    max_failures: int = option(
        2, help="how often lost workers are replaced, resuming from the checkpoint", group="surroundings"
    )
    ray_address: str | None = option(
        None, help="Ray cluster to join (default: RAY_ADDRESS, else a local one)", group="surroundings"
    )
    dry_run: bool = option(
        False,
        help="check everything, print what would be trained and the steps already done, and stop",
        group="surroundings",
    )

    def __post_init__(self) -> None:
        if self.licence is not None and self.export_preset is None:
            raise UsageError("--licence is the licence of what --export-preset writes; give both")
        if self.shards is None and self.export is None and self.export_preset is None:
            raise UsageError("--shards is missing; give tar shards of aligned faces (made by jobs.align)")
        wanted = {
            "--steps": (self.steps >= 1, "be at least 1"),
            "--batch": (
                self.batch >= 1 and self.batch % max(self.workers, 1) == 0,
                "be a multiple of --workers",
            ),
            "--accumulate": (
                self.accumulate >= 1 and self.batch // max(self.workers, 1) % max(self.accumulate, 1) == 0,
                f"divide the {self.batch // max(self.workers, 1)} faces of each worker's step",
            ),
            "--lr": (self.lr > 0, "be above 0"),
            "--lr-final": (0 <= self.lr_final <= self.lr, "lie between 0 and --lr"),
            "--warmup": (0 <= self.warmup < self.steps, "lie between 0 and --steps"),
            "--weight-decay": (self.weight_decay >= 0, "not be negative"),
            "--clip": (self.clip >= 0, "not be negative"),
            "--ema": (0 <= self.ema < 1, "lie in [0, 1)"),
            "--seed": (0 <= self.seed < 1 << 32, "lie between 0 and 2^32"),
            "--log-every": (self.log_every >= 1, "be at least 1"),
            "--checkpoint-every": (self.checkpoint_every >= 1, "be at least 1"),
            "--validate-every": (self.validate_every >= 0, "not be negative"),
            "--validation-faces": (self.validation_faces >= 1, "be at least 1"),
            "--workers": (self.workers >= 1, "be at least 1"),
            "--cpus-per-worker": (self.cpus_per_worker >= 1, "be at least 1"),
            "--loaders": (self.loaders >= 0, "not be negative"),
        }
        for name, (holds, rule) in wanted.items():
            if not holds:
                value = getattr(self, name.removeprefix("--").replace("-", "_"))
                raise UsageError(f"{name} must {rule}, got {value}")
