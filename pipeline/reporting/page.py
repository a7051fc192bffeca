"""HTML pages of texts, numbers and pictures. Every text is escaped, and a page loads nothing from anywhere."""

import base64
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.reporting import palette
from pipeline.reporting.text import value_text, words

if TYPE_CHECKING:
    from jinja2 import Template


class Part(NamedTuple):
    """A part of a page: what it is to the template, and what it shows."""

    kind: str
    value: Any


def document(title: str, parts: Sequence[Part]) -> str:
    """A whole page."""
    page = template("page.html").render(title=title, parts=parts, palette=palette)
    # bytes of a file name that are no UTF-8 are spelled out, as \\udce9
    return page.encode(errors="backslashreplace").decode()


def heading(text: str) -> Part:
    """The title of a section."""
    return Part("heading", text)


def note(text: str) -> Part:
    """A faint line; nothing for an empty text."""
    return Part("note", text)


def tiles(values: Mapping[str, Any]) -> Part:
    """Few values, large."""
    return Part("tiles", values)


def pairs(values: Mapping[str, Any]) -> Part:
    """A table of names and values; mappings inside are unfolded, their names joined by a dot."""
    return Part("pairs", _flat(values))


def table(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> Part:
    """A table under its columns' names; columns that hold a number are aligned right."""
    numeric = [any(isinstance(row[i], int | float) for row in rows) for i in range(len(names))]
    kinds = ["number" if n else "text" for n in numeric]
    columns = [{"name": name, "kind": kind} for name, kind in zip(names, kinds, strict=True)]
    return Part("table", {"columns": columns, "rows": rows})


def picture(data: bytes, kind: str, alternative: str) -> Part:
    """An encoded picture (kind: png, jpeg) inside the page."""
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return Part("picture", {"source": source, "alternative": alternative})


@cache
def template(name: str) -> "Template":
    """A template of this folder; every value put into it is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("pipeline.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"text": value_text, "words": words}
    return environment.get_template(name)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat
