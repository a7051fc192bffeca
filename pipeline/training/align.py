"""Aligned face crops for training, cut out of pictures."""

import io
import json
import sys
import tarfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np

from pipeline.console.commands import HAD_FAILURES, OK
from pipeline.console.options import UsageError, option
from pipeline.faces.detect import Face, Selection, select_faces
from pipeline.faces.geometry import CropFrame, face_to_crop, warp_crop
from pipeline.faces.poses import upright
from pipeline.io import images, store
from pipeline.io.readers import read_unit
from pipeline.io.shards import cut_units, list_input, make_shards
from pipeline.io.units import Unit
from pipeline.io.webdataset import webdataset_names
from pipeline.io.weights import DETECTOR_WEIGHTS, resolve
from pipeline.networks.presets import find_preset
from pipeline.records.rows import Row
from pipeline.restoration.flow import connect, run_tasks
from pipeline.stages.align import DetectorChoice, load_detector

# Options that affect the crops: all crops of one output share them.
FIXED = ("image_column", "shard_images", "side", "central", "detector", "min_score", "min_face")


@dataclass(frozen=True)
class AlignConfig:
    """The options of one alignment of a data set."""

    input: str = option(
        help="folder of pictures, tar or Parquet shards; local or s3://", group="what", metavar="PATH_OR_URI"
    )
    output: str = option(
        help="folder or s3:// prefix for the tar shards", group="what", metavar="PATH_OR_URI"
    )
    kind: Literal["auto", "folder", "tar", "parquet"] = option(
        "auto", help="type of the input; auto decides by the file names", group="what"
    )
    image_column: str = option("image", help="Parquet column that holds the image bytes", group="what")
    shard_images: int = option(1024, help="images per output shard of a folder input", group="what")
    side: int = option(
        64, help="side of the crops, pixels; they show the region of FFHQ's crops", group="faces"
    )
    preset: str | None = option(None, help="use side and frame of this preset instead", group="faces")
    central: float = option(
        0.24,
        help="take only faces whose mean landmark is within this fraction of the picture's longer side from its "
        "centre; 0 takes the largest face anywhere",
        group="faces",
    )
    detector: Literal["centerface", "retinaface-mobile0.25", "retinaface-resnet50"] = option(
        "centerface", help="face detector; centerface needs no download", group="faces"
    )
    min_score: float | None = option(None, help="detector score below which a face is ignored", group="faces")
    min_face: float = option(
        16, help="shorter side of a face box below which it is ignored, pixels", group="faces"
    )
    weights_dir: str | None = option(
        None, help="folder that is searched for detector weights first", group="surroundings"
    )
    ray_address: str | None = option(
        None, help="Ray cluster to join (default: RAY_ADDRESS, else local)", group="surroundings"
    )

    def __post_init__(self) -> None:
        if self.side < 8:
            raise UsageError(f"--side must be at least 8, got {self.side}")
        if not 0 <= self.central <= 1:
            raise UsageError(f"--central must lie in [0, 1], got {self.central}")
        if self.shard_images < 1:
            raise UsageError(f"--shard-images must be at least 1, got {self.shard_images}")

    @property  # no cached_property: its lock cannot be pickled by Ray where the class is in __main__
    def frame(self) -> CropFrame:
        """The frame of the crops. Raises PresetError."""
        if self.preset is None:
            return CropFrame(self.side)
        preset = find_preset(self.preset)
        return CropFrame.from_table(preset.side, preset.crop)


@dataclass(frozen=True)
class AlignShard:
    """Row with `work` (a whole shard as one unit) → row with `pictures` and `faces`; writes OUTPUT/NAME.tar.

    `names`: JSON list of names for the pictures' crops; without it they are made unique within the shard.
    """

    config: AlignConfig

    def __call__(self, row: Row) -> Row:
        unit = Unit.from_json(row["work"])
        buffer, counts = io.BytesIO(), Counter(dict.fromkeys(("faces", "no_face", "broken", "unread"), 0))
        names = json.loads(row["names"]) if "names" in row else member_names(unit)
        with tarfile.open(fileobj=buffer, mode="w") as out:
            for name, (_, data) in zip(names, read_unit(unit, self.config.image_column), strict=True):
                outcome, crop = ("unread", b"") if isinstance(data, store.StoreError) else self._crop(data)
                counts[outcome] += 1
                if crop:
                    info = tarfile.TarInfo(name)
                    info.size = len(crop)
                    out.addfile(info, io.BytesIO(crop))
        summary = {"pictures": len(unit.images)} | counts
        store.write_bytes(store.join(self.config.output, f"{unit.shard}.tar"), buffer.getvalue())
        store.write_bytes(done_uri(self.config, unit.shard), json.dumps(summary).encode())
        return {"shard": unit.shard} | summary

    def _crop(self, data: bytes) -> tuple[str, bytes]:
        """The outcome of a picture, and its face as PNG bytes, empty without one."""
        config = self.config
        try:
            picture = images.decode_rgb(data)
        except images.ImageError:
            return "broken", b""
        find = load_detector(DetectorChoice(config.detector, config.min_score, config.weights_dir))
        found = select_faces(find(picture), Selection(min_face=config.min_face))
        wanted = [f for f in found if not config.central or is_central(f, picture.shape, config.central)]
        # a rotated face would be cropped wrongly
        face = upright(find, picture, wanted[0]) if wanted else ""
        if isinstance(face, str):
            return "no_face", b""
        to_crop = face_to_crop(face.landmarks, config.frame)
        crop = warp_crop(picture, to_crop, config.frame.side, config.frame.resampling)
        return "faces", images.encode_png(crop)


def member_names(*units: Unit) -> list[str]:
    """Names of the crops of these units' pictures, in order: each is a WebDataset sample of its own."""
    return webdataset_names([a.member for u in units for a in u.images], default=".png")


def rows_of(units: Sequence[Unit]) -> list[Row]:
    """Rows for AlignShard. Names of a folder's pictures are unique across its shards."""
    if units and units[0].kind == "folder":
        names = iter(member_names(*units))
        return [{"work": u.to_json(), "names": json.dumps([next(names) for _ in u.images])} for u in units]
    return [{"work": u.to_json()} for u in units]


def is_central(face: Face, shape: tuple[int, ...], share: float) -> bool:
    """Whether a face's mean landmark lies near the centre of a picture of this shape."""
    height, width = shape[:2]
    offset = face.landmarks.mean(axis=0) - np.array([width / 2, height / 2])
    return bool(np.hypot(*offset) < share * max(height, width))


def done_uri(config: AlignConfig, shard: str) -> str:
    """The completion marker of a shard, with its counts."""
    return store.join(config.output, "_done", f"{shard}.json")


def is_done(config: AlignConfig, shard: str) -> bool:
    """Whether the shard can be skipped: it was written, and every picture of it could be read."""
    uri = done_uri(config, shard)
    return store.exists(uri) and not json.loads(store.read_bytes(uri)).get("unread")


def check_continues(config: AlignConfig) -> None:
    """Record the settings. Raises UsageError when the output has crops made with others."""
    uri, settings = store.join(config.output, "_align.json"), {k: asdict(config)[k] for k in FIXED}
    settings |= {"side": config.frame.side}
    if not config.frame.is_ffhq:
        settings |= {"zoom": config.frame.zoom, "centre": list(config.frame.centre)}
        settings |= {"resampling": config.frame.resampling}
    if not store.exists(uri):
        store.write_bytes(uri, json.dumps(settings, indent=1).encode())
        return
    before = json.loads(store.read_bytes(uri))
    changed = [
        f"{k} {before.get(k)} instead of {settings.get(k)}"
        for k in sorted(before | settings)
        if before.get(k) != settings.get(k)
    ]
    if changed:
        raise UsageError(
            f"{config.output} has crops made with {', '.join(changed)}; give those options or a new --output"
        )


def align(config: AlignConfig) -> int:
    """Align every shard that is not done yet, and print the outcomes. Returns the exit code."""
    config = replace(config, input=store.absolute(config.input), output=store.absolute(config.output))
    store.check_readable(config.input)
    store.check_writable(config.output)
    if config.detector in DETECTOR_WEIGHTS:
        published = DETECTOR_WEIGHTS[config.detector]
        resolve(published.file, published.url, published.sha256, config.weights_dir)
    kind, entries = list_input(config.input, config.kind)
    check_continues(config)
    shards = make_shards(kind, entries, config.shard_images)
    units = [u for s in shards for u in cut_units(s, 1 << 40, config.image_column)]
    pending = [row for u, row in zip(units, rows_of(units), strict=True) if not is_done(config, u.shard)]
    print(f"{len(units)} shards, {len(units) - len(pending)} of them done before", flush=True)
    total: Counter[str] = Counter()
    if pending:
        connect(config.ray_address)
        for row in run_tasks(pending, AlignShard(config)):
            counts = Counter({k: v for k, v in row.items() if k != "shard"})
            total += counts
            print(f"{row['shard']}: {describe_counts(counts)}", flush=True)
    if len(pending) > 1:
        print(f"in all: {describe_counts(total)}")
    if total["unread"]:
        print("run the same command again to retry the pictures that could not be read", file=sys.stderr)
        return HAD_FAILURES
    return OK


def describe_counts(counts: Counter[str]) -> str:
    """The pictures and their outcomes, as text."""
    return (
        f"{counts['faces']:,} faces of {counts['pictures']:,} pictures; {counts['no_face']:,} without a face to take, "
        f"{counts['broken']:,} broken, {counts['unread']:,} unread"
    )
