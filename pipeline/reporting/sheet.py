"""Contact sheets: pictures in rows, with names and captions, as one picture.

A sheet is a title over bands, a band is groups side by side, a group is rows of cards under the names of its columns,
and a card is a few pictures side by side with lines of text about them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pipeline.reporting.palette import EMPTY, FAINT, INK, OCHRE, PAGE, RULE
from pipeline.reporting.text import printable

Pixels = NDArray[np.uint8]

# Sides of tiles, pixels: smaller ones show no detail of a face, larger ones make a sheet of many unwieldy.
SMALLEST_TILE, LARGEST_TILE = 128, 256
# Lengths in pixels.
MARGIN, GAP, CARD_GAP, GUTTER = 28, 4, 12, 36
LEADING = 18  # from one line of a caption to the next
NARROWEST = 720
WIDEST_NAME = 360
TITLE_SIZE, SUBTITLE_SIZE, HEADER_SIZE, TEXT_SIZE = 24, 15, 14, 13


@dataclass(frozen=True)
class Line:
    """A text; what is too long for its place is wrapped, or else loses its middle."""

    text: str
    colour: str = INK
    bold: bool = False
    wrap: bool = False


@dataclass(frozen=True)
class Card:
    """Pictures side by side, [H, W, 3] uint8 RGB each, None for one that is missing, and what is said of them."""

    pictures: Sequence[Pixels | None]
    caption: Sequence[Line] = ()


@dataclass(frozen=True)
class Row:
    """Cards side by side; the name is set to their left."""

    cards: Sequence[Card]
    name: str = ""


@dataclass(frozen=True)
class Group:
    """Rows below each other.

    columns: a heading for each picture of a row, and one more for captions that are set beside the pictures.
    beside: captions are set to the right of a card's pictures instead of beneath them.
    """

    rows: Sequence[Row]
    columns: Sequence[Line] = ()
    title: str = ""
    beside: bool = False


def tile_side(sides: Iterable[int]) -> int:
    """The largest of these sides, within the bounds of tiles."""
    return min(max([SMALLEST_TILE, *sides]), LARGEST_TILE)


def draw_sheet(
    title: str, bands: Sequence[Sequence[Group]], side: int, subtitle: str = "", enlarge: bool = True
) -> Pixels:
    """[H, W, 3] uint8 RGB: the bands below each other, every picture within a square of `side` pixels.

    enlarge: smaller pictures fill their square, too. Same input, same pixels.
    """
    placed = [[_PlacedGroup(group, side, enlarge) for group in band] for band in bands]
    widths = [sum(g.width for g in band) + (len(band) - 1) * GUTTER for band in placed]
    inner = max([NARROWEST - 2 * MARGIN, *widths])
    below = _wrapped(subtitle, font(SUBTITLE_SIZE), inner)
    top = MARGIN + TITLE_SIZE + 14 + len(below) * (SUBTITLE_SIZE + 5) + 16
    heads = [max((g.head for g in band), default=0) for band in placed]
    bodies = [max((g.body for g in band), default=0) for band in placed]
    height = top + sum(heads) + sum(bodies) + max(len(bands) - 1, 0) * GUTTER // 2 + MARGIN

    image = Image.new("RGB", (inner + 2 * MARGIN, height), PAGE)
    draw = ImageDraw.Draw(image)
    _set(draw, (MARGIN, MARGIN), Line(title, bold=True), TITLE_SIZE, inner)
    for number, text in enumerate(below):
        at = MARGIN, MARGIN + TITLE_SIZE + 14 + number * (SUBTITLE_SIZE + 5)
        _set(draw, at, Line(text, FAINT), SUBTITLE_SIZE, inner)
    for band, head, body in zip(placed, heads, bodies, strict=True):
        left = MARGIN
        for group in band:
            group.draw(image, draw, left, top + head)
            left += group.width + GUTTER
        top += head + body + GUTTER // 2
    return np.asarray(image)


class _PlacedGroup:
    """The measures of a group in pixels, and its drawing."""

    def __init__(self, group: Group, side: int, enlarge: bool) -> None:
        self.group, self.side, self.enlarge = group, side, enlarge
        cards = [card for row in group.rows for card in row.cards]
        # pictures of the widest card, cards of the longest row, and lines beneath a card
        self.across = max((len(card.pictures) for card in cards), default=1)
        self.cards = max((len(row.cards) for row in group.rows), default=1)
        self.beneath = 0 if group.beside else max((len(card.caption) for card in cards), default=0)
        self.gap = CARD_GAP if self.beneath else GAP
        self.pictures_width = self.across * (side + GAP) - GAP
        self.beside_width = max(side * 3 // 4, 150) if group.beside else 0
        self.card_width = self.pictures_width + (2 * GAP + self.beside_width if group.beside else 0)
        self.pitch = side + (6 + LEADING * self.beneath if self.beneath else 0) + self.gap

    @cached_property
    def name_width(self) -> int:
        """Of the column of the rows' names, with the distance to the pictures."""
        widest = max((font(TEXT_SIZE).getlength(printable(row.name)) for row in self.group.rows), default=0)
        return min(int(np.ceil(widest)), WIDEST_NAME) + 10 if widest else 0

    @property
    def width(self) -> int:
        return self.name_width + self.cards * (self.card_width + self.gap) - self.gap

    @property
    def body(self) -> int:
        return len(self.group.rows) * self.pitch - (self.gap if self.group.rows else 0)

    @cached_property
    def headings(self) -> list[tuple[int, int, list[Line]]]:
        """The columns' names as lines: left end of each column, its width, and its lines."""
        found = []
        for number, column in enumerate(self.group.columns):
            card, place = divmod(number, self.across + self.group.beside)
            left = self.name_width + card * (self.card_width + self.gap) + place * (self.side + GAP)
            width = self.side
            if place == self.across:  # the captions'
                left, width = left + GAP, self.beside_width
            lines = _wrapped(column.text, font(HEADER_SIZE, column.bold), width)
            found.append((left, width, [Line(text, column.colour, column.bold) for text in lines]))
        return found

    @property
    def head(self) -> int:
        """Height of the title and the columns' names."""
        lines = max((len(lines) for _, _, lines in self.headings), default=0)
        return (28 if self.group.title else 0) + (LEADING * lines + 14 if lines else 0)

    def draw(self, image: Image.Image, draw: ImageDraw.ImageDraw, left: int, top: int) -> None:
        """The group with its first row of pictures at `top` and its headings above."""
        for x, width, lines in self.headings:
            for number, line in enumerate(reversed(lines)):
                middle = left + x + width / 2, top - 14 - LEADING * number
                _set(draw, middle, line, HEADER_SIZE, width, "ms")
        if self.headings:
            draw.line([(left, top - 7), (left + self.width, top - 7)], RULE)
        if self.group.title:
            _set(draw, (left, top - self.head), Line(self.group.title, OCHRE, True), 16, self.width)
        for row in self.group.rows:
            if row.name:
                at = left + self.name_width - 10, top + self.side / 2
                _set(draw, at, Line(row.name), TEXT_SIZE, self.name_width - 10, "rm")
            for number, card in enumerate(row.cards):
                x = left + self.name_width + number * (self.card_width + self.gap)
                self._draw_card(image, draw, card, x, top)
            top += self.pitch

    def _draw_card(
        self, image: Image.Image, draw: ImageDraw.ImageDraw, card: Card, left: int, top: int
    ) -> None:
        for number, picture in enumerate(card.pictures):
            self._draw_tile(image, draw, picture, left + number * (self.side + GAP), top)
        if self.group.beside:
            lines = _set_out(card.caption, self.beside_width)[: self.side // LEADING]
            x, y = left + self.pictures_width + 2 * GAP, top + (self.side - LEADING * len(lines)) // 2
            width = self.beside_width
        else:
            lines, x, y, width = list(card.caption), left, top + self.side + 5, self.pictures_width
        for number, line in enumerate(lines):
            _set(draw, (x, y + LEADING * number), line, TEXT_SIZE, width)

    def _draw_tile(
        self, image: Image.Image, draw: ImageDraw.ImageDraw, picture: Pixels | None, x: int, y: int
    ) -> None:
        fitted = None if picture is None else fit(picture, self.side, self.enlarge)
        if fitted is None or fitted.size != (self.side, self.side):
            draw.rectangle([(x, y), (x + self.side - 1, y + self.side - 1)], EMPTY)
        if fitted is None:
            _set(
                draw,
                (x + self.side / 2, y + self.side / 2),
                Line("not there", FAINT),
                TEXT_SIZE,
                self.side,
                "mm",
            )
        else:
            image.paste(fitted, (x + (self.side - fitted.width) // 2, y + (self.side - fitted.height) // 2))


def fit(picture: Pixels, side: int, enlarge: bool = True) -> Image.Image:
    """The picture with its longer side brought to `side`, bicubic with antialiasing."""
    height, width = picture.shape[:2]
    scale = side / max(height, width)
    if scale > 1 and not enlarge:
        scale = 1.0
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    return Image.fromarray(np.ascontiguousarray(picture)).resize(size, Image.Resampling.BICUBIC)


@lru_cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and has most of the world's letters."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/{name}", size)


def shortened(text: str, of: ImageFont.FreeTypeFont, width: float) -> str:
    """The text, with its middle left out where it is too long: names of files differ at both ends."""
    text = printable(text)  # names of files hold what no line of type can
    kept = len(text)
    shown = text
    while kept > 1 and of.getlength(shown) > width:
        kept -= 1
        shown = f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"
    return shown


def _wrapped(text: str, of: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """The words of a text in lines of at most this width."""
    lines: list[str] = []
    for word in printable(text).split():
        if lines and of.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _set_out(caption: Iterable[Line], width: int) -> list[Line]:
    """The lines of a caption, those that are to be wrapped in several."""
    found: list[Line] = []
    for line in caption:
        texts = _wrapped(line.text, font(TEXT_SIZE, line.bold), width) if line.wrap else [line.text]
        found += [Line(text, line.colour, line.bold) for text in texts]
    return found


def _set(
    draw: ImageDraw.ImageDraw,
    at: tuple[float, float],
    line: Line,
    size: int,
    width: float,
    anchor: str = "la",
) -> None:
    """Letter one line at a place, in pixels, shortened to a width. anchor: Pillow's, which point of the text it is."""
    of = font(size, line.bold)
    draw.text(at, shortened(line.text, of, width), line.colour, of, anchor=anchor)
