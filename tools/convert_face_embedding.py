"""Convert dlib's face embedding into pipeline/presets/weights/face_embedding.safetensors.

    python tools/convert_face_embedding.py dlib_face_recognition_resnet_model_v1.dat OUT.safetensors

The file is that of the package face-recognition-models (CC0, Davis King). It lists the layers from the input on; each
layer with parameters has its name, and then one tensor: version, four sizes, float32 values. The per-channel scale and
shift that follows a convolution is folded into it. Values are stored as float16.
"""

import re
import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from pipeline.networks.face_embedding import FaceEmbedding

LAYERS = re.compile(rb"\x01(?:\x05con_4|\x07affine_|\x04fc_2)")
TENSOR_VERSION = 2


def integer(data: bytes, at: int) -> tuple[int, int]:
    """dlib's integer at a position: its length in bytes, then those, lowest first; and the position behind it."""
    length = data[at]
    return int.from_bytes(data[at + 1 : at + 1 + length], "little"), at + 1 + length


def tensor(data: bytes, at: int) -> NDArray[np.float32]:
    """The values of the tensor at a position, flat. Raises ValueError where there is none."""
    version, at = integer(data, at)
    if version != TENSOR_VERSION:
        raise ValueError(
            f"a tensor of version {TENSOR_VERSION} was wanted at byte {at}, got version {version}"
        )
    sizes = []
    for _ in range(4):
        size, at = integer(data, at)
        sizes.append(size)
    return np.frombuffer(data, "<f4", int(np.prod(sizes)), at)


def state(data: bytes) -> dict[str, torch.Tensor]:
    """The network's state, by name."""
    found = {name: values for name, values in FaceEmbedding().state_dict().items()}
    names = [name.removesuffix(".weight") for name in found if name.endswith(".weight")]
    layers = []
    for match in LAYERS.finditer(data):
        kind, at = match.group()[2:], match.end()
        if kind == b"fc_2":  # begins with the numbers of its outputs and inputs
            at = integer(data, integer(data, at)[1])[1]
        layers.append((kind, tensor(data, at)))
    convolutions = [values for kind, values in layers if kind == b"con_4"]
    scales = [values for kind, values in layers if kind == b"affine_"]
    [linear] = [values for kind, values in layers if kind == b"fc_2"]
    for name, values, scale in zip(names[:-1], convolutions, scales, strict=True):
        shape = found[f"{name}.weight"].shape
        weight, bias = values[: -shape[0]].reshape(shape), values[-shape[0] :]
        gamma, beta = np.split(scale, 2)
        found[f"{name}.weight"] = torch.from_numpy(weight * gamma[:, None, None, None])
        found[f"{name}.bias"] = torch.from_numpy(bias * gamma + beta)
    found[f"{names[-1]}.weight"] = torch.from_numpy(linear.reshape(-1, 128).T.copy())
    return found


def main(source: str, target: str) -> None:
    values = {name: v.half().contiguous() for name, v in state(Path(source).read_bytes()).items()}
    save_file(values, target, {"source": "dlib_face_recognition_resnet_model_v1 (CC0, Davis King)"})


if __name__ == "__main__":
    main(*sys.argv[1:3])
