"""Aligned faces in tars: one sample for each, whatever the pictures are called."""

import io
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from photographs import encoded, portrait, write_folder

from pipeline.io.shards import cut_units, list_input, make_shards
from pipeline.io.units import Unit
from pipeline.training.align import AlignConfig, AlignShard, rows_of

pytestmark = pytest.mark.usefixtures("without_ray")

JPEG, PNG = encoded(portrait(), "JPEG"), encoded(portrait(), "PNG")


def aligned(source: Path, output: Path, shard_images: int = 1024) -> list[str]:
    """The members of the tars that the job's workers write, shard by shard."""
    kind, entries = list_input(str(source), "auto")
    shards = make_shards(kind, entries, shard_images)
    units: list[Unit] = [u for s in shards for u in cut_units(s, 1 << 40, "image")]
    stage = AlignShard(AlignConfig(str(source), str(output), central=0))
    told = [stage(row) for row in rows_of(units)]
    assert [t["faces"] for t in told] == [len(u.images) for u in units]
    names = []
    for unit in units:
        with tarfile.open(output / f"{unit.shard}.tar") as tar:
            names += tar.getnames()
    return names


def test_pictures_of_a_folder_that_differ_in_a_suffix_or_behind_a_dot_are_samples_of_their_own(tmp_path):
    files = {"IMG.1.jpg": JPEG, "IMG.2.jpg": JPEG, "x.jpg": JPEG, "x.png": PNG, "v1.0/a.jpg": JPEG}
    write_folder(tmp_path / "in", files)
    names = aligned(tmp_path / "in", tmp_path / "out", shard_images=4)
    assert names[:2] == ["IMG_1.png", "IMG_2.png"] and names[2] == "v1.0/a.png"
    assert all(n.startswith("x-") and n.endswith(".png") for n in names[3:])
    # the two lie in different shards
    assert len({n.rpartition("/")[2].partition(".")[0] for n in names}) == len(names) == 5


def test_rows_and_members_of_one_name_are_samples_of_their_own(tmp_path):
    (tmp_path / "rows").mkdir()
    pq.write_table(pa.table({"image": [JPEG, PNG]}), tmp_path / "rows" / "p.parquet")
    assert aligned(tmp_path / "rows", tmp_path / "out") == ["0.png", "1.png"]
    (tmp_path / "tars").mkdir()
    with tarfile.open(tmp_path / "tars" / "s.tar", "w") as tar:
        for name in ("a.jpg", "a.jpg", "._a.jpg"):
            info = tarfile.TarInfo(name)
            info.size = len(JPEG)
            tar.addfile(info, io.BytesIO(JPEG))
    names = aligned(tmp_path / "tars", tmp_path / "out")
    assert len(set(names)) == len(names) == 2
