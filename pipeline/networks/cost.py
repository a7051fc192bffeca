"""An estimate of how long a run will take, before it starts and without loading a model."""

import time
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from pipeline.networks.presets import NetworkSpec, Preset, build, unknown_channels

# A network's call reaches about this share of a plain convolution's speed: the rest is norms and copies.
EFFICIENCY = 0.4


@dataclass(frozen=True)
class Cost:
    """What one face costs."""

    estimator_flops: float
    prior_flops: float
    steps: int

    @property
    def flops(self) -> float:
        return self.estimator_flops + self.steps * self.prior_flops


def face_cost(preset: Preset, steps: int) -> Cost:
    """FLOPs (2 x MAC) of one face, counted on the networks' shapes alone: nothing is loaded or computed."""
    side = preset.side
    return Cost(_flops(preset.estimator, side), _flops(preset.prior, side), steps)


def _flops(spec: NetworkSpec, side: int) -> float:
    network = build(spec).to("meta")  # moved there: SwinIR reads numbers while it is built
    with torch.device("meta"):
        inputs = [torch.empty(1, 3 + unknown_channels(spec), side, side)]
        if spec.kind == "unet":
            inputs.append(torch.empty(1, dtype=torch.int64))
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network(*inputs)
    return float(counter.get_total_flops())


def convolution_speed(device: str = "cpu", seconds: float = 0.5) -> float:
    """FLOPs a second of a 3x3 convolution on this machine, measured for about `seconds`."""
    x = torch.randn(4, 64, 64, 64, device=device)
    layer = torch.nn.Conv2d(64, 64, 3, padding=1, device=device)
    calls = 0
    with torch.inference_mode():
        layer(x)
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            layer(x)
            calls += 1
        float(layer(x)[0, 0, 0, 0])  # waits for an asynchronous device
        taken = time.monotonic() - began
    return (calls + 1) * 2 * 9 * 64 * 64 * 4 * 64 * 64 / taken


def seconds_per_face(preset: Preset, steps: int, device: str = "cpu") -> float:
    """About how long one face takes on one device of this kind."""
    return face_cost(preset, steps).flops / (convolution_speed(device) * EFFICIENCY)
