"""Train the portrait networks on one GPU, or a CPU, without Ray; docs/training.md describes the commands.

    python tools/gpu_train.py pack --faces 'faces/train-*.tar' --held-out faces/val-000.tar --out packed.npz --mib 48
    bash tools/gpu_train.sh --faces packed.npz --minutes 10 --out trained        (train, on the lent machine)
    python tools/gpu_train.py join --network prior --parts trained --out portrait_prior.safetensors

`train` needs torch, numpy, OpenCV, Pillow and safetensors alone; `pack` needs scikit-image, too.
"""

import argparse
import json
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline import Refusal
from pipeline.datasets import degradation
from pipeline.datasets.packed_faces import PackedFaces, crop_faces, read_packed, write_packed
from pipeline.evaluation import realworld
from pipeline.faces.geometry import CropFrame
from pipeline.io.images import encode_png
from pipeline.networks.checkpoint import load_strict, write_state
from pipeline.networks.precision import number_type
from pipeline.networks.presets import PRESETS, NetworkSpec, Preset, build, find_preset, load_network
from pipeline.training.face_batches import FaceBatches
from pipeline.training.half_norms import keep_half
from pipeline.training.held_out import HeldOut
from pipeline.training.masked import MaskedEps, masked_l1
from pipeline.training.timed import TimedConfig, TimedHooks, TimedTraining
from pipeline.training.weight_parts import read_parts, write_parts

INTERRUPTED = 130
# Seeds of the degradations of held-out faces.
PAPER_SEED, REAL_SEED = 10000, 0


@dataclass(frozen=True)
class Recipe:
    """How a network is trained from random weights on a GPU."""

    rate: float
    batch: int
    weight_decay: float
    # of the minutes, where both are trained
    share: float
    seed: int


RECIPES = {
    "estimator": Recipe(rate=1e-3, batch=192, weight_decay=0.0, share=0.4, seed=1),
    "prior": Recipe(rate=4e-4, batch=128, weight_decay=1e-4, share=0.6, seed=2),
}
# For weights that are trained already: share of the rate, and updates that their average counts from the start.
RATE_OF_TRAINED, UPDATES_OF_TRAINED = 1 / 3, 100
# Without a GPU, for a trial: faces of a step and of a validation, and validations between beginning and end.
CPU_BATCH, CPU_HELD_OUT, CPU_VALIDATIONS = 4, 12, 1
GPU_HELD_OUT, GPU_VALIDATIONS = 256, 5


class Session:
    """One call of `train`: its networks, its held-out faces, and what it writes."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.out, self.device = args, Path(args.out), torch.device(args.device)
        self.out.mkdir(parents=True, exist_ok=True)
        self.began, self.stopping = time.monotonic(), False
        on_cpu = self.device.type == "cpu"
        self.preset = find_preset(args.preset)
        self.bfloat16 = number_type("auto", on_cpu) == torch.bfloat16
        self.networks = {
            name: start_network(getattr(self.preset, name), args.start).to(self.device) for name in RECIPES
        }
        if not on_cpu:
            torch.backends.cudnn.benchmark = True
            for network in self.networks.values():
                keep_half(network)
        faces = load_faces(args.faces, self.preset)
        held_out = faces.part(held_out=True)
        count = args.held_out_faces or (CPU_HELD_OUT if on_cpu else GPU_HELD_OUT)
        chosen = np.linspace(0, len(held_out.crops) - 1, min(count, len(held_out.crops))).astype(int)
        shown = PackedFaces(
            held_out.crops[chosen], held_out.inside[chosen], held_out.held_out[chosen], faces.side
        )
        self.faces = faces.part(held_out=False)
        self.held_out = HeldOut.of(shown, degraded_sets, self.device, self.bfloat16)
        self.report(
            "start",
            device=self.device.type,
            faces=len(self.faces.crops),
            held_out=len(chosen),
            start=args.start,
        )

    def report(self, kind: str, **values: Any) -> None:
        """A line of report.jsonl and of the screen."""
        line = json.dumps({"kind": kind, "seconds": round(time.monotonic() - self.began, 1)} | values)
        print(line, flush=True)
        with (self.out / "report.jsonl").open("a") as file:
            file.write(line + "\n")

    def stop(self, *_: Any) -> None:
        """End after the step that is under way."""
        self.stopping = True

    def train(self) -> int:
        """Train the wanted networks one after the other. Returns the exit code."""
        names = list(RECIPES) if self.args.network == "both" else [self.args.network]
        trainings = {name: self.training(name, len(names) > 1) for name in names}
        unfinished = [name for name, training in trainings.items() if training.position < 1]
        if not unfinished:
            for training in trainings.values():
                training.begin_anew()
        for name in unfinished or names:
            if not self.stopping:
                self.run(name, trainings[name])
        self.report("end", stopped=self.stopping)
        return INTERRUPTED if self.stopping else 0

    def training(self, name: str, shared: bool) -> TimedTraining:
        """The training of a network, at the place where its saved state left it, if there is one."""
        args, recipe = self.args, RECIPES[name]
        untrained = args.start == "scratch"
        factor = args.rate_factor or (1.0 if untrained else RATE_OF_TRAINED)
        validations = CPU_VALIDATIONS if self.device.type == "cpu" else GPU_VALIDATIONS
        config = TimedConfig(
            rate=recipe.rate * factor,
            seconds=None if args.steps else 60 * args.minutes * (recipe.share if shared else 1),
            steps=args.steps,
            weight_decay=recipe.weight_decay,
            averaged=0 if untrained else UPDATES_OF_TRAINED,
            bfloat16=self.bfloat16,
            validations=validations if args.validations is None else args.validations,
        )
        training = TimedTraining(self.networks[name], config, self.device)
        if self.state_path(name).is_file():
            training.load(self.state_path(name))
            self.networks[name] = training.average.module
            self.report("resumed", network=name, step=training.step, position=training.position)
        return training

    def run(self, name: str, training: TimedTraining) -> None:
        """Train one network, and keep its average in place of what it started from."""
        batch = self.args.batch or (CPU_BATCH if self.device.type == "cpu" else RECIPES[name].batch)
        estimates = name == "estimator"
        batches = FaceBatches(self.faces, batch, RECIPES[name].seed, self.device, degraded=estimates)
        eps = MaskedEps(self.device, self.preset.max_step)

        def validate(network: nn.Module) -> None:
            self.networks[name] = network
            write_parts(network.state_dict(), self.out, name)
            if self.args.keep_state and training.step:
                training.save(self.state_path(name))
            # whoever stops the program may not wait for measurements
            if not self.stopping:
                scores = self.held_out.estimator(network) if estimates else self.held_out.prior(network, eps)
                self.report("validation", network=name, step=training.step, **scores)
                self.draw_sheet()

        hooks = TimedHooks(
            report=lambda values: self.report("training", network=name, **values),
            validate=validate,
            stops=lambda: self.stopping,
        )
        training.run(batches, masked_l1 if estimates else eps, hooks)

    def draw_sheet(self) -> None:
        """sheet.png: a row a face; input, estimate, chain with and without hold, truth."""
        networks = self.networks["estimator"], self.networks["prior"]
        picture = self.held_out.sheet(*networks, self.preset, ("mild", "medium", "heavy"))
        partial = self.out / ".sheet.partial"
        partial.write_bytes(encode_png(picture))
        partial.replace(self.out / "sheet.png")

    def state_path(self, name: str) -> Path:
        """The resumable state of a network's training."""
        return self.out / f"state-{name}.pt"


def start_network(spec: NetworkSpec, start: str) -> nn.Module:
    """A network with the package's weights, those of a folder of an earlier training, or untrained ones.

    The package's, too, where the folder has none of this network.
    """
    name = "prior" if spec.kind == "unet" else "estimator"
    if start == "scratch":
        torch.manual_seed(0)
        return build(spec)
    if start != "package" and any(Path(start).glob(f"{name}*.safetensors")):
        network = build(spec)
        load_strict(network, read_parts(Path(start), name), f"{start} as {spec.kind}")
        return network
    if start != "package" and not Path(start).is_dir():
        raise Refusal(f"--from must be package, scratch or the --out folder of a training, got {start!r}")
    path = Path(spec.file)
    return load_network(spec, path if path.is_file() else PRESETS / "weights" / spec.file)


def load_faces(sources: Sequence[str], preset: Preset) -> PackedFaces:
    """Packed faces, or those of tars."""
    if all(source.endswith(".npz") for source in sources):
        faces = read_packed([Path(source) for source in sources])
        if faces.side != preset.side:
            raise Refusal(
                f"{sources[0]}: faces of {faces.side} px, expected the preset's {preset.side}; pack again"
            )
        return faces
    return crop_faces(sources, CropFrame.from_table(preset.side, preset.crop))


def degraded_sets(crops: NDArray[np.uint8]) -> Mapping[str, NDArray[np.uint8]]:
    """[F, S, S, 3] uint8 under the paper's test grid and at each level of the real-world grid."""
    sets = {
        "paper": [
            degradation.degrade(
                face, degradation.grid_degradation(i, PAPER_SEED), np.random.default_rng([PAPER_SEED, 4, i])
            )[0]
            for i, face in enumerate(crops)
        ]
    }
    for name, level in realworld.LEVELS.items():
        sets[name] = []
        for i, face in enumerate(crops):
            rng = realworld.generator(REAL_SEED, i, name)
            how = realworld.draw_damage(level, rng) if level else None
            sets[name].append(realworld.damage(face, how, rng) if how else face)
    return {name: np.stack(faces) for name, faces in sets.items()}


def train(args: argparse.Namespace) -> int:
    """Train, until the minutes are over or the program is stopped."""
    session = Session(args)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, session.stop)
    return session.train()


def pack(args: argparse.Namespace) -> int:
    """Write the crops of the faces to one file."""
    preset = find_preset(args.preset)
    faces = crop_faces(args.faces, CropFrame.from_table(preset.side, preset.crop), args.held_out)
    quality = write_packed(faces, Path(args.out), args.mib)
    size = Path(args.out).stat().st_size / 2**20
    print(
        f"{len(faces.crops):,} faces, {faces.held_out.sum():,} held out, at WebP quality {quality}: {size:.1f} MiB"
    )
    return 0


def join(args: argparse.Namespace) -> int:
    """Put the parts of a network's weights together."""
    write_state(read_parts(Path(args.parts), args.network), args.out)
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(description="train the portrait networks without Ray")
    commands = top.add_subparsers(required=True)
    p = commands.add_parser("train", help="train on packed faces")
    p.add_argument("--faces", nargs="+", required=True, help="files of `pack`, or tars of faces")
    p.add_argument("--out", default="trained", help="folder for weights, report, sheet and state")
    p.add_argument("--network", choices=(*RECIPES, "both"), default="both")
    p.add_argument("--minutes", type=float, default=10.0, help="of training, validations included")
    p.add_argument("--steps", type=int, help="steps of each network, instead of minutes")
    p.add_argument(
        "--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu"
    )
    p.add_argument(
        "--from",
        dest="start",
        default="package",
        help="package, scratch, or the --out folder of another training",
    )
    p.add_argument(
        "--keep-state", action="store_true", help="keep a state to resume from, some 300 MB in all"
    )
    p.add_argument("--rate-factor", type=float, help="of the recipe's rates; default 1/3 for trained weights")
    p.add_argument("--batch", type=int, help="faces a step; default 192 and 128, on a CPU 4")
    p.add_argument("--validations", type=int, help="between the first and the last; default 5, on a CPU 1")
    p.add_argument("--held-out-faces", type=int, help="faces to validate on; default 256, on a CPU 12")
    p.add_argument("--preset", default="portrait", help="name or TOML file of the networks' preset")
    p.set_defaults(run=train)
    p = commands.add_parser("pack", help="pack crops of faces into one file")
    p.add_argument(
        "--faces", nargs="+", required=True, help="local tars of pictures with landmarks, or of crops"
    )
    p.add_argument("--held-out", nargs="*", default=(), help="tars to validate on; default every 16th face")
    p.add_argument("--out", required=True, metavar="FILE.npz")
    p.add_argument("--mib", type=float, default=48, help="most MiB of the file")
    p.add_argument("--preset", default="portrait")
    p.set_defaults(run=pack)
    p = commands.add_parser("join", help="put the parts of a network's weights together")
    p.add_argument("--network", choices=tuple(RECIPES), required=True)
    p.add_argument("--parts", required=True, help="the --out folder of a training")
    p.add_argument("--out", required=True, metavar="FILE.safetensors")
    p.set_defaults(run=join)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit code."""
    args = parser().parse_args(arguments)
    try:
        code: int = args.run(args)
    except Refusal as refusal:
        print(refusal, file=sys.stderr)
        return refusal.exit_code
    return code


if __name__ == "__main__":
    sys.exit(main())
