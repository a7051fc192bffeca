"""Labels of people by which scores are split: from the JSON file beside each picture, or from a table."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import PurePosixPath

from pipeline.console.options import UsageError
from pipeline.datasets.faces import FaceAddress
from pipeline.io import store
from pipeline.io.tables import read_table
from pipeline.io.tar import DamagedTar, iter_members

# The column that is used where none is named.
DEFAULT = "group"
# A column with more labels is no grouping.
MOST_LABELS = 24

# column → label of each face, None where it has none
Labels = Mapping[str, Sequence[str | None]]
Values = Mapping[str, object]


def read_labels(faces: Sequence[FaceAddress], columns: Sequence[str] | None, table: str | None) -> Labels:
    """The labels of these faces: of the table where one is given, else of KEY.json beside KEY.jpg.

    columns: those wanted; None: DEFAULT, where any face has it. table: CSV or Parquet whose first column is the name of
    the picture: its path or the end of it, with or without the suffix. Raises UsageError for a column that no face has
    or that has more than MOST_LABELS labels, and for a table that is unreadable or names none of the pictures;
    StoreError.
    """
    rows = _from_table(faces, table) if table else _from_sidecars(faces)
    found = {name: [_label(row.get(name)) for row in rows] for name in columns or (DEFAULT,)}
    if columns is None and not any(found[DEFAULT]):
        return {}
    for name, labels in found.items():
        count = len({label for label in labels if label})
        if not count:
            known = ", ".join(dict.fromkeys(n for row in rows for n, value in row.items() if _label(value)))
            raise UsageError(
                f"--by {name}: expected a column that some of {len(faces)} pictures have, they have {known or 'none'}"
            )
        if count > MOST_LABELS:
            raise UsageError(
                f"--by {name}: expected at most {MOST_LABELS} labels, got {count}; give a column of ranges"
            )
    return found


def _label(value: object) -> str | None:
    return str(value) if isinstance(value, str | int | float) and value != "" else None


def _from_table(faces: Sequence[FaceAddress], uri: str) -> list[Values]:
    """The table's row of each face; an empty one where it has none."""
    named: dict[str, Values] = {}
    data = store.read_bytes(uri)
    try:
        if uri.lower().endswith(".parquet"):
            rows: list[dict[str, object]] = read_table(data).to_pylist()
        else:
            rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    except (ValueError, OSError, csv.Error) as error:
        raise UsageError(
            f"--labels {uri}: expected a CSV or Parquet table, it cannot be read ({error})"
        ) from error
    for row in rows:
        name = str(next(iter(row.values())))
        named.setdefault(name, row)
        named.setdefault(without_suffix(name), row)
    found = [next((named[name] for name in _names(face) if name in named), {}) for face in faces]
    if not any(found):
        raise UsageError(
            f"--labels {uri}: its first column names none of {len(faces)} pictures; give names such as "
            f"{next(_names(faces[0]))}"
        )
    return found


def _names(face: FaceAddress) -> Iterator[str]:
    """What a table may call a picture, the longest first: a/b/c.jpg, a/b/c, b/c.jpg, b/c, c.jpg, c."""
    parts = (face.member or face.shard).split("/")
    for start in range(len(parts)):
        name = "/".join(parts[start:])
        yield name
        yield without_suffix(name)


def _from_sidecars(faces: Sequence[FaceAddress]) -> list[Values]:
    """The JSON object beside each picture; an empty one where there is none."""
    places = {shard: _json_members(shard) for shard in {f.shard for f in faces if f.member}}
    return [_read_sidecar(face, places) for face in faces]


def _read_sidecar(face: FaceAddress, places: Mapping[str, Mapping[str, tuple[int, int]]]) -> Values:
    if face.member:
        place = places[face.shard].get(_sidecar(face.member))
        data = store.read_range(face.shard, *place) if place else b""
    else:
        uri = _sidecar(face.shard)
        data = store.read_bytes(uri) if store.exists(uri) else b""
    with suppress(ValueError):  # the sidecar may be any file: invalid JSON has no labels
        values = json.loads(data)
        if isinstance(values, dict):
            return values
    return {}


def _json_members(shard: str) -> dict[str, tuple[int, int]]:
    """Name → offset and length of the JSON members of a tar."""
    found = {}
    with store.open_read(shard) as source, suppress(DamagedTar):
        for member in iter_members(source, 0, store.stat(shard).size):
            if member.info.name.endswith(".json") and not member.refused:
                found[member.info.name] = (member.info.offset_data, member.info.size)
    return found


def _sidecar(name: str) -> str:
    """KEY.jpg → KEY.json; a URI keeps its slashes."""
    return without_suffix(name) + ".json"


def without_suffix(name: str) -> str:
    """A name, path or URI without the suffix of its last part."""
    return name.removesuffix(PurePosixPath(name).suffix)
