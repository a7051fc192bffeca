"""Lists of faces that people name beforehand, by picture and number or region: CSV files of spreadsheets."""

import csv
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline import Refusal
from pipeline.io import store
from pipeline.io.names import escape_surrogates

EDGES = ("x0", "y0", "x1", "y1")
COLUMNS = ("picture", "face", *EDGES)


class BadList(Refusal, ValueError):
    """A file that is no list of faces."""


class Named(NamedTuple):
    """One line: all faces of a picture, one of them, or those whose middle lies in a region of it."""

    face: int | None = None
    # x0, y0, x1, y1 in pixels of the upright picture
    region: tuple[float, float, float, float] | None = None

    def fits(self, number: int, box: Sequence[float]) -> bool:
        """Whether a face of this number and box is meant."""
        if self.region is not None:
            x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
            x0, y0, x1, y1 = self.region
            return x0 <= x <= x1 and y0 <= y <= y1
        return self.face in (None, number)


@dataclass(frozen=True)
class FaceList:
    """Named faces by picture."""

    faces: Mapping[str, tuple[Named, ...]] = field(default_factory=dict)
    # sha256 of what the file says, whatever its line ends and its order
    digest: str = ""

    def names(self, picture: str, number: int, box: Sequence[float]) -> bool:
        """Whether a face is in the list. number: as in the records; box: x0, y0, x1, y1."""
        return any(named.fits(number, box) for named in self.faces.get(escape_surrogates(picture), ()))

    def regions(self, picture: str) -> list[tuple[float, float, float, float]]:
        """The regions that are named in a picture, whether a face is found there or not."""
        return [
            named.region
            for named in self.faces.get(escape_surrogates(picture), ())
            if named.region is not None
        ]


# The list that names no face.
NO_FACES = FaceList()


def read_face_list(uri: str) -> FaceList:
    """The list in a CSV file with a header: `picture`, and `face` or `x0`, `y0`, `x1`, `y1`. Raises BadList."""
    try:
        text = store.read_bytes(uri).decode("utf-8-sig")
    except (store.StoreError, UnicodeDecodeError) as error:
        raise BadList(f"{uri}: a list of faces was wanted, it can not be read: {error}") from error
    reader = csv.DictReader(io.StringIO(text))
    header = [name.strip() for name in reader.fieldnames or ()]
    if "picture" not in header or set(header) - set(COLUMNS):
        raise BadList(
            f"{uri}: a first line with the columns picture and face, or picture, x0, y0, x1, y1 was wanted, "
            f"got {', '.join(header) or 'nothing'}"
        )
    reader.fieldnames = header
    found: dict[str, list[Named]] = {}
    for row in reader:
        if any(value and value.strip() for value in row.values() if isinstance(value, str)):
            picture, named = _line(f"{uri}, line {reader.line_num}", row)
            found.setdefault(picture, []).append(named)
    if not found:
        raise BadList(f"{uri}: at least one picture was wanted, the list is empty")
    said = sorted((picture, sorted(map(repr, lines))) for picture, lines in found.items())
    digest = hashlib.sha256(repr(said).encode()).hexdigest()
    return FaceList({picture: tuple(lines) for picture, lines in found.items()}, digest)


def _line(where: str, row: Mapping[str | None, str | list[str] | None]) -> tuple[str, Named]:
    if None in row:
        raise BadList(f"{where}: more cells than the first line has; put names with commas in quotes")
    values = {name: value.strip() for name, value in row.items() if name and isinstance(value, str)}
    picture, face = values.get("picture", ""), values.get("face", "")
    edges = [values.get(name, "") for name in EDGES]
    if not picture:
        raise BadList(f"{where}: the picture's name is missing")
    if not any(edges):
        if face and not face.isdecimal():
            raise BadList(f"{where}: face must be its number as in the records, from 0, got {face!r}")
        return picture, Named(int(face) if face else None)
    try:
        x0, y0, x1, y1 = map(float, edges)
    except ValueError:
        x0 = x1 = 0.0
        y0 = y1 = 0.0
    if face or not (x0 < x1 and y0 < y1):
        raise BadList(
            f"{where}: a face's number or a region with x0 < x1 and y0 < y1 was wanted, got "
            + ", ".join(f"{name} {value or 'empty'}" for name, value in values.items() if name != "picture")
        )
    return picture, Named(None, (x0, y0, x1, y1))
