"""Feature statistics of a set of faces, as the reference of FID."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pipeline.console.commands import OK
from pipeline.console.options import UsageError, option
from pipeline.datasets.faces import FaceAddress, check_side, find_shards, list_faces
from pipeline.metrics.distribution import FeatureStatistics, FeatureSums, InceptionFeatures


@dataclass(frozen=True)
class ReferenceConfig:
    """The options of one reference set."""

    shards: str = option(
        help="tar shards of aligned faces: 'FOLDER/train-*.tar'", group="what", metavar="PATH_OR_URI"
    )
    output: str = option(help="the .npz to write", group="what", metavar="PATH_OR_URI")
    side: int = option(64, help="side of the faces, pixels", group="what")
    limit: int = option(0, help="number of faces, evenly spaced; 0 takes all", group="what")
    batch: int = option(16, help="faces per network call", group="surroundings")
    device: str = option("cpu", help="cpu or cuda", group="surroundings")

    def __post_init__(self) -> None:
        if self.batch < 1 or self.limit < 0:
            raise UsageError(
                f"--batch must be at least 1 and --limit not negative, got {self.batch}, {self.limit}"
            )


def run(config: ReferenceConfig) -> int:
    """Compute and save the statistics. Returns the exit code."""
    made = make_reference(config)
    made.save(config.output)
    print(f"{config.output}: {made.count} faces")
    return OK


def make_reference(config: ReferenceConfig) -> FeatureStatistics:
    """The statistics of the faces' features. Raises Refusal."""
    faces = list_faces(find_shards(config.shards))
    check_side(faces, config.side)
    if config.limit and config.limit < len(faces):
        faces = [faces[i] for i in np.linspace(0, len(faces) - 1, config.limit).astype(int)]
    if len(faces) < 2:
        raise UsageError(f"--shards {config.shards}: expected at least two faces, got {len(faces)}")
    network = InceptionFeatures().to(config.device)
    sums = FeatureSums.nothing()
    for start in range(0, len(faces), config.batch):
        sums += _sums_of(faces[start : start + config.batch], network, config.device)
    return sums.statistics


def _sums_of(faces: Sequence[FaceAddress], network: InceptionFeatures, device: str) -> FeatureSums:
    pictures = np.stack([face.picture() for face in faces])
    batch = torch.from_numpy(pictures).permute(0, 3, 1, 2).to(device)
    # as stored in records
    return FeatureSums.of(network(batch).cpu().numpy().astype(np.float16))
