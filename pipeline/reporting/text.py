"""Text that terminals and fonts can show."""


def printable(text: str) -> str:
    """The text as one line that moves no terminal's cursor and that every font can set: the rest is spelled out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
