"""A unit of work: which pictures belong to it, where their bytes lie, and where what it leaves lies."""

import dataclasses
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pipeline.io import layout
from pipeline.io.formats import CONVERTED

Kind = Literal["folder", "tar", "parquet"]


@dataclass(frozen=True)
class Address:
    """Where one image's bytes lie: a whole file, a span of a tar shard, or a row of a Parquet shard."""

    # input name: path below the input, member name, or row number
    member: str
    uri: str
    # bytes [offset, offset + length) of the file; for Parquet the row number and 0
    offset: int
    length: int
    # why there are no bytes of a picture, found when planning: a reason of stages/read.py; empty for most
    refused: str = ""
    # of a hard link, whose bytes are those of the member that it links to: where its own header begins in the tar
    link: int = 0

    @property
    def is_path(self) -> bool:
        """Whether the name is a path that lies below the folder it is joined to; keys of S3 may be anything."""
        return not {"", ".", ".."} & set(self.member.split("/"))


class Pending(NamedTuple):
    """A unit that is to be done: what the driver holds of it."""

    shard: str
    part: int
    # as of `Unit`
    attempts: int = 1

    @property
    def name(self) -> str:
        """The unit's."""
        return unit_name(self.shard, self.part)


@dataclass(frozen=True)
class Unit:
    """At most --unit-images consecutive images of one shard."""

    shard: str
    kind: Kind
    part: int
    # the shard has no later part
    last: bool
    images: tuple[Address, ...]
    # the tar or Parquet file; empty for a folder
    source: str = ""
    # bytes of the tar that hold this unit's members whole, headers and sidecars too; unused elsewhere
    span: tuple[int, int] = (0, 0)
    # hard links of the tar that are no pictures, or link to none, and whose target lies in an earlier unit: where the
    # headers of link and target begin
    links: tuple[tuple[int, int], ...] = ()
    # how often it was deliberately begun: 1, and one more for every retry; a restart is no attempt
    attempts: int = 1
    # identity of the run that it belongs to; empty in outputs of versions that gave none
    run: str = ""

    @property
    def name(self) -> str:
        """NAME-PPPP, the stem of everything the unit leaves behind."""
        return unit_name(self.shard, self.part)

    @property
    def marker_path(self) -> str:
        """Where its marker lies below the output."""
        return layout.marker_path(self.shard, self.part)

    def touches(self, uris: Collection[str]) -> bool:
        """Whether any of its pictures lies in one of these files."""
        return any(a.uri in uris for a in self.images)

    @property
    def records_path(self) -> str:
        """Where its records lie."""
        return layout.records_path(self.name)

    @property
    def sample_path(self) -> str:
        """Where its strip of the contact sheet lies, if it has one."""
        return layout.sample_path(self.name)

    @property
    def faces_folder(self) -> str:
        """Where its aligned crops lie, if they are wanted."""
        return layout.faces_folder(self.name)

    @property
    def tiles_folder(self) -> str:
        """Where pictures of its faces for the review page lie, if there are any."""
        return layout.tiles_folder(self.name)

    @property
    def shard_path(self) -> str:
        """Where the shard lies that a tar or Parquet unit delivers."""
        return layout.shard_path(self.name, self.kind)

    @property
    def paths(self) -> list[str]:
        """Where it may put things, its marker last; of pictures of faces only the folders, with a slash at the end."""
        members = [a.member for a in self.images if a.is_path]
        pictures = [path(m) for m in members for path in (layout.image_path, layout.sidecar_path)]
        pictures += [layout.image_path(m + suffix) for m in members for suffix in CONVERTED.values()]
        return [
            *(pictures if self.kind == "folder" else [self.shard_path]),
            self.records_path,
            self.sample_path,
            f"{self.faces_folder}/",
            f"{self.tiles_folder}/",
            self.marker_path,
        ]

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Unit":
        return cls.from_values(json.loads(text))

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> "Unit":
        """The unit of what `to_json` wrote, once that is parsed."""
        images = tuple(Address(**a) for a in values["images"])
        links = tuple((link, target) for link, target in values.get("links", ()))
        return cls(**values | {"images": images, "span": tuple(values["span"]), "links": links})


def units_to_json(units: Sequence[Unit]) -> bytes:
    """The units of a shard as the plan keeps them."""
    return json.dumps([dataclasses.asdict(unit) for unit in units]).encode()


def units_from_json(data: bytes) -> list[Unit]:
    """The units that `units_to_json` wrote. Raises ValueError, KeyError or TypeError for other bytes."""
    return [Unit.from_values(values) for values in json.loads(data)]


def unit_name(shard: str, part: int) -> str:
    """NAME-PPPP, the stem of everything the unit leaves behind."""
    return f"{shard}-{part:04d}"
