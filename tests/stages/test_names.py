"""Names of converted pictures: in the rows of a shard, and never those of other pictures."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.io import store
from pipeline.io.images import SkippedImage
from pipeline.io.tar_parts import Replacement
from pipeline.io.units import Address, Unit
from pipeline.records.rows import ImageRecord
from pipeline.stages.names import check_name, check_unconverted
from pipeline.stages.shard import parquet_shard


def unit_of(folder: Path, *names: str, kind: str = "folder") -> Unit:
    images = tuple(Address(name, str(folder / name), 0, 1) for name in names)
    return Unit("s", kind, 0, True, images)


def test_a_name_of_the_input_is_taken(tmp_path):
    (tmp_path / "a.heic.png").write_bytes(b"of its own")
    folder = unit_of(tmp_path, "a.heic")
    with pytest.raises(SkippedImage, match="another picture"):
        check_name(folder, folder.images[0], "a.heic.png")
    check_name(folder, folder.images[0], "a.heic.tif")
    shard = unit_of(tmp_path, "a.heic", "a.heic.tif", kind="tar")
    with pytest.raises(SkippedImage, match="another picture"):
        check_name(shard, shard.images[0], "a.heic.tif")
    check_name(shard, shard.images[0], "a.heic.png")


def test_what_came_later_does_not_take_the_place_of_a_converted_picture(tmp_path):
    source, output = tmp_path / "in", tmp_path / "out"
    for path, data in ((source / "a.heic", b"1"), (output / "images/a.heic.png", b"converted")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    later, other = unit_of(source, "a.heic.png", "b.heic.png").images
    with pytest.raises(store.NameRefused, match=r"a\.heic was converted to"):
        check_unconverted(str(output), later, b"new")
    # an interrupted start left the very bytes
    check_unconverted(str(output), later, b"converted")
    check_unconverted(str(output), other, b"new")
    (source / "a.heic").unlink()
    check_unconverted(str(output), later, b"new")


@pytest.mark.parametrize("has_path", [True, False])
def test_the_path_in_a_row_gets_the_suffix(tmp_path, has_path):
    cells = [{"bytes": b"1"} | ({"path": "x/p.heic"} if has_path else {}), {"bytes": b"2"}]
    pq.write_table(pa.table({"image": cells, "n": [1, 2]}), tmp_path / "s.parquet")
    uri = str(tmp_path / "s.parquet")
    rows = tuple(Address(str(n), uri, n, 0) for n in range(2))
    unit = Unit("s", "parquet", 0, True, rows, source=uri)
    new = [Replacement(b"new", "0.png"), Replacement(None)]
    done = parquet_shard(unit, [ImageRecord("0"), ImageRecord("1")], new, "image")
    first, second = pq.read_table(pa.BufferReader(done))["image"].to_pylist()
    assert first == {"bytes": b"new"} | ({"path": "x/p.heic.png"} if has_path else {})
    assert second["bytes"] == b"2"
