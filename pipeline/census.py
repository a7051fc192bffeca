"""What an input holds, counted without restoring anything: the dry run."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.faces.detect import Selection
from pipeline.faces.search import search
from pipeline.io import images, store
from pipeline.io.readers import read_unit
from pipeline.io.units import Unit
from pipeline.stages.align import DetectorChoice, load_detector


@dataclass(frozen=True)
class FaceCensus:
    """Faces counted on a sample of the images."""

    images: int
    unreadable: int
    # to restore
    faces: int
    # left by choice, or because their landmarks fit no face
    left: int = 0

    @property
    def faces_per_image(self) -> float:
        """Mean over the sampled images."""
        return self.faces / self.images if self.images else 0.0


def sample_units(units: Sequence[Unit], most: int) -> list[Unit]:
    """At most `most` images of the units, chosen by hash of their address, so that the choice is spread evenly."""
    every = [(u, a) for u in units for a in u.images]
    every.sort(
        key=lambda pair: hashlib.sha256(f"{pair[1].uri}:{pair[1].member}".encode(errors="replace")).digest()
    )
    return [Unit(u.shard, u.kind, u.part, u.last, (a,), u.source, u.span) for u, a in every[:most]]


def count_faces(
    units: Sequence[Unit], detector: DetectorChoice, selection: Selection, image_column: str, max_pixels: int
) -> FaceCensus:
    """Find the faces of the given images."""
    find = load_detector(detector)
    seen = unreadable = faces = left = 0
    for unit in units:
        for _, data in read_unit(unit, image_column, max_pixels):
            seen += 1
            try:
                if isinstance(data, store.StoreError):
                    raise data
                every = search(find, images.decode(data, max_pixels).rgb, selection)
                faces += sum(not found.left for found in every)
                left += sum(bool(found.left) for found in every)
            except (store.StoreError, images.ImageError):
                unreadable += 1
    return FaceCensus(seen, unreadable, faces, left)
