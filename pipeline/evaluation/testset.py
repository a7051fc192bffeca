"""Test sets from clean aligned faces: degraded inputs and their ground truth.

Sources: the restoration grid and the four kinds of holes of DifFace (arXiv 2212.06512, sections 4.1 and 4.4).
"""

import hashlib
import io
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.console.progress import counted
from pipeline.datasets.degradation import degrade, grid_degradation, to_grey
from pipeline.datasets.faces import FaceAddress, require_side
from pipeline.datasets.holes import Hole, draw_hole
from pipeline.diffusion.task import TaskName
from pipeline.io import images, store
from pipeline.io.masks import fill
from pipeline.io.tables import read_table

Pixels = NDArray[np.uint8]

# Incremented when the same settings give another set, so that an existing one is not reused.
VERSION = 1
SHEET = "set.parquet"


@dataclass(frozen=True)
class Recipe:
    """The settings of a test set, except its faces."""

    task: TaskName
    side: int
    seed: int
    # inpainting: kinds of holes, used in turn
    holes: tuple[Hole, ...] = ()
    # upscaling: downscaling factor of the input
    factor: int = 0


@dataclass(frozen=True)
class PictureSet:
    """A stored test set; its sheet, written last, has a row for each picture to restore."""

    uri: str

    @cached_property
    def sheet(self) -> pa.Table:
        """One row per picture: name, source, degradation."""
        return read_table(store.read_bytes(store.join(self.uri, SHEET)))

    @property
    def is_whole(self) -> bool:
        """Whether it is completely written."""
        return store.exists(store.join(self.uri, SHEET))

    @property
    def degraded(self) -> str:
        """Folder of the pictures to restore."""
        return store.join(self.uri, "degraded")

    @property
    def truth(self) -> str:
        """Folder of the ground truth."""
        return store.join(self.uri, "truth")

    @property
    def mask(self) -> str | None:
        """Folder of the masks, white in the hole; None without any."""
        return None

    @property
    def names(self) -> list[str]:
        """The names of the pictures to restore, in the sheet's order."""
        found: list[str] = self.sheet["name"].to_pylist()
        return found

    def read(self, folder: str, name: str) -> Pixels:
        """One picture of `degraded`, `truth` or `mask`: [H, W, 3] uint8."""
        return images.decode_rgb(store.read_bytes(store.join(folder, f"{name}.png")))

    def finish(self, sheet: pa.Table) -> None:
        """Write the sheet, last: it marks the set as complete."""
        buffer = io.BytesIO()
        pq.write_table(sheet, buffer)
        store.write_bytes(store.join(self.uri, SHEET), buffer.getvalue())


@dataclass(frozen=True)
class EvaluationSet(PictureSet):
    """A test set of aligned faces; pictures of one face have one name in each folder.

    Its sheet also has each face's error (root mean square, 0..255).
    """

    recipe: Recipe

    @property
    def mask(self) -> str | None:
        """Folder of the masks, white in the hole; None for other tasks."""
        return store.join(self.uri, "mask") if self.recipe.task == "inpaint" else None

    def hole(self, name: str) -> NDArray[np.bool_]:
        """[S, S] of one face of an inpainting set, True in the hole."""
        hole: NDArray[np.bool_] = self.read(self.mask or "", name)[..., 0] > 0
        return hole


def place_set(faces: Sequence[FaceAddress], recipe: Recipe, around: str) -> EvaluationSet:
    """The test set of these faces below `around`, written or not.

    The name of its folder contains a digest of everything that affects its pictures, so that equal settings give
    the same set.
    """
    digest = hashlib.sha256(json.dumps([VERSION, asdict(recipe)], sort_keys=True).encode())
    for face in faces:
        digest.update(f"{store.name_of(face.shard)} {face.offset} {face.length}\n".encode())
    return EvaluationSet(store.join(around, f"{recipe.task}-{digest.hexdigest()[:12]}"), recipe)


def write_set(found: EvaluationSet, faces: Sequence[FaceAddress]) -> None:
    """Write the pictures of a set unless it exists. Raises SampleError for a face of another side."""
    if found.is_whole:
        return
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        written = pool.map(lambda job: _write_face(found, *job), enumerate(faces))
        rows = counted(written, "making the set", len(faces), "faces")
    found.finish(pa.Table.from_pylist(rows))


def _write_face(found: EvaluationSet, number: int, face: FaceAddress) -> dict[str, Any]:
    """Write one face's pictures. Returns its row of the sheet."""
    recipe = found.recipe
    clean = require_side(images.decode_rgb(face.read()), recipe.side, face.shard)
    pictures, how = make_pictures(clean, number, recipe)
    name = f"{number:06d}"
    for folder, picture in pictures.items():
        store.write_bytes(store.join(found.uri, folder, f"{name}.png"), images.encode_png(picture))
    seen = images.resize(pictures["degraded"], recipe.side)
    error = np.sqrt(np.square(seen.astype(np.float64) - pictures["truth"]).mean())
    place = {"shard": store.name_of(face.shard), "offset": face.offset}
    return {"name": name} | place | how | {"error": float(error)}


def make_pictures(clean: Pixels, number: int, recipe: Recipe) -> tuple[dict[str, Pixels], dict[str, Any]]:
    """The pictures of face `number` by folder, and its degradation. clean: [S, S, 3]."""
    rng = np.random.default_rng([recipe.seed, 4, number])
    if recipe.task == "inpaint":
        kind = recipe.holes[number % len(recipe.holes)]
        hole = draw_hole(recipe.side, rng, kind)
        holed = np.where(hole[..., None], np.uint8(0), clean)
        white = np.repeat(hole[..., None], 3, axis=2).astype(np.uint8) * 255
        return {"degraded": holed, "truth": clean, "mask": white}, {"hole": kind, "share": float(hole.mean())}
    if recipe.task == "colourise":
        return {"degraded": to_grey(clean), "truth": clean}, {}
    if recipe.task == "upscale":
        small = recipe.side // recipe.factor
        seen = cv2.resize(clean, (small, small), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
        return {"degraded": seen, "truth": clean}, {"factor": recipe.factor}
    how = grid_degradation(number, recipe.seed)
    low, truth = degrade(clean, how, rng)
    return {"degraded": low, "truth": truth}, {k: v for k, v in asdict(how).items() if k != "grey"}


def naive(found: EvaluationSet, name: str) -> Pixels:
    """The baseline without networks, [S, S, 3]: the input, enlarged or with the hole filled from its border."""
    degraded = found.read(found.degraded, name)
    if found.mask:
        return fill(degraded, found.hole(name))
    return images.resize(degraded, found.recipe.side)
