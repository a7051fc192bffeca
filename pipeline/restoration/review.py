"""The page on which people review a run's faces, from the records and tiles that the run left in its output."""

import base64
import heapq
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from pipeline.diffusion.method import Method
from pipeline.faces.gates import Bounds
from pipeline.faces.geometry import CropFrame
from pipeline.io import layout, store
from pipeline.io.fence import write_while
from pipeline.io.prefetch import ahead
from pipeline.io.tables import read_table
from pipeline.ledger.ledger import READERS
from pipeline.records.rows import LEFT_TEXTS, RUNG_TEXTS, FaceRecord
from pipeline.records.run_file import RunFile
from pipeline.records.verdicts import FORMAT
from pipeline.reporting.review_page import Applied, Choice, Face, ReviewData, Tried, review_document
from pipeline.restoration.method import Restorer
from pipeline.restoration.report import evenly
from pipeline.stages.ladder import NON_FINITE
from pipeline.stages.record import by_image, records_of
from pipeline.stages.sample import decision
from pipeline.stages.tiles import panels_name, tile_matrix, tile_name, tile_side

# Faces of the page; of a run with more, those that turned the identity most. Units whose records are read for it, of
# a run with more an even choice.
MOST_FACES, MOST_FILES = 50_000, 20_000
# A run whose pictures take no more than this is one file.
MOST_INSIDE = 24 << 20
CAME, SPREAD = "as it came", "spread"
TRIED_TEXTS = {
    "asked": "as asked", "held": "held more", "lower_n": "smaller N", "estimator": "estimator alone",
}  # fmt: skip


def write_review(
    output: str,
    run: RunFile,
    restorer: Restorer,
    is_held: Callable[[], bool] = lambda: True,
    sign: Callable[[str], str] | None = None,
) -> int:
    """Write OUT/review/index.html over the faces that have tiles; how many they are.

    is_held: whether the output still is ours to write to. sign: gives the pictures, by their URI, the addresses that
    the page names; None: they lie beside it, or in it where they are few. Raises Fenced or StoreError.
    """
    folder = store.join(output, layout.RECORDS)
    entries = store.list_files(folder) if store.exists(folder) else []
    every = [e.uri for e in entries if e.path.endswith(".parquet")]
    uris = [every[i] for i in evenly(len(every), MOST_FILES)]
    # of a larger run every face that can have one is taken to have one
    sizes = _tiles(output) if len(uris) == len(every) else None
    seen = Seen()
    found = _faces(uris, sizes, restorer.frame, restorer.bounds, seen)
    faces = heapq.nlargest(MOST_FACES, found, key=lambda face: face.identity or 0.0)
    title = store.name_of(output)
    if len(faces) < seen.faces or len(uris) < len(every):
        title += f": {len(faces)} of {seen.faces} faces in {len(uris)} of {len(every)} units"
    if sign is not None:
        faces = _with_addresses(output, faces, sign)
    elif sizes is not None and sum(sizes.values()) <= MOST_INSIDE:
        faces = _with_addresses(output, faces, _inside)
    where = store.join(output, layout.SAVED_VERDICTS)
    data = ReviewData(
        title=title,
        format=FORMAT,
        run=run.run,
        digest=run.digest,
        command=f"python -m jobs.restore --input {run.input} --output {output} --verdicts {where}",
        choices=choices(restorer.method, restorer.frame.side),
        faces=faces,
    )
    write_while(is_held, output, layout.REVIEW_PAGE, review_document(data).encode())
    return len(faces)


def choices(method: Method, side: int) -> list[Choice]:
    """What a face can be restored again with, beside what people write themselves. side: of the crop, pixels."""
    found = [Choice("as the run does it", {}), Choice("half of the change", {"strength": 0.5})]
    if method.without_prior:
        return found
    found += [
        Choice("another sample", {"seed": method.seed + 1}),
        Choice("the estimator alone", {"method": "estimator"}),
    ]
    chains = [row for row in method.treatment if "start_step" in row]
    names = ("start_step", "calls", "hold", "eta")
    most = chains[-1] if chains else {name: getattr(method, name) for name in names}
    asked = {name: most[name] for name in names if most.get(name) is not None}
    held = asked | {"hold": asked["hold"] / 2 or side / 64}
    found += [Choice("the whole chain", asked), Choice("held more", held)]
    lower = [int(t) for t in method.schedule.t if 0 < 2 * t <= asked["start_step"]]
    if lower:
        fewer = {"calls": -(-asked["calls"] // 2)} if "calls" in asked else {}
        found.append(Choice("from a smaller N", held | {"start_step": max(lower)} | fewer))
    return found


def _tiles(output: str) -> dict[str, int]:
    """Size of every tile in bytes, by its path below the folder of the review."""
    sizes: dict[str, int] = {}
    for folder in (layout.MADE_TILES, layout.TILES):
        uri = store.join(output, folder)
        below = folder.removeprefix(f"{layout.REVIEW}/")
        sizes |= {f"{below}/{e.path}": e.size for e in (store.list_files(uri) if store.exists(uri) else ())}
    return sizes


@dataclass
class Seen:
    """How many faces were found that have tiles."""

    faces: int = 0


def _faces(
    uris: Sequence[str], there: Container[str] | None, frame: CropFrame, bounds: Bounds | None, seen: Seen
) -> Iterator[Face]:
    """Every face that has a tile, in the order of the units, of these records; few units are held at once.

    there: the tiles; None: every face that can have one has one.
    """

    def of_unit(uri: str) -> list[Face]:
        return list(_faces_of(read_table(store.read_bytes(uri)).to_pylist(), there, frame, bounds))

    with ThreadPoolExecutor(READERS) as pool:
        for found in ahead(pool, (partial(of_unit, uri) for uri in uris), 2 * READERS):
            seen.faces += len(found)
            yield from found


def _faces_of(
    rows: Sequence[dict[str, Any]], there: Container[str] | None, frame: CropFrame, bounds: Bounds | None
) -> Iterator[Face]:
    for place, group in enumerate(by_image(list(rows))):
        image = group[0]
        for face in records_of(group, place, image["member"], ()).faces:
            folders = (layout.tiles_folder(image["unit"]), layout.made_tiles_folder(image["unit"]))
            for folder in (f.removeprefix(f"{layout.REVIEW}/") for f in folders):
                tile = f"{folder}/{tile_name(place, face.face)}"
                more = f"{folder}/{panels_name(place, face.face)}"
                if there is None and face.has_crop and not face.error:
                    yield _face(image, face, tile, more if _has_panels(face) else None, frame, bounds)
                    break
                if there is not None and tile in there:
                    yield _face(image, face, tile, more if more in there else None, frame, bounds)
                    break


def _has_panels(face: FaceRecord) -> bool:
    """Whether there is more to show of a face than what came and what was delivered."""
    return face.spread is not None or len([t for t in face.tried if t.get("failed") != NON_FINITE]) > 1


def _face(
    image: Mapping[str, Any],
    face: FaceRecord,
    tile: str,
    more: str | None,
    frame: CropFrame,
    bounds: Bounds | None,
) -> Face:
    frame = frame.of(face.side)
    side = tile_side(face.scale, frame)
    measured = face.tried[-1] if face.tried else {}
    delta = face.estimated_change
    allowed = bounds.at("identity", delta) if bounds and delta is not None and bounds.identity else None
    shown = [tried for tried in face.tried if tried.get("failed") != NON_FINITE]
    panels = [CAME, *(TRIED_TEXTS[tried["rung"]] for tried in shown)]
    panels += [SPREAD] if face.spread is not None else []
    left = face.treatment == "left"
    x0, y0, x1, y1 = face.box
    return Face(
        unit=image["unit"],
        place=face.image,
        picture=image["member"],
        face=face.face,
        sha256=image["sha256"],
        src=tile,
        tile=(side, side),
        more=more,
        panels=panels if more else [],
        side=frame.side,
        heat=_heat(face, frame, side) if more and SPREAD in panels else None,
        size=max(x1 - x0, y1 - y0),
        delta=delta,
        identity=measured.get("identity"),
        allowed=allowed,
        gain=measured.get("gain"),
        spread=face.spread,
        spread_identity=face.spread_identity,
        invented=bool(face.invented),
        outcome="left" if left else "restored",
        rung=face.rung,
        treatment=decision(face),
        why=(LEFT_TEXTS[face.left_for] if face.left_for else face.kept) if left else "",
        redoable=face.has_crop,
        tried=[_tried(tried) for tried in face.tried],
        applied=_applied(face),
    )


def _tried(tried: Mapping[str, Any]) -> Tried:
    numbers = {name: tried.get(name) for name in ("identity", "landmarks", "colour", "gain", "bound")}
    label = TRIED_TEXTS.get(tried["rung"], RUNG_TEXTS[tried["rung"]])
    return Tried(tried["rung"], label, failed=tried.get("failed"), **numbers)


def _applied(face: FaceRecord) -> Applied | None:
    if not face.verdict:
        return None
    settings = face.verdict_settings if face.verdict == "redo" else None
    return Applied(face.verdict, face.verdict_by, face.verdict_at, settings)


def _heat(face: FaceRecord, frame: CropFrame, side: int) -> tuple[float, float, float, float, float, float]:
    """The affine map from the crop to its tile, as CSS has it."""
    to_tile = np.vstack([tile_matrix(face.affine, frame, side), [0, 0, 1]])
    to_crop = np.vstack([np.array(face.affine).reshape(2, 3), [0, 0, 1]])
    m = to_tile @ np.linalg.inv(to_crop)
    # pixel centres lie at whole numbers there, and half a pixel further in CSS
    shift = m[:2, 2] + 0.5 - m[:2, :2] @ [0.5, 0.5]
    return (m[0, 0], m[1, 0], m[0, 1], m[1, 1], float(shift[0]), float(shift[1]))


def _with_addresses(output: str, faces: Sequence[Face], address: Callable[[str], str]) -> list[Face]:
    """The faces with the addresses that `address` gives their pictures' URIs."""
    folder = store.join(output, layout.REVIEW)

    def addressed(face: Face) -> Face:
        src, more = (address(store.join(folder, path)) if path else None for path in (face.src, face.more))
        return replace(face, src=src or "", more=more)

    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(addressed, faces))


def _inside(uri: str) -> str:
    """A picture itself, as an address."""
    return f"data:image/jpeg;base64,{base64.b64encode(store.read_bytes(uri)).decode()}"
