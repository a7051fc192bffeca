"""Small photographs for the tests, from public-domain pictures that scikit-image carries, in many kinds of file."""

import io
import os
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

# Eileen Collins' head in the official NASA portrait: left, top, right, bottom
HEAD = (120, 0, 340, 240)
# EXIF orientation 6: stored lying on its left side
ORIENTATION, TURNED = 0x0112, 6
# a name in Latin-1, as old archives hold it: no UTF-8
LATIN_1 = os.fsdecode(b"caf\xe9.jpg")

# What becomes of every picture of `mixed()`: outcome, and reason of a failure
OUTCOMES = {
    "portrait.jpg": ("restored", ""),
    "my holiday/été 写真.png": ("restored", ""),
    "with alpha.png": ("restored", ""),
    "grey.png": ("restored", ""),
    "turned.jpg": ("restored", ""),
    LATIN_1: ("restored", ""),
    "cat.png": ("no_face", ""),
    "broken/empty.jpg": ("failed", "empty"),
    "broken/cut off.jpg": ("failed", "truncated"),
    "broken/letter.jpg": ("failed", "not an image"),
}


def portrait(width: int = 100, height: int = 110) -> Image.Image:
    """One face, a little above 64 pixels of crop, so that the small presets restore it."""
    return Image.fromarray(data.astronaut()).crop(HEAD).resize((width, height), Image.Resampling.LANCZOS)


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    """The picture as the bytes of a file."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def portraits(count: int) -> dict[str, bytes]:
    """So many different files, each with one face."""
    return {
        f"p{i:02d}.png": encoded(portrait(100 + 2 * i % 16, 110 + 3 * i % 16), "PNG") for i in range(count)
    }


def mixed() -> dict[str, bytes]:
    """What a real archive holds: name → bytes. What becomes of each says OUTCOMES."""
    face = portrait()
    alpha = Image.linear_gradient("L").resize(face.size)
    exif = Image.Exif()
    exif[ORIENTATION] = TURNED
    exif[0x010E] = "a portrait that was turned"
    cat = Image.fromarray(data.chelsea()).resize((150, 100))
    return {
        "portrait.jpg": encoded(face, "JPEG", quality=90),
        "my holiday/été 写真.png": encoded(portrait(108, 118), "PNG"),
        "with alpha.png": encoded(Image.merge("RGBA", (*face.split(), alpha)), "PNG"),
        "grey.png": encoded(face.convert("L"), "PNG"),
        "turned.jpg": encoded(face.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=92, exif=exif),
        LATIN_1: encoded(portrait(104, 112), "JPEG", quality=90),
        "cat.png": encoded(cat, "PNG"),
        "broken/empty.jpg": b"",
        "broken/cut off.jpg": encoded(face, "JPEG", quality=90)[:900],
        "broken/letter.jpg": b"Dear Sir or Madam,\n\nplease find enclosed no picture.\n",
    }


def write_folder(folder: Path, files: Mapping[str, bytes]) -> Path:
    """The files below `folder`."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    """A tar shard of the members, in their order, with times and rights that are not the default."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.mode = len(content), 1_234_567_890, 0o640
            tar.addfile(info, io.BytesIO(content))
    return path


def read_folder(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`: relative name → bytes."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def pixels(content: bytes) -> np.ndarray:
    """Stored samples of a picture file: [H, W] or [H, W, C], not turned."""
    return np.asarray(Image.open(io.BytesIO(content)))
