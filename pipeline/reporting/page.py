"""HTML pages of texts, numbers and pictures. Every text is escaped, and a page loads nothing from anywhere."""

import base64
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

STYLE = """
:root { color-scheme: light; }
body { margin: 0 auto; max-width: 76rem; padding: 2.5rem 2rem 5rem; background: #fafaf8; color: #1c1e22;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2.6rem 0 .7rem; }
p.note { color: #6e7278; margin: .2rem 0 .8rem; }
.tiles { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1.6rem 0 0; }
.tiles div { background: #fff; border: 1px solid #e2e3e4; border-radius: .5rem; padding: .7rem 1.1rem;
  min-width: 6rem; }
.tiles b { display: block; font-size: 1.5rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.tiles span { color: #6e7278; }
.scroll { overflow-x: auto; background: #fff; border: 1px solid #e2e3e4; border-radius: .5rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .38rem .9rem; border-top: 1px solid #eeefef; vertical-align: top; }
td { overflow-wrap: anywhere; }
tr:first-child th, tr:first-child td { border-top: 0; }
thead th { color: #6e7278; font-weight: 500; white-space: nowrap; }
td.n, th.n { text-align: right; white-space: nowrap; }
table.pairs td:first-child { color: #6e7278; width: 16rem; }
img { max-width: 100%; border: 1px solid #e2e3e4; border-radius: .5rem; background: #fff; }
"""
# the browser holds the page to its word
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def document(title: str, parts: Sequence[str]) -> str:
    """A whole page of such parts as the other functions make."""
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n" + "\n".join(part for part in parts if part) + "\n</body>\n</html>\n"
    )
    # bytes of a file name that are no UTF-8 are spelled out, as \\udce9
    return page.encode(errors="backslashreplace").decode()


def heading(text: str) -> str:
    """The title of a section."""
    return f"<h2>{escape(text)}</h2>"


def note(text: str) -> str:
    """A faint line; nothing for an empty text."""
    return f'<p class="note">{escape(text)}</p>' if text else ""


def tiles(values: Mapping[str, Any]) -> str:
    """Few values, large."""
    cells = "".join(f"<div><b>{cell(v)}</b><span>{escape(_words(k))}</span></div>" for k, v in values.items())
    return f'<div class="tiles">{cells}</div>'


def pairs(values: Mapping[str, Any]) -> str:
    """A table of names and values; mappings inside are unfolded, their names joined by a dot."""
    rows = "\n".join(
        f"<tr><td>{escape(_words(k))}</td><td>{cell(v)}</td></tr>" for k, v in _flat(values).items()
    )
    return f'<div class="scroll"><table class="pairs">\n{rows}\n</table></div>'


def table(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table under its columns' names; columns that hold a number stand to the right."""
    right = [any(isinstance(row[i], int | float) for row in rows) for i in range(len(names))]
    classes = [' class="n"' if r else "" for r in right]
    head = "".join(f"<th{c}>{escape(_words(n))}</th>" for n, c in zip(names, classes, strict=True))
    lines = ["".join(f"<td{c}>{cell(v)}</td>" for v, c in zip(row, classes, strict=True)) for row in rows]
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'


def picture(data: bytes, kind: str, alternative: str) -> str:
    """An encoded picture (kind: png, jpeg) inside the page."""
    code = base64.b64encode(data).decode()
    return f'<img alt="{escape(alternative)}" src="data:image/{kind};base64,{code}">'


def cell(value: Any) -> str:
    """A value as text: whole numbers in groups of three digits, others to four places, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return escape(str(value))
    if isinstance(value, int) or (math.isfinite(value) and value == int(value)):
        return f"{int(value):,}".replace(",", "\u202f")
    return f"{value:.4g}"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat
