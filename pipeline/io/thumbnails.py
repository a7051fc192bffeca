"""Small pictures within a file's metadata: those that show what was edited get the change, too.

They are JPEGs, in EXIF, maker notes, Photoshop's resources or (as base64) XMP, further pictures that the index of a
JPEG calls large thumbnails, or the plain samples that JFIF and EXIF allow. A new one takes exactly the bytes of the old
one, so that all around it stays as it is.
"""

import base64
import io
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import get_sampling

from pipeline.io import jpeg_parts, png, riff
from pipeline.io.jpeg import Unmergeable, with_metadata_of
from pipeline.io.picture import UPRIGHT, Array, Picture, eight_bit
from pipeline.io.tiff import Tiff, is_tiff
from pipeline.io.tiff_colour import Colour
from pipeline.io.tiff_pages import HEIGHT, NONE, WIDTH, Page, read_page
from pipeline.io.tiff_segments import decode_segment, encode_segment

START = b"\xff\xd8\xff"
# In a multi-picture index: large thumbnails, of VGA and of full HD size.
LARGE_THUMBNAILS = frozenset({0x010001, 0x010002})
# Mean difference, in levels, of a small picture to the large one that it shows; and a change that nobody sees.
SHOWS, UNSEEN = 16, 1.5
# A larger one is a picture of its own.
MOST_SIDE = 4096
# How segments of JFIF begin whose thumbnails have 3 bytes a pixel, and a palette of 256 colours; where the size is.
JFIF, JFIF_COLOURS, JFIF_PALETTE = (b"JFIF\0", 16), (b"JFXX\0\x13", 10), (b"JFXX\0\x11", 10)
# Where EXIF begins in a chunk, in a segment, and in a chunk that begins as a segment does.
EXIF_AT = (8, 10, 14)
BASE64_IMAGE = re.compile(rb"<(?:\w+:)?image>((?:[A-Za-z0-9+/=\s]|&#x[aA];){100,})</")
LINE_BREAK = re.compile(rb"(&#x[aA];|\s+)")
# Factors of the quantisation steps that are tried until the new thumbnail is no longer than the old one.
COARSER = (1.0, 1.2, 1.5, 2.0, 3.0, 5.0, 8.0)


class Renewal(NamedTuple):
    """A block of a file, and what it becomes; both of one length."""

    old: bytes
    new: bytes


def renewals(picture: Picture, edited: Array) -> list[Renewal]:
    """The metadata blocks of a picture's file whose thumbnails an edit changes. edited: its stored samples."""
    found = []
    for block in _blocks(picture):
        body = renewed_block(block, picture, edited)
        if body != block:
            found.append(
                Renewal(block, png.made_chunk(body[4:8], body[8:-4]) if picture.format == "PNG" else body)
            )
    return found


def renewed_block(block: bytes, picture: Picture, edited: Array) -> bytes:
    """A block of metadata, of the same length, whose thumbnails show the edit. edited: the picture's stored samples."""
    new = bytearray(_renewed_page(_renewed_samples(block, picture, edited), picture, edited))
    for start, end in _jpegs(block):
        new[start:end] = _renewed(block[start:end], picture, edited)
    for match in BASE64_IMAGE.finditer(block):
        new[match.start(1) : match.end(1)] = _renewed_text(match[1], picture, edited)
    return bytes(new)


def _blocks(picture: Picture) -> Iterator[bytes]:
    """The blocks of a file that may hold thumbnails."""
    data = picture.source
    if picture.format == "JPEG":
        try:
            for marker, start, end in jpeg_parts.segments(data):
                # the parts of a long XMP packet are named after its digest
                if marker in jpeg_parts.METADATA and data[start + 4 : start + 38] != jpeg_parts.LONG_XMP:
                    yield data[start:end]
                if marker == jpeg_parts.START_OF_SCAN:
                    break
        except jpeg_parts.Damaged:
            return
        for start, end in jpeg_parts.further_pictures(data, LARGE_THUMBNAILS):
            yield data[start:end]
    elif picture.format == "PNG":
        yield from (chunk for name, chunk in png.png_chunks(data) if name in (b"eXIf", b"iTXt"))
    elif picture.format == "WEBP":
        yield from (chunk for name, chunk in riff.riff_chunks(data) if name in (b"EXIF", b"XMP "))


def _jpegs(block: bytes) -> Iterator[tuple[int, int]]:
    """Start and end of each JPEG within a block."""
    place = block.find(START)
    while place >= 0:
        end = jpeg_parts.picture_end(block[place:])
        if end is not None:
            yield place, place + end
        place = block.find(START, place + (end or 1))


def _renewed_samples(block: bytes, picture: Picture, edited: Array) -> bytes:
    """A segment of JFIF with the thumbnail that it has as plain samples; any other block as it is."""
    for begin, place in (JFIF, JFIF_COLOURS, JFIF_PALETTE):
        if block[:1] != b"\xff" or not block.startswith(begin, 4) or len(block) < place + 2:
            continue
        width, height = block[place : place + 2]
        samples = np.frombuffer(block, np.uint8, offset=place + 2)
        colours, table = 3, samples[:768].reshape(-1, 3)
        if begin == JFIF_PALETTE[0]:
            colours, samples = 1, samples[768:]
        if (
            not width * height
            or len(samples) != width * height * colours
            or (colours == 1 and len(table) < 256)
        ):
            return block
        samples = samples.reshape(height, width, colours)
        shown = (table[samples[..., 0]] if colours == 1 else samples).astype(np.float32)
        change = _change(shown, picture, edited)
        if change is None or np.abs(change).max() < UNSEEN:
            return block
        new = np.rint(shown + change).clip(0, 255)
        if colours == 1:
            where = change.any(axis=2)
            far = np.abs(new[where][:, None] - table).sum(axis=2)
            done = samples.copy()
            done[where, 0] = far.argmin(axis=1)
        else:
            done = new.astype(np.uint8)
        return block[: len(block) - done.size] + done.tobytes()
    return block


def _renewed_page(block: bytes, picture: Picture, edited: Array) -> bytes:
    """A block of EXIF with the thumbnail that it has as an uncompressed page; any other block as it is."""
    start = next((place for place in EXIF_AT if is_tiff(block[place:])), None)
    if start is None:
        return block
    new = bytearray(block)
    try:
        tiff = Tiff.of(block[start:])
        for directory in tiff.directories[1:]:
            if directory.below or not {WIDTH, HEIGHT} <= directory.tags.keys():
                continue
            page = read_page(tiff, directory)
            if page.compression != NONE or page.palette is not None:
                continue
            if page.width * page.height * page.samples > len(block):
                continue
            for place, part in _renewed_parts(page, picture, edited):
                new[start + place : start + place + len(part)] = part
    except MemoryError:
        raise
    except Exception:  # damaged EXIF, or samples of a kind that is not read
        return block
    return bytes(new)


def _renewed_parts(page: Page, picture: Picture, edited: Array) -> Iterator[tuple[int, bytes | bytearray]]:
    """Place and bytes of the strips of an uncompressed page, where they show the change of a picture."""
    colour, segments = Colour(page), list(page.segments())
    every = [decode_segment(page, segment) for segment in segments]
    shown = np.zeros((page.height, page.width, 3), np.float32)
    for segment, samples in zip(segments, every, strict=True):
        shown[segment.rows, segment.columns] = colour.to_rgb(samples)
    change = _change(shown, picture, edited)
    if change is None or np.abs(change).max() < UNSEEN:
        return
    for segment, samples in zip(segments, every, strict=True):
        new = samples.copy()
        colour.add(new, change[segment.rows, segment.columns])
        for number, coded, _ in encode_segment(page, segment, new, (new != samples).any(axis=2)):
            yield int(page.offsets[number]) + segment.skip, coded


def _renewed_text(text: bytes, picture: Picture, edited: Array) -> bytes:
    """A thumbnail in base64, its line breaks where they were."""
    parts = LINE_BREAK.split(text)
    joined = b"".join(parts[::2])
    try:
        old = base64.b64decode(joined, validate=True)
    except ValueError:
        return text
    new, place, lines = base64.b64encode(_renewed(old, picture, edited)), 0, []
    for line in parts[::2]:
        lines.append(new[place : place + len(line)])
        place += len(line)
    done = b"".join(b for pair in zip(lines, [*parts[1::2], b""], strict=True) for b in pair)
    return done if len(done) == len(text) else text


def _renewed(old: bytes, picture: Picture, edited: Array) -> bytes:
    """A thumbnail's JPEG with the change of its picture, of the same length; the old one where it shows no change."""
    try:
        with Image.open(io.BytesIO(old), formats=["JPEG"]) as image:
            if max(image.size) > MOST_SIDE or image.mode not in ("RGB", "L"):
                return old
            shown = np.asarray(image.convert("RGB")).astype(np.float32)
            sampling = max(get_sampling(image), 0)
            tables, mode = {k: list(t) for k, t in image.quantization.items()}, image.mode  # type: ignore[attr-defined]
    except Exception:  # bytes that only looked like a JPEG
        return old
    change = _change(shown, picture, edited)
    if change is None or np.abs(change).max() < UNSEEN:
        return old
    new = Image.fromarray(np.rint(shown + change).clip(0, 255).astype(np.uint8)).convert(mode)
    for factor in COARSER:
        steps = {k: [min(round(s * factor), 255) for s in table] for k, table in tables.items()}
        buffer = io.BytesIO()
        new.save(buffer, "JPEG", qtables=steps, subsampling=sampling, optimize=True)
        data = buffer.getvalue()
        try:
            data = with_metadata_of(old, data)
        except Unmergeable:
            return old
        if len(data) <= len(old):
            return data.ljust(len(old), b"\0")
    return old


def _change(shown: NDArray[np.float32], picture: Picture, edited: Array) -> NDArray[np.float32] | None:
    """[h, w, 3] float32, the change of the picture as a thumbnail shows it; None where it shows another picture."""
    height, width = shown.shape[:2]
    for turn in (UPRIGHT[1][0], UPRIGHT[picture.orientation][0]):
        rows, columns = turn(picture.stored[..., :1] if picture.stored.ndim == 3 else picture.stored).shape[
            :2
        ]
        scale = min(height / rows, width / columns)
        fitted = (max(round(rows * scale), 1), max(round(columns * scale), 1))
        # filling the thumbnail, or in its middle between bars
        for size in {fitted, (height, width)}:
            top, left = (height - size[0]) // 2, (width - size[1]) // 2
            part = (slice(top, top + size[0]), slice(left, left + size[1]))
            before = _small(picture, picture.stored, turn, size)
            if np.abs(shown[part] - before).mean() < SHOWS:
                change = np.zeros_like(shown)
                change[part] = _small(picture, edited, turn, size) - before
                return change
    return None


def _small(
    picture: Picture, samples: Array, turn: Callable[[Array], Array], size: tuple[int, int]
) -> NDArray[np.float32]:
    """[*size, 3] float32 levels of sRGB of stored samples, turned by `turn`."""
    turned = turn(np.zeros((2, 3))).shape[:2] == (3, 2)
    height, width = size[::-1] if turned else size
    few = cv2.resize(np.ascontiguousarray(samples), (width, height), interpolation=cv2.INTER_AREA)
    colours = eight_bit(few) if picture.profile is None else picture.profile.to_srgb(few)
    if colours.ndim == 2:
        colours = np.repeat(colours[..., None], 3, axis=2)
    done: NDArray[np.float32] = turn(colours).astype(np.float32)
    return done
