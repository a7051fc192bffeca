"""Lettering of contact sheets."""

from PIL import ImageFont

from pipeline.reporting.text import printable


def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and has most of the world's letters."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/{name}", size)


def fitting(text: str, font: ImageFont.FreeTypeFont, room: float) -> str:
    """The text, with its middle left out where it is too long: names of shards differ at both ends."""
    text = printable(text)  # names of files hold what no line of type can
    kept = len(text)
    shown = text
    while kept > 1 and font.getlength(shown) > room:
        kept -= 1
        shown = f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"
    return shown
