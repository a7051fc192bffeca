"""Tiles of the review page for outputs of runs that wrote none, from the pictures as they came and as delivered."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from pipeline.faces.geometry import CropFrame
from pipeline.io import images, layout, store
from pipeline.io.delivered import UNREADABLE, delivered_picture, is_held
from pipeline.io.prefetch import ahead
from pipeline.io.readers import read_unit
from pipeline.io.tables import read_table
from pipeline.io.units import Unit
from pipeline.ledger.output import Run
from pipeline.ledger.plan import load_units, read_plan
from pipeline.stages.record import by_image, records_of
from pipeline.stages.tiles import review_tile, tile_name


@dataclass(frozen=True)
class Made:
    """What was done for one unit."""

    # faces that have a tile now, and those whose pictures can not be read
    tiles: int = 0
    missing: int = 0


def lacking(run: Run) -> list[Unit]:
    """The units that are done and whose faces have no tiles. Raises StoreError."""
    folders = set()
    for folder in (layout.TILES, layout.MADE_TILES):
        uri = store.join(run.output, folder)
        folders |= {e.path.partition("/")[0] for e in (store.list_files(uri) if store.exists(uri) else ())}
    units = [u for planned in read_plan(run.output).shards for u in load_units(run.output, planned.shard)]
    done = store.join(run.output, layout.DONE)
    marked = {f"{layout.DONE}/{e.path}" for e in (store.list_files(done) if store.exists(done) else ())}
    return [u for u in units if u.marker_path in marked and u.name not in folders]


def make_tiles(
    run: Run, units: Sequence[Unit], frame: CropFrame, threads: int
) -> Iterator[tuple[Unit, Made]]:
    """Write the tiles of these units below OUT/review/made/; each unit with what was done. Raises StoreError."""
    jobs: Iterator[Callable[[], Made]] = (partial(_of_unit, run, unit, frame) for unit in units)
    with ThreadPoolExecutor(threads) as pool:
        yield from zip(units, ahead(pool, jobs, 2 * threads), strict=True)


def _of_unit(run: Run, unit: Unit, frame: CropFrame) -> Made:
    data = store.read_bytes(store.join(run.output, unit.records_path))
    rows = by_image(read_table(data).to_pylist())
    tiles = missing = 0
    for place, (address, group) in enumerate(zip(unit.images, rows, strict=True)):
        faces = [f for f in records_of(group, place, address.member, ()).faces if f.has_crop and not f.error]
        if not faces:
            continue
        try:
            before, after = _pictures(run, unit, place, rows)
        except (store.StoreError, LookupError, *UNREADABLE):
            missing += len(faces)
            continue
        for face in faces:
            path = f"{layout.made_tiles_folder(unit.name)}/{tile_name(place, face.face)}"
            store.write_bytes(store.join(run.output, path), review_tile(before, after, face, frame))
            tiles += 1
    return Made(tiles, missing)


def _pictures(run: Run, unit: Unit, place: int, rows: Sequence[Sequence[dict[str, Any]]]) -> tuple[Any, Any]:
    """A picture as it came and as it was delivered, [H, W, 3] uint8 RGB each."""
    one = replace(unit, images=(unit.images[place],))
    [(_, before)] = read_unit(one, run.image_column, run.max_pixels)
    if isinstance(before, store.StoreError):
        raise before
    number = sum(is_held(a, group[0]) for a, group in zip(unit.images[:place], rows, strict=False))
    delivered = delivered_picture(run.output, one, number, run.image_column, rows[place][0])
    pixels = images.decode_rgb(before, run.max_pixels)
    same = delivered == before
    return pixels, pixels if same else images.decode_rgb(delivered, 16 * run.max_pixels)
