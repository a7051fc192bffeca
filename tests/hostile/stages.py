"""The stages of a run one after the other, without Ray: an input folder in, markers and records out."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from pipeline.faces.detect import Selection
from pipeline.faces.geometry import CropFrame
from pipeline.io.shards import cut_units, list_input, make_shards
from pipeline.io.units import Unit
from pipeline.records.rows import Row, load_faces, with_crops
from pipeline.stages.align import DetectorChoice, ReadAndAlign
from pipeline.stages.publish import Publish

SIDE = 64


@dataclass(frozen=True)
class Done:
    """What the stages made of an input."""

    units: list[Unit]
    markers: list[dict]
    # rows of the records, of images and of faces
    images: list[dict]
    faces: list[dict]


def plan(source: Path, unit_images: int = 64, kind: str = "auto") -> list[Unit]:
    found, entries = list_input(str(source), kind)
    return [u for s in make_shards(found, entries, 1024) for u in cut_units(s, unit_images, "image")]


def inverted(row: Row) -> Row:
    """A stand-in for the engine: a restored face is the crop in negative."""
    faces = load_faces(row)
    crops = bytes(255 - b for b in row["crops"])
    assert len(crops) == len(with_crops(faces)) * SIDE * SIDE * 3
    return row | {"estimated": crops, "restored": crops}


def run_stages(
    source: Path,
    output: Path,
    unit_images: int = 64,
    max_pixels: int = 178_956_970,
    restore: Callable[[Row], Row] = inverted,
) -> Done:
    """Plan, read & align, restore, publish; and the records that they wrote."""
    read = ReadAndAlign(
        CropFrame(SIDE), DetectorChoice("centerface", None, None), Selection(), False, False, None,
        max_pixels, "image", str(output / "stop"),
    )  # fmt: skip
    same = {"eta": 0.5, "seed": 0}
    publish = Publish(str(output), CropFrame(SIDE), "image", False, None, max_pixels, False, same)
    units = plan(source, unit_images)
    markers = []
    for unit in units:
        row = publish(restore(read({"unit": unit.name, "work": unit.to_json()})))
        markers.append(json.loads(row["marker"]))
    rows = [r for u in units for r in pq.read_table(output / "records" / f"{u.name}.parquet").to_pylist()]
    images, faces = ([r for r in rows if r["kind"] == kind] for kind in ("image", "face"))
    return Done(units, markers, images, faces)
