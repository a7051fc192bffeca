"""Aligned face crops cut out of pictures, to train on."""

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

# Options that change what is written: crops of one output share them.
FIXED = ("image_column", "shard_images", "side", "central", "detector", "min_score", "min_face")


@dataclass(frozen=True)
class AlignConfig:
    """One alignment of a data set."""

    input: str = option(
        help="folder of pictures, tar or Parquet shards; local or s3://", group="what", metavar="PATH_OR_URI"
    )
    output: str = option(
        help="folder or s3:// prefix for the tar shards", group="what", metavar="PATH_OR_URI"
    )
    kind: Literal["auto", "folder", "tar", "parquet"] = option(
        "auto", help="what the input is; auto looks at the names", group="what"
    )
    image_column: str = option("image", help="Parquet column that holds the image bytes", group="what")
    shard_images: int = option(1024, help="images of one output shard of a folder input", group="what")
    side: int = option(64, help="side of the crops, pixels, which show what FFHQ's do", group="faces")
    preset: str | None = option(
        None, help="instead cut them as this preset's networks want them: its side and frame", group="faces"
    )
    central: float = option(
        0.24,
        help="take only faces whose landmarks' mean lies within this share of the picture's side from its middle; "
        "0 takes the largest face wherever it is",
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
        None, help="where detector weights are looked for first", group="surroundings"
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

    @property  # a cached one has a lock, with which Ray can not take the class of a program run as `-m`
    def frame(self) -> CropFrame:
        """What the crops show. Raises PresetError."""
        if self.preset is None:
            return CropFrame(self.side)
        preset = find_preset(self.preset)
        return CropFrame.from_table(preset.side, preset.crop)


@dataclass(frozen=True)
class AlignShard:
    """Row with `work` (a whole shard as one unit) → row with `pictures` and `faces`; writes OUTPUT/NAME.tar.

    `names`: of the crops of its pictures as JSON; without, they are unique within the shard.
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
        told = {"pictures": len(unit.images)} | counts
        store.write_bytes(store.join(self.config.output, f"{unit.shard}.tar"), buffer.getvalue())
        store.write_bytes(done_uri(self.config, unit.shard), json.dumps(told).encode())
        return {"shard": unit.shard} | told

    def _crop(self, data: bytes) -> tuple[str, bytes]:
        """What became of a picture, and its face as PNG bytes where there is one to take."""
        config = self.config
        try:
            picture = images.decode_rgb(data)
        except images.ImageError:
            return "broken", b""
        find = load_detector(DetectorChoice(config.detector, config.min_score, config.weights_dir))
        found = select_faces(find(picture), Selection(min_face=config.min_face))
        wanted = [f for f in found if not config.central or is_central(f, picture.shape, config.central)]
        # one that lies on its side would be cut wrongly
        face = upright(find, picture, wanted[0]) if wanted else ""
        if isinstance(face, str):
            return "no_face", b""
        to_crop = face_to_crop(face.landmarks, config.frame)
        crop = warp_crop(picture, to_crop, config.frame.side, config.frame.resampling)
        return "faces", images.encode_png(crop)


def member_names(*units: Unit) -> list[str]:
    """Names of the crops of these units' pictures, in order: no two are one WebDataset sample."""
    return webdataset_names([a.member for u in units for a in u.images], default=".png")


def rows_of(units: Sequence[Unit]) -> list[Row]:
    """Rows for AlignShard. The pictures of a folder lie in it together, whatever shards they are cut into."""
    if units and units[0].kind == "folder":
        names = iter(member_names(*units))
        return [{"work": u.to_json(), "names": json.dumps([next(names) for _ in u.images])} for u in units]
    return [{"work": u.to_json()} for u in units]


def is_central(face: Face, shape: tuple[int, ...], share: float) -> bool:
    """Whether a face's landmarks lie around the middle of a picture of this shape."""
    height, width = shape[:2]
    away = face.landmarks.mean(axis=0) - np.array([width / 2, height / 2])
    return bool(np.hypot(*away) < share * max(height, width))


def done_uri(config: AlignConfig, shard: str) -> str:
    """The mark of a shard that was written: its counts."""
    return store.join(config.output, "_done", f"{shard}.json")


def is_done(config: AlignConfig, shard: str) -> bool:
    """Whether a second start may pass over the shard: it was written, and every picture of it could be read."""
    uri = done_uri(config, shard)
    return store.exists(uri) and not json.loads(store.read_bytes(uri)).get("unread")


def check_continues(config: AlignConfig) -> None:
    """Remember the settings. Raises UsageError when the output holds crops made with others."""
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
            f"{config.output} holds crops made with {', '.join(changed)}; give those options or a new --output"
        )


def align(config: AlignConfig) -> int:
    """Align every shard that is not aligned yet; says what came of every picture. Returns the exit code."""
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
            print(f"{row['shard']}: {account(counts)}", flush=True)
    if len(pending) > 1:
        print(f"in all: {account(total)}")
    if total["unread"]:
        print("pictures that could not be read are tried again by the same command", file=sys.stderr)
        return HAD_FAILURES
    return OK


def account(counts: Counter[str]) -> str:
    """The pictures and what became of them, in words."""
    return (
        f"{counts['faces']:,} faces of {counts['pictures']:,} pictures; {counts['no_face']:,} without a face to take, "
        f"{counts['broken']:,} broken, {counts['unread']:,} unread"
    )
