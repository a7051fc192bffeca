"""Outputs of finished runs, made without Ray: the real plan, and the real writer of pictures, records and markers."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from pipeline.faces.geometry import CropFrame, crop_scale, warp_crop
from pipeline.io import images
from pipeline.io.readers import read_unit
from pipeline.ledger.ledger import Ledger
from pipeline.ledger.plan import load_units
from pipeline.records.rows import FaceRecord, ImageRecord, dump_records, pack, with_crops
from pipeline.stages.publish import Publish

WEIGHTS = {"prior": "a" * 64, "estimator": "b" * 64}
SETTINGS: dict[str, Any] = {
    "eta": 0.5, "seed": 0, "start_step": 60, "unit_images": 4, "image_column": "image", "max_pixels": 1 << 20,
    "weights": WEIGHTS, "preset_side": 32, "save_faces": False,
}  # fmt: skip

# Box of a face → level that its restoration has everywhere, and values of its record.
Restored = tuple[int, Mapping[str, Any]]


def picture(shade: int, side: int = 80) -> bytes:
    """A plain picture of that level, as PNG."""
    return images.encode_png(np.full((side, side, 3), shade, np.uint8))


def image_records(output: Path) -> dict[str, dict[str, Any]]:
    """The records of a run's images by their names."""
    files = sorted((output / "records").glob("*.parquet"))
    rows = [r for f in files for r in pq.read_table(f).to_pylist()]
    return {r["member"]: r for r in rows if r["kind"] == "image"}


def finish_run(
    source: Path,
    output: Path,
    restore: Callable[[int, int], Restored | None],
    faces: int = 1,
    kind: str = "auto",
    boxes: Callable[[int], list[float]] | None = None,
    **settings: Any,
) -> Path:
    """A run over plain pictures, of which each holds so many faces of the whole picture's size.

    restore: level of the picture, and number of the face → level and values of the restored face; None: it fails.
    boxes: number of the face → its box.
    """
    told = SETTINGS | settings
    ledger = Ledger(str(output), told)
    config = {"device": "cpu", "output": str(output)}
    ledger.claim(str(source), {"config": config, "preset": {"name": "plain", "side": told["preset_side"]}})
    ledger.plan(str(source), kind, 1024, told["unit_images"], "image")
    same = {"eta": told["eta"], "seed": told["seed"], "model_sha256": "a" * 16 + "+" + "b" * 16}
    side = told["preset_side"]
    publish = Publish(
        str(output), CropFrame(side), "image", False, None, 1 << 20, told["save_faces"], same, "cpu"
    )
    for shard in ledger.shards:
        for unit in load_units(str(output), shard.shard):
            records, found, crops, restored = [], [], [], []
            for place, (address, data) in enumerate(read_unit(unit, "image")):
                assert isinstance(data, bytes)
                rgb = images.decode_rgb(data)
                records.append(
                    ImageRecord(address.member, hashlib.sha256(data).hexdigest(), *rgb.shape[1::-1])
                )
                for number in range(faces):
                    face = whole_face(place, number, rgb.shape[0], side)
                    face.box = boxes(number) if boxes else face.box
                    made = restore(int(rgb[0, 0, 0]), number)
                    level, values = made if made is not None else (0, {"error": "made to fail"})
                    vars(face).update(values)
                    found.append(face)
                    if face.has_crop:
                        crops.append(warp_crop(rgb, np.array(face.affine).reshape(2, 3), side))
                        restored.append(np.full_like(crops[-1], level))
            assert len(with_crops(found)) == len(crops)
            row = {"work": unit.to_json(), "images": dump_records(records), "faces": dump_records(found)}
            row |= {"crops": pack(crops), "estimated": pack(crops), "restored": pack(restored)}
            made_marker = publish(row | {"sums": json.dumps({"seconds_restore": 2.0 * len(crops)})})
            assert made_marker.get("marker"), made_marker
    return output


def whole_face(image: int, number: int, size: int, side: int) -> FaceRecord:
    """A face as large as a picture of `size` pixels to a side, in a crop of `side`."""
    scale = side / size
    affine = np.array([[scale, 0, (scale - 1) / 2], [0, scale, (scale - 1) / 2]])
    box = [0.0, 0.0, float(size), float(size)]
    return FaceRecord(
        image, number, box, [0.0] * 10, affine.ravel().tolist(), 0.9, crop_scale(affine), treatment="chain",
        estimated_change=1.0, start_step=60, calls=3, hold=0.0,
    )  # fmt: skip
