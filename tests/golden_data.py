"""The recordings of the official implementation in `tests/golden/`, and its tiny networks as ours."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.networks.presets import NetworkSpec, load_network

GOLDEN = Path(__file__).parent / "golden"


@dataclass(frozen=True)
class Case:
    """One recorded restoration; arrays as its README names them."""

    name: str
    # "swinir", "srcnn" or "lama"
    estimator: str
    respacing: str
    # index, not step number, at which x_N was drawn
    start: int
    eta: float
    # False: the input went into the chain without an estimator
    estimated: bool
    # size and number of the steps towards the known pixels
    gamma: float
    updates: int
    # [2, 3, 32, 32] float32 in [0, 1]
    input: Tensor
    # [2, 1, 32, 32] float32, 1 in the hole, of the cases that have one
    hole: Tensor | None
    # im_hq, yt, final, x_after_K, x0_at_K
    arrays: dict[str, Tensor]

    @property
    def recorded_steps(self) -> list[int]:
        """Loop steps whose inner states were recorded."""
        return sorted(int(k.rsplit("_", 1)[1]) for k in self.arrays if k.startswith("x_after_"))


def arrays(name: str) -> dict[str, Tensor]:
    """All arrays of an .npz file as tensors."""
    with np.load(GOLDEN / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def case_names() -> list[str]:
    """Names of the recorded cases."""
    return [row["name"] for row in _rows()]


def blind_names() -> list[str]:
    """Those of them in which nothing is known of the face."""
    return [row["name"] for row in _rows() if not row["mask"]]


def case(name: str) -> Case:
    """One recorded case."""
    row = next(r for r in _rows() if r["name"] == name)
    return Case(
        name=name,
        estimator=row["estimator"],
        respacing=row["respacing"],
        start=row["start"],
        eta=row["eta"],
        estimated=row["need_restoration"],
        gamma=row["gamma"],
        updates=row["num_update"],
        input=arrays("inputs")[row["input"]],
        hole=arrays("inputs")["mask"] if row["mask"] else None,
        arrays=arrays(f"case_{name}"),
    )


def noise_bank() -> Tensor:
    """[122, 2, 3, 32, 32] float32: first the noise of x_N, then that of every loop step."""
    return arrays("inputs")["noise_bank"].float()


def network_spec(kind: str) -> NetworkSpec:
    """The tiny unet, swinir, srcnn or lama of the recording as a specification of ours."""
    return NetworkSpec(kind=kind, options=_options(kind), file=f"{kind}_tiny.safetensors")


@cache
def network(kind: str) -> nn.Module:
    """The tiny network with its recorded weights; shared between tests, so do not change it."""
    spec = network_spec(kind)
    return load_network(spec, GOLDEN / spec.file)


def _rows() -> list[dict[str, Any]]:
    return json.loads((GOLDEN / "cases.json").read_text())


def _options(kind: str) -> dict[str, Any]:
    recorded = json.loads((GOLDEN / "config.json").read_text())[kind]
    if kind == "swinir":
        names = ("img_size", "embed_dim", "depths", "num_heads", "window_size", "mlp_ratio")
        scales = {"start_unshuffle": recorded["unshuffle_scale"], "upscale": recorded["sf"]}
        return {**{n: recorded[n] for n in names}, **scales}
    if kind == "srcnn":
        return recorded
    if kind == "lama":
        return {n: recorded[n] for n in ("ngf", "n_downsampling", "n_blocks")}
    names = ("image_size", "model_channels", "channel_mult", "num_res_blocks", "attention_resolutions")
    return {n: recorded[n] for n in (*names, "num_head_channels", "in_channels", "out_channels")}
