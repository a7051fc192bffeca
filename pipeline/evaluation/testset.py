"""Test sets made from any clean aligned faces: what is asked of a restorer, beside the truth that it should find.

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

from pipeline.datasets.degradation import degrade, grid_degradation, to_grey
from pipeline.datasets.faces import FaceAddress, require_side
from pipeline.datasets.holes import Hole, draw_hole
from pipeline.diffusion.task import TaskName
from pipeline.io import images, store
from pipeline.io.masks import fill
from pipeline.io.tables import read_table

Pixels = NDArray[np.uint8]

# Raised when the same settings give another set, so that a set that lies there is not taken for it.
VERSION = 1
SHEET = "set.parquet"


@dataclass(frozen=True)
class Recipe:
    """What a test set is made of, but for its faces."""

    task: TaskName
    side: int
    seed: int
    # of inpainting: kinds of holes, the faces take turns
    holes: tuple[Hole, ...] = ()
    # of upscaling: how many times smaller the face is seen
    factor: int = 0


@dataclass(frozen=True)
class PictureSet:
    """A test set that lies in folders of one place; its sheet, written last, has a row for each picture to restore."""

    uri: str

    @cached_property
    def sheet(self) -> pa.Table:
        """One row a picture: name, where it came from, how it was degraded."""
        return read_table(store.read_bytes(store.join(self.uri, SHEET)))

    @property
    def is_whole(self) -> bool:
        """Whether it is written."""
        return store.exists(store.join(self.uri, SHEET))

    @property
    def degraded(self) -> str:
        """Folder of what is to be restored."""
        return store.join(self.uri, "degraded")

    @property
    def truth(self) -> str:
        """Folder of the clean pictures."""
        return store.join(self.uri, "truth")

    @property
    def mask(self) -> str | None:
        """Folder of the holes, white; None where there are none."""
        return None

    @property
    def names(self) -> list[str]:
        """The names of what is to be restored, in the sheet's order."""
        found: list[str] = self.sheet["name"].to_pylist()
        return found

    def read(self, folder: str, name: str) -> Pixels:
        """One picture of `degraded`, `truth` or `mask`: [H, W, 3] uint8."""
        return images.decode_rgb(store.read_bytes(store.join(folder, f"{name}.png")))

    def finish(self, sheet: pa.Table) -> None:
        """Write the sheet, last: a set with a sheet is whole."""
        buffer = io.BytesIO()
        pq.write_table(sheet, buffer)
        store.write_bytes(store.join(self.uri, SHEET), buffer.getvalue())


@dataclass(frozen=True)
class EvaluationSet(PictureSet):
    """A test set of aligned faces; pictures of one face have one name in each folder.

    Its sheet also tells each face's error (root mean square, 0..255).
    """

    recipe: Recipe

    @property
    def mask(self) -> str | None:
        """Folder of the holes, white; None where the task has none."""
        return store.join(self.uri, "mask") if self.recipe.task == "inpaint" else None

    def hole(self, name: str) -> NDArray[np.bool_]:
        """[S, S] of one face of an inpainting set, True in the hole."""
        hole: NDArray[np.bool_] = self.read(self.mask or "", name)[..., 0] > 0
        return hole


def place_set(faces: Sequence[FaceAddress], recipe: Recipe, around: str) -> EvaluationSet:
    """Where the test set of these faces lies, or will lie, below `around`.

    Its folder is named after all that decides its pictures, so that equal settings share a set.
    """
    digest = hashlib.sha256(json.dumps([VERSION, asdict(recipe)], sort_keys=True).encode())
    for face in faces:
        digest.update(f"{store.name_of(face.shard)} {face.offset} {face.length}\n".encode())
    return EvaluationSet(store.join(around, f"{recipe.task}-{digest.hexdigest()[:12]}"), recipe)


def write_set(found: EvaluationSet, faces: Sequence[FaceAddress]) -> None:
    """Write the pictures of a set that is not there yet. Raises SampleError for a face of another side."""
    if found.is_whole:
        return
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        rows = list(pool.map(lambda job: _write_face(found, *job), enumerate(faces)))
    found.finish(pa.Table.from_pylist(rows))


def _write_face(found: EvaluationSet, number: int, face: FaceAddress) -> dict[str, Any]:
    """Write one face's pictures; its row of the sheet."""
    recipe = found.recipe
    clean = require_side(images.decode_rgb(face.read()), recipe.side, face.shard)
    pictures, how = degraded_pictures(clean, number, recipe)
    name = f"{number:06d}"
    for folder, picture in pictures.items():
        store.write_bytes(store.join(found.uri, folder, f"{name}.png"), images.encode_png(picture))
    seen = images.resize(pictures["degraded"], recipe.side)
    error = np.sqrt(np.square(seen.astype(np.float64) - pictures["truth"]).mean())
    place = {"shard": store.name_of(face.shard), "offset": face.offset}
    return {"name": name} | place | how | {"error": float(error)}


def degraded_pictures(clean: Pixels, number: int, recipe: Recipe) -> tuple[dict[str, Pixels], dict[str, Any]]:
    """The pictures of face `number` by folder, and what was done to it. clean: [S, S, 3]."""
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
    """What a program without networks makes of a face, [S, S, 3]: the input itself, enlarged or filled from around."""
    degraded = found.read(found.degraded, name)
    if found.mask:
        return fill(degraded, found.hole(name))
    return images.resize(degraded, found.recipe.side)
