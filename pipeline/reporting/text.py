"""Values and names as text that terminals, fonts and pages can show."""

import math
from typing import Any

# between groups of digits: narrow, and no place for a line break
THIN_SPACE = "\u202f"


def printable(text: str) -> str:
    """The text as one line that moves no terminal's cursor and that every font can set: the rest is spelled out."""
    kept = (c.isprintable() or c == THIN_SPACE for c in text)
    return "".join(
        c if keep else c.encode("unicode_escape").decode() for c, keep in zip(text, kept, strict=True)
    )


def words(name: str) -> str:
    """The name of a column, metric or setting as words."""
    return name.replace("_", " ")


def value_text(value: Any) -> str:
    """A value for people: whole numbers in groups of three digits, others to four places, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or (math.isfinite(value) and value == int(value)):
        return f"{int(value):,}".replace(",", THIN_SPACE)
    return f"{value:.4g}"
