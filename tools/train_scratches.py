"""Train the network that finds the scratches of old prints, on damage painted on photographs of faces.

    python tools/train_scratches.py --faces 'fairface/train-*.tar' --held-out fairface/val-000.tar --out OUT.safetensors

A photograph becomes grey, toned, blurred and noisy as old ones are, then damage is painted on it, and the scan adds
blur, noise and JPEG of its own. It takes as long as --minutes says; a step, a fifth of a second of one CPU core.

    python tools/train_scratches.py ... --start OUT.safetensors --lr 1e-3 --missed 1 --out BETTER.safetensors

trains on, with more clean examples, most of them of photographs in which those weights see the most damage: glasses,
hats and creases of clothes.
"""

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pipeline.datasets.degradation_batch import (
    BatchDegradation,
    degrade_batch,
    draw_portrait_degradations,
    to_grey,
)
from pipeline.datasets.faces import FaceAddress, find_faces, spread
from pipeline.datasets.scratches import paint_damage
from pipeline.networks.checkpoint import load_strict, read_state, write_state
from pipeline.networks.precision import number_type
from pipeline.networks.scratch_net import MULTIPLE, ScratchNet, folded
from pipeline.training.face_batches import toned

# Shares of examples without damage, of four pictures side by side, and of pictures on a page of one colour.
CLEAN, FOUR, ON_A_PAGE = 0.3, 0.15, 0.1
# Of a training that goes on: share without damage, of these such of hard photographs, and share of all that are hard.
CLEAN_LATER, HARD, HARDEST = 0.45, 0.6, 0.1
# Sides of the part of a photograph that an example shows: enlarged as in a scan, down to as it is.
LEAST_PART = 72
# Of the average of the weights; steps in which the rate rises; probability from which a pixel counts as found.
DECAY, WARMUP, CERTAIN = 0.99, 60, 0.5


def part_of(picture: NDArray[np.uint8], side: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A square part of a photograph, mirrored at random, [S, S, 3]."""
    most = min(picture.shape[:2])
    wide = int(most * (LEAST_PART / most) ** (rng.random() ** 2))
    top, left = (int(rng.integers(n - wide + 1)) for n in picture.shape[:2])
    part = picture[top : top + wide, left : left + wide, :][:, :: int(rng.choice([-1, 1]))]
    way = cv2.INTER_AREA if wide > side else int(rng.choice([cv2.INTER_LINEAR, cv2.INTER_CUBIC]))
    return cv2.resize(np.ascontiguousarray(part), (side, side), interpolation=way).astype(
        np.uint8, copy=False
    )


def view(photographs: Sequence[NDArray[np.uint8]], side: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """What an example shows before anything is done to it: one photograph, four, or one on a page."""

    def one(wide: int) -> NDArray[np.uint8]:
        return part_of(photographs[int(rng.integers(len(photographs)))], wide, rng)

    kind = rng.random()
    if kind < FOUR:
        parts = [one(side // 2) for _ in range(4)]
        return np.concatenate([np.concatenate(parts[i : i + 2], axis=1) for i in (0, 2)])
    picture = one(side)
    if kind < FOUR + ON_A_PAGE:
        page = np.full((side, side, 3), rng.choice([rng.uniform(0, 60), rng.uniform(160, 255)]), np.uint8)
        ends = [sorted(rng.choice([0, side, int(rng.integers(side))], 2, replace=False)) for _ in range(2)]
        inside = tuple(slice(*end) for end in ends)
        page[inside] = picture[inside]
        return page
    return picture


def gentle(how: BatchDegradation, side: int, most_blur: float, least_side: float) -> BatchDegradation:
    """Degradations that leave thin lines visible."""
    blur = np.minimum(how.blur, most_blur)
    return replace(
        how,
        blur=blur,
        blur_across=np.minimum(how.blur_across, blur),
        reach=np.ceil(3 * blur).astype(np.int64),
        motion=np.zeros_like(how.motion),
        side=np.maximum(how.side, round(side * least_side)),
        noise=how.noise * 0.7,
    )


def batch(
    photographs: list[NDArray[np.uint8]],
    count: int,
    side: int,
    rng: np.random.Generator,
    hard: Sequence[NDArray[np.uint8]] = (),
) -> tuple[Tensor, Tensor]:
    """[B, 3, S, S] float32 in [0, 1] and what is damaged there, [B, 1, S, S] 0 or 1.

    hard: photographs that most examples without damage show.
    """
    is_damaged = rng.random(count) >= (CLEAN_LATER if hard else CLEAN)
    is_hard = ~is_damaged & (rng.random(count) < HARD) & bool(hard)
    noise = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
    pictures = torch.from_numpy(np.stack([view(hard if h else photographs, side, rng) for h in is_hard]))
    pictures = pictures.permute(0, 3, 1, 2).float().contiguous()
    grey = torch.from_numpy(rng.random(count) < 0.45)
    pictures[grey] = to_grey(pictures[grey])
    pictures = toned(pictures, rng)
    before = gentle(draw_portrait_degradations(rng, count, side), side, 2.5, 0.4)
    old = torch.from_numpy(rng.random(count) < 0.45)
    if old.any():
        pictures[old] = degrade_batch(pictures[old], before.of(np.flatnonzero(old.numpy())), noise)[0]
    masks = np.zeros((count, 1, side, side), np.float32)
    for i in np.flatnonzero(is_damaged):
        whole = np.ascontiguousarray(pictures[i].permute(1, 2, 0).numpy()).astype(np.uint8)
        damaged, mask = paint_damage(whole, rng)
        if grey[i] and rng.random() < 0.5:  # a scan in grey
            damaged = np.repeat(cv2.cvtColor(damaged, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
        pictures[i], masks[i, 0] = torch.from_numpy(damaged).permute(2, 0, 1).float(), mask
    scanned = torch.from_numpy(rng.random(count) < 0.6)
    if scanned.any():
        after = gentle(draw_portrait_degradations(rng, count, side), side, 0.9, 0.75)
        pictures[scanned] = degrade_batch(
            pictures[scanned], after.of(np.flatnonzero(scanned.numpy())), noise
        )[0]
    return pictures / 255, torch.from_numpy(masks)


def loss_of(logits: Tensor, masks: Tensor, missed: float) -> Tensor:
    """Cross entropy, and one less the Dice coefficient of the batch.

    missed: a pixel that is missed costs as much as so many that are found wrongly.
    """
    found = logits.sigmoid()
    dice = (2 * (found * masks).sum() + 1) / (found.sum() + masks.sum() + 1)
    return F.binary_cross_entropy_with_logits(logits, masks, pos_weight=torch.tensor(missed)) + 0.5 * (
        1 - dice
    )


@torch.inference_mode()
def scores(network: ScratchNet, held_out: list[tuple[Tensor, Tensor]]) -> str:
    """Precision and recall of the damaged pixels, and the share that is marked where nothing is damaged."""
    network.eval()
    pairs = [(network(x).sigmoid() > CERTAIN, y > 0) for x, y in held_out]
    found, true = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    hit, clean = (found & true).sum(), ~true.flatten(1).any(1)
    shares = (float(hit / found.sum().clamp(1)), float(hit / true.sum()), float(found[clean].float().mean()))
    return f"precision {shares[0]:.3f}, recall {shares[1]:.3f}, marked of clean ones {shares[2]:.5f}"


@torch.inference_mode()
def hardest(network: ScratchNet, photographs: list[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    """Those photographs in which the network takes the most for damage."""
    network.eval()

    def marked(picture: NDArray[np.uint8]) -> float:
        height, width = (n // MULTIPLE * MULTIPLE for n in picture.shape[:2])
        pixels = torch.from_numpy(picture[:height, :width]).permute(2, 0, 1)[None].float() / 255
        return float((network(pixels).sigmoid() > CERTAIN).float().mean())

    chosen = sorted(photographs, key=marked, reverse=True)[: max(round(HARDEST * len(photographs)), 1)]
    network.train()
    return chosen


def read(faces: list[FaceAddress]) -> list[NDArray[np.uint8]]:
    return [face.picture() for face in faces]


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(0)
    held_rng = np.random.default_rng(1)
    held = read(spread(find_faces(args.held_out).faces, 128))
    held_out = [batch(held, 16, args.side, held_rng) for _ in range(8)]
    photographs = read(spread(find_faces(args.faces).faces, args.limit))
    network = ScratchNet(norm=args.start is None)
    hard: list[NDArray[np.uint8]] = []
    if args.start:
        load_strict(network, read_state(args.start), args.start)
        hard = hardest(network, photographs)
    network.to(memory_format=torch.channels_last)
    average = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(DECAY), use_buffers=True
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=args.lr, weight_decay=1e-4)
    dtype, began, step, passed = number_type("auto", on_cpu=True), time.monotonic(), 0, 0.0
    while passed < 1:
        for group in optimizer.param_groups:
            group["lr"] = args.lr * min(1, (step + 1) / WARMUP) * (1 + math.cos(math.pi * passed)) / 2
        pictures, masks = batch(
            photographs, args.batch, args.side, np.random.default_rng([bool(hard), step]), hard
        )
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            logits = network(pictures.contiguous(memory_format=torch.channels_last))
        loss = loss_of(logits.float(), masks, args.missed)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(network)
        step, passed = step + 1, (time.monotonic() - began) / 60 / args.minutes
        if step % 200 == 0 or passed >= 1:
            plain = ScratchNet()
            plain.load_state_dict(folded(average.module.eval()))
            said = scores(plain, held_out)
            print(f"{step} ({time.monotonic() - began:.0f} s): loss {loss.detach():.4f}, {said}", flush=True)
            write_state(plain.state_dict(), Path(args.out))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faces", required=True)
    parser.add_argument("--held-out", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument(
        "--start", help="weights to train on, which have no norms any more: take half the rate"
    )
    parser.add_argument("--side", type=int, default=160)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument(
        "--missed", type=float, default=2.0, help="cost of a pixel missed, of one found wrongly"
    )
    parser.add_argument("--limit", type=int, default=0, help="photographs, evenly spaced; 0: all")
    train(parser.parse_args(argv))


if __name__ == "__main__":
    main()
