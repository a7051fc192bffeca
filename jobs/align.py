"""Cut aligned face crops out of pictures, as tar shards to train on: one face per picture, one tar per input shard.

`python -m jobs.align --input 'pictures or shards' --output FOLDER --side 64`
"""

import io
import json
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline import images, store
from pipeline.config import option, parse
from pipeline.faces.detect import Face, Selection, select_faces
from pipeline.faces.geometry import UnusableLandmarks, face_to_crop, warp_crop
from pipeline.flow import connect, run_tasks
from pipeline.records import Row, Unit
from pipeline.stages.align import DetectorChoice, load_detector
from pipeline.stages.plan import InputError, cut_units, list_input, make_shards
from pipeline.stages.read import read_unit
from pipeline.weights import DETECTOR_WEIGHTS, WeightsError, resolve


@dataclass(frozen=True)
class AlignConfig:
    """One alignment of a data set."""

    input: str = option(
        help="folder of pictures, tar or Parquet shards; local or s3://", group="what", metavar="PATH_OR_URI"
    )
    output: str = option(
        help="folder or s3:// prefix for the tar shards", group="what", metavar="PATH_OR_URI"
    )
    kind: str = option("auto", help="auto, folder, tar or parquet", group="what")
    image_column: str = option("image", help="Parquet column that holds the image bytes", group="what")
    shard_images: int = option(1024, help="images of one output shard of a folder input", group="what")
    side: int = option(64, help="side of the crops, pixels", group="faces")
    central: float = option(
        0.24,
        help="take only faces whose landmarks' mean lies within this share of the picture's side from its middle; "
        "0 takes the largest face wherever it is",
        group="faces",
    )
    detector: str = option(
        "centerface", help="centerface, retinaface-mobile0.25, retinaface-resnet50", group="faces"
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


@dataclass(frozen=True)
class AlignShard:
    """Row with `work` (a whole shard as one unit) → row with `pictures` and `faces`; writes OUTPUT/NAME.tar."""

    config: AlignConfig

    def __call__(self, row: Row) -> Row:
        unit = Unit.from_json(row["work"])
        buffer, faces = io.BytesIO(), 0
        with tarfile.open(fileobj=buffer, mode="w") as out:
            for address, data in read_unit(unit, self.config.image_column):
                crop = None if isinstance(data, store.StoreError) else self._crop(data)
                if crop is not None:
                    name = address.member.rsplit(".", 1)[0] + ".png"
                    info = tarfile.TarInfo(name)
                    info.size = len(crop)
                    out.addfile(info, io.BytesIO(crop))
                    faces += 1
        counts = {"pictures": len(unit.images), "faces": faces}
        store.write_bytes(store.join(self.config.output, f"{unit.shard}.tar"), buffer.getvalue())
        store.write_bytes(done_uri(self.config, unit.shard), json.dumps(counts).encode())
        return {"shard": unit.shard} | counts

    def _crop(self, data: bytes) -> bytes | None:
        """The picture's face as PNG bytes, or None where there is none to take."""
        config = self.config
        try:
            picture = images.decode_rgb(data)
        except images.ImageError:
            return None
        find = load_detector(DetectorChoice(config.detector, config.min_score, config.weights_dir))
        found = select_faces(find(picture), Selection(min_face=config.min_face))
        wanted = [f for f in found if not config.central or is_central(f, picture.shape, config.central)]
        try:
            to_crop = face_to_crop(wanted[0].landmarks, config.side)
        except (IndexError, UnusableLandmarks):
            return None
        return images.encode_png(warp_crop(picture, to_crop, config.side))


def is_central(face: Face, shape: tuple[int, ...], share: float) -> bool:
    """Whether a face's landmarks lie around the middle of a picture of this shape."""
    height, width = shape[:2]
    away = face.landmarks.mean(axis=0) - np.array([width / 2, height / 2])
    return bool(np.hypot(*away) < share * max(height, width))


def done_uri(config: AlignConfig, shard: str) -> str:
    """The mark of a finished shard, which a second start passes over."""
    return store.join(config.output, "_done", f"{shard}.json")


def align(config: AlignConfig) -> None:
    """Align every shard that is not aligned yet; prints what came of it."""
    store.check_readable(config.input)
    store.check_writable(config.output)
    if config.detector in DETECTOR_WEIGHTS:
        published = DETECTOR_WEIGHTS[config.detector]
        resolve(published.file, published.url, published.sha256, config.weights_dir)
    kind, entries = list_input(config.input, config.kind)
    shards = make_shards(kind, entries, config.shard_images)
    units = [u for s in shards for u in cut_units(s, 1 << 40, config.image_column)]
    pending = [u for u in units if not store.exists(done_uri(config, u.shard))]
    print(f"{len(units)} shards, {len(units) - len(pending)} of them done before", flush=True)
    if pending:
        connect(config.ray_address)
        for row in run_tasks([{"work": u.to_json()} for u in pending], AlignShard(config)):
            print(f"{row['shard']}: {row['faces']} faces of {row['pictures']} pictures", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """The job: returns its exit code."""
    config = parse(AlignConfig, argv, description=__doc__ or "")
    try:
        align(config)
    except (InputError, WeightsError, store.StoreError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
