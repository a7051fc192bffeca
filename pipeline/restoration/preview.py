"""What an input holds, counted without restoring anything: the dry run."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.console.commands import OK
from pipeline.console.progress import duration
from pipeline.diffusion.method import Method
from pipeline.faces.detect import Selection
from pipeline.faces.search import search
from pipeline.io import images, store
from pipeline.io.readers import read_unit
from pipeline.io.shards import InputError, Listing, cut_units, make_shards
from pipeline.io.units import Unit
from pipeline.io.weights import MASK_WEIGHTS, find_upscaler
from pipeline.networks.cost import seconds_per_face
from pipeline.networks.presets import Preset
from pipeline.restoration.config import RestoreConfig
from pipeline.restoration.method import sides_of
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
    units: Sequence[Unit],
    detector: DetectorChoice,
    selection: Selection,
    image_column: str,
    max_pixels: int,
    into: images.Into = "none",
) -> FaceCensus:
    """Find the faces of the given images. into: as --convert."""
    find = load_detector(detector)
    seen = unreadable = faces = left = 0
    for unit in units:
        for _, data in read_unit(unit, image_column, max_pixels):
            seen += 1
            try:
                if isinstance(data, store.StoreError):
                    raise data
                every = search(find, images.decode(data, max_pixels, into).rgb, selection)
                faces += sum(not found.left for found in every)
                left += sum(bool(found.left) for found in every)
            except (store.StoreError, images.ImageError):
                unreadable += 1
    return FaceCensus(seen, unreadable, faces, left)


# Images on which a dry run counts faces.
DRY_RUN_SAMPLE = 64


def dry_run(config: RestoreConfig, preset: Preset, method: Method, listed: Listing) -> int:
    """Count shards and images, sample the faces, estimate the time; writes nothing."""
    kind, entries = listed
    shards = make_shards(kind, entries, config.machine.shard_images)
    units = [u for s in shards for u in cut_units(s, config.machine.unit_images, config.input.image_column)]
    images = sum(len(u.images) for u in units)
    if not images:
        raise InputError(f"the shards of {config.input.uri} hold no images")
    print(f"input    {config.input.uri} ({kind}): {len(shards)} shards, {len(units)} units, {images} images")
    faces = float(images)
    if not config.input.aligned:
        sample = sample_units(units, DRY_RUN_SAMPLE)
        detector = DetectorChoice(config.faces.detector, config.faces.min_score, config.machine.weights_dir)
        selection = Selection(config.faces.min_face, config.faces.max_faces, config.faces.max_overlap)
        column, into = config.input.image_column, config.output.convert
        found = count_faces(sample, detector, selection, column, config.most_pixels, into)
        faces = found.faces_per_image * images
        how = "counted" if found.images == images else f"estimated from {found.images} images"
        print(f"faces    {faces:.0f} ({how}; {found.unreadable} of {found.images} images unreadable)")
        if found.left:
            print(f"left     {found.left} more faces of these {found.images} images, by size, number or pose")
    calls, how, samples = 0, "the estimator alone", config.samples.number
    if not method.without_prior:
        calls = method.network_calls
        how = f"{calls} steps a face, eta {method.eta}"
        if method.treatment:
            how = f"each face by its damage, at most {method.most_calls} steps, eta {method.eta}"
    larger = "".join(f", large faces {row['side']} px" for row in sides_of(config, preset))
    print(f"method   {preset.name}, {preset.side} px{larger}, {how}")
    if samples > 1:
        which = "nearest to their mean" if config.samples.takes_nearest else "first"
        print(
            f"samples  {samples} chains a face that has one, {samples} times the calls; the {which} is delivered"
        )
    if config.task.mask in MASK_WEIGHTS:
        print(
            f"holes    {config.task.mask} are found in every picture; the time for it is not in the estimate"
        )
    if config.background.network is not None:
        name = store.name_of(find_upscaler(config.background.network).file)
        size = (
            "keep their size"
            if config.background.upscale == 1
            else f"become {config.background.upscale} times larger"
        )
        print(f"around   {name} enhances all pictures, which {size}; its time is not in the estimate")
    if preset.estimator.kind == "spandrel":
        print("time     not known: what this estimator is, and costs, its file alone says")
        return OK
    # each chain begins with a call of the estimator
    each = samples * seconds_per_face(preset, calls)
    print(f"time     about {duration(faces * each)} on this machine's CPU ({each:.1f} s a face)")
    return OK
