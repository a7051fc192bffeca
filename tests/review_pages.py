"""Review pages of drawn faces: data, pictures and an output that holds them."""

import io
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from pipeline.records.verdicts import FORMAT
from pipeline.reporting.review_page import Applied, Choice, Face, ReviewData, Tried, review_document

RUN, DIGEST = "run-of-the-tests", "d1"
COMMAND = "python -m jobs.restore --input IN --output OUT --verdicts OUT/review/verdicts.json"
TILE, SIDE = (240, 200), 64
PANELS = ("as it came", "as asked", "held more", "estimator", "spread")
CHOICES = (
    Choice("half the N, held more", {"start_step": 100, "hold": 4.0}),
    Choice("the estimator alone", {"method": "estimator"}),
    Choice("another seed", {"seed": 7}),
)


def face(number: int, **values: Any) -> Face:
    """A restored face of picture number // 2, two a picture and ten a unit; its identity grows with the number."""
    picture, tile = divmod(number, 2)
    unit, place = divmod(picture, 5)
    made = Face(
        unit=f"shard-{unit:03d}-0000",
        place=place,
        picture=f"album/page {picture:02d}.jpg",
        face=tile,
        sha256=f"{picture:064x}",
        src=f"tiles/shard-{unit:03d}-0000/{place:04d}-{tile:02d}.png",
        tile=TILE,
        outcome="restored",
        rung="asked",
        treatment="A chain from N = 250 with 10 calls, held to the estimate below σ = 4.",
        more=f"tiles/shard-{unit:03d}-0000/{place:04d}-{tile:02d}-more.png",
        panels=PANELS,
        side=SIDE,
        # the crop lies turned by nothing, half as large again, 72 pixels from the left and 52 from the top
        heat=(1.5, 0.0, 0.0, 1.5, 72.0, 52.0),
        size=40.0 + number,
        delta=5.0 + number / 8,
        identity=2.0 + number,
        allowed=30.0,
        gain=2.0 - number / 16,
        spread=1.0 + number / 16,
        spread_identity=3.25,
        tried=(Tried("asked", "as asked", 2.0 + number, 0.031, 4.5, 2.0 - number / 16),),
    )
    return replace(made, **values)


def left(number: int, **values: Any) -> Face:
    """A face that was left as it was, after two treatments."""
    tried = (
        Tried("asked", "as asked", 34.0, 0.03, 4.0, 1.0, "identity", 30.0),
        Tried("estimator", "estimator", None, None, None, None, "non_finite"),
    )
    why = "Every treatment turned the identity further than 30 degrees."
    return face(number, outcome="left", rung="", treatment="", why=why, tried=tried, **values)


def few_faces() -> list[Face]:
    """Eight faces of four pictures: one left, one invented, one carried out, one that can not be restored again."""
    return [
        face(0),
        face(1, rung="held", invented=True),
        left(2),
        face(3, applied=Applied("accept", "Ada", "2026-01-02T03:04:05Z")),
        face(4, identity=None, allowed=None, spread=None, spread_identity=None, redoable=False),
        face(5, rung="estimator", heat=None, more=None, panels=(), tried=()),
        # a crop turned by a quarter, at the same place
        face(6, heat=(0.0, 1.5, -1.5, 0.0, 168.0, 52.0)),
        face(7),
    ]


def data_of(faces: list[Face]) -> ReviewData:
    """A page's data."""
    return ReviewData("Review of the tests", FORMAT, RUN, DIGEST, COMMAND, CHOICES, faces)


def write_output(output: Path, faces: list[Face]) -> Path:
    """OUT/review/ with the page and the pictures of its faces; returns the page."""
    folder = output / "review"
    for one in faces:
        (folder / one.src).parent.mkdir(parents=True, exist_ok=True)
        (folder / one.src).write_bytes(tile_png())
        if one.more:
            (folder / one.more).write_bytes(more_png())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.html").write_text(review_document(data_of(faces)))
    return folder / "index.html"


def drawn(size: tuple[int, int], ground: str, ink: str) -> np.ndarray:
    """A face of circles and arcs: [H, W, 3] uint8 RGB."""
    w, h = size
    image = Image.new("RGB", size, ground)
    pen = ImageDraw.Draw(image)
    x, y, r = w / 2, h / 2, min(w, h) * 0.36
    pen.ellipse((x - r, y - r * 1.15, x + r, y + r * 1.15), outline=ink, width=max(1, w // 60))
    for side in (-1, 1):
        pen.ellipse(
            (x + side * r * 0.4 - 4, y - r * 0.35 - 4, x + side * r * 0.4 + 4, y - r * 0.35 + 4), fill=ink
        )
    pen.arc((x - r * 0.5, y, x + r * 0.5, y + r * 0.7), 20, 160, fill=ink, width=max(1, w // 60))
    return np.asarray(image)


@cache
def tile_png() -> bytes:
    """Before is blue, after is green: 480 × 200 pixels."""
    return png(np.hstack([drawn(TILE, "#3060c0", "#d0d8f0"), drawn(TILE, "#30a050", "#103018")]))


@cache
def more_png() -> bytes:
    """Four grounds and a spread that grows to the right: 320 × 64 pixels."""
    shown = [drawn((SIDE, SIDE), g, "#202020") for g in ("#b0b0b0", "#c0b090", "#a0c0a0", "#a0b0d0")]
    spread = np.repeat(np.linspace(0, 255, SIDE).astype(np.uint8)[None, :, None], SIDE, 0).repeat(3, 2)
    return png(np.hstack([*shown, spread]))


def png(pixels: np.ndarray) -> bytes:
    """[H, W, 3] uint8 RGB, encoded."""
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG")
    return encoded.getvalue()


@contextmanager
def served(output: str, host: str = "127.0.0.1") -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address of a server of that output, with its token, and its process, until the end of the block."""
    program = (
        "import sys\n"
        "from pipeline.review.server import serve\n"
        "serve(sys.argv[1], sys.argv[2], 0, lambda text: print(text, flush=True))"
    )
    command = [sys.executable, "-c", program, output, host]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as child:
        try:
            assert child.stdout and child.stderr
            line = child.stdout.readline()
            if line.startswith("warning"):
                line = child.stdout.readline()
            assert line.startswith("the review page is at "), line + child.stderr.read()
            yield line.removeprefix("the review page is at ").split(";")[0], child
        finally:
            child.kill()
