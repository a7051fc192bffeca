"""What an input holds, counted without restoring anything: the dry run."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.console.commands import OK
from pipeline.console.progress import duration
from pipeline.faces.detect import Selection
from pipeline.faces.search import search
from pipeline.io import images, store
from pipeline.io.readers import read_unit
from pipeline.io.shards import InputError, Listing, cut_units, make_shards
from pipeline.io.units import Unit
from pipeline.io.weights import find_upscaler
from pipeline.networks.cost import seconds_per_face
from pipeline.networks.presets import Preset
from pipeline.restoration.config import RestoreConfig
from pipeline.restoration.method import calls_of, most_pixels
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


# Images on which a dry run counts faces.
DRY_RUN_SAMPLE = 64


def dry_run(config: RestoreConfig, preset: Preset, chosen: dict[str, Any], listed: Listing) -> int:
    """Count shards and images, sample the faces, estimate the time; writes nothing."""
    kind, entries = listed
    shards = make_shards(kind, entries, config.shard_images)
    units = [u for s in shards for u in cut_units(s, config.unit_images, config.image_column)]
    images = sum(len(u.images) for u in units)
    if not images:
        raise InputError(f"the shards of {config.input} hold no images")
    print(f"input    {config.input} ({kind}): {len(shards)} shards, {len(units)} units, {images} images")
    faces = float(images)
    if not config.aligned:
        sample = sample_units(units, DRY_RUN_SAMPLE)
        detector = DetectorChoice(config.detector, config.min_score, config.weights_dir)
        selection = Selection(config.min_face, config.max_faces, config.max_overlap)
        found = count_faces(sample, detector, selection, config.image_column, most_pixels(config))
        faces = found.faces_per_image * images
        how = "counted" if found.images == images else f"estimated from {found.images} images"
        print(f"faces    {faces:.0f} ({how}; {found.unreadable} of {found.images} images unreadable)")
        if found.left:
            print(f"left     {found.left} more faces of these {found.images} images, by size, number or pose")
    calls, how = 0, "the estimator alone"
    if config.method != "estimator":
        calls = calls_of(chosen)
        how = f"{calls} steps a face, eta {chosen['eta']}"
        if chosen["treatment"]:
            most = max(row.get("calls", 0) for row in chosen["treatment"])
            how = f"each face by its damage, at most {most} steps, eta {chosen['eta']}"
    print(f"method   {preset.name}, {preset.side} px, {how}")
    if config.background is not None:
        size = "keep their size" if config.upscale == 1 else f"become {config.upscale} times larger"
        print(
            f"around   {store.name_of(find_upscaler(config.background).file)} enhances all pictures, which {size}; "
            "its time is not in the estimate"
        )
    if preset.estimator.kind == "spandrel":
        print("time     not known: what this estimator is, and costs, its file alone says")
        return OK
    each = seconds_per_face(preset, calls)
    print(f"time     about {duration(faces * each)} on this machine's CPU ({each:.1f} s a face)")
    return OK
