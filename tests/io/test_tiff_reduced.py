"""Smaller versions of a TIFF's picture show the edit, in their own coding; pages of other pictures stay."""

import io

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage import data as pictures

from pipeline.faces.canvas import Canvas
from pipeline.io.images import decode, encode, enlarged

COLOUR = np.ascontiguousarray(pictures.astronaut()[:240, 100:420])
HEIGHT, WIDTH = COLOUR.shape[:2]
# rows and columns that are edited, and their colour
BOX, VALUE = (slice(80, 160), slice(100, 200)), (20, 200, 60)
OTHER = np.ascontiguousarray(pictures.chelsea()[:HEIGHT, :WIDTH])


def shrunk(samples, times):
    return cv2.resize(samples, (WIDTH // times, HEIGHT // times), interpolation=cv2.INTER_AREA)


def tiff(*pages, **options):
    """A TIFF of a picture and pages: samples and options of each."""
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, **options) as file:
        for samples, more in pages:
            how = {"photometric": "rgb" if samples.ndim == 3 else "minisblack"}
            file.write(samples, metadata=None, **how | more)
    return buffer.getvalue()


def edited(data, box=BOX):
    picture = decode(data)
    rgb = picture.rgb.astype(np.float32)
    rgb[box] = VALUE
    done = encode(picture, rgb)
    assert done == encode(picture, rgb) and done.suffix == ""
    return done.data, done.recoded


def page_of(data, number):
    """Samples of a page, and the bytes of each of its strips or tiles."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = [p for top in file.pages for p in (top, *(top.pages or ()))][number]
        coded = [data[o : o + n] for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)]
        return page.asarray(), coded


def inside(times, margin=2):
    """Rows and columns of a smaller version that the edit fills."""
    return tuple(slice(s.start // times + margin, s.stop // times - margin) for s in BOX)


def outside(times, margin=1):
    """Pixels of a smaller version that the edit does not reach."""
    left = np.ones((HEIGHT // times, WIDTH // times), bool)
    rows, columns = inside(times, -margin)
    left[rows, columns] = False
    return left


PICTURE = (COLOUR, {"compression": "zlib", "rowsperstrip": 16})
REDUCED = {"subfiletype": 1}
VERSIONS = {
    "plain": (shrunk(COLOUR, 4), REDUCED),
    "without a flag": (shrunk(COLOUR, 4), {}),
    "Deflate, predictor": (shrunk(COLOUR, 4), REDUCED | {"compression": "zlib", "predictor": True, "rowsperstrip": 8}),
    "LZW, tiles": (shrunk(COLOUR, 2), REDUCED | {"compression": "lzw", "tile": (16, 16)}),
    "16 bits, planes": (
        np.moveaxis(shrunk(COLOUR, 4).astype(np.uint16) * 257, 2, 0), REDUCED | {"planarconfig": "separate"},
    ),
    "grey": (shrunk(COLOUR, 4).mean(axis=2).astype(np.uint8), REDUCED),
    "white is zero": (
        255 - shrunk(COLOUR, 4).mean(axis=2).astype(np.uint8), REDUCED | {"photometric": "miniswhite"},
    ),
    "with alpha": (
        np.dstack([shrunk(COLOUR, 4), np.full((HEIGHT // 4, WIDTH // 4), 200, np.uint8)]),
        REDUCED | {"extrasamples": ["unassalpha"]},
    ),
    "every fourth pixel": (COLOUR[::4, ::4].copy(), REDUCED),
}  # fmt: skip


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", VERSIONS)
def test_a_smaller_version_gets_the_edit_in_its_own_coding_and_no_other_pixel_changes(kind, order):
    samples, options = VERSIONS[kind]
    data = tiff(PICTURE, (samples, options), byteorder=order, bigtiff=order == ">")
    done, recoded = edited(data)
    (old, old_parts), (new, new_parts) = page_of(data, 1), page_of(done, 1)
    if "planes" in kind:
        old, new = np.moveaxis(old, 0, 2), np.moveaxis(new, 0, 2)
    times = HEIGHT // len(old)
    assert recoded is None and (old[outside(times)] == new[outside(times)]).all()
    wanted, levels = np.array(VALUE), new[inside(times)].astype(float) / (257 if "16" in kind else 1)
    if old.ndim == 2:
        grey = wanted @ (0.299, 0.587, 0.114)
        wanted = 255 - grey if kind == "white is zero" else grey
    assert np.abs(levels[..., :3] - wanted).mean() < (25 if kind == "every fourth pixel" else 6)
    if "alpha" in kind:
        assert (new[..., 3] == 200).all()
    same = sum(a == b for a, b in zip(old_parts, new_parts, strict=True))
    assert same >= (len(old_parts) // 3 if len(old_parts) > 3 else 0)


def test_tiles_of_jpeg_keep_the_blocks_that_the_edit_does_not_reach():
    level = (shrunk(COLOUR, 2), REDUCED | {"compression": "jpeg", "tile": (32, 32), "subsampling": (2, 2)})
    data = tiff((COLOUR, {"subifds": 1, "tile": (64, 64), "compression": "jpeg"}), level)
    done, recoded = edited(data)
    (old, old_parts), (new, new_parts) = page_of(data, 1), page_of(done, 1)
    assert recoded is None and np.abs(new[inside(2, 9)].astype(int) - VALUE).mean() < 6
    assert (old[outside(2, 16)] == new[outside(2, 16)]).all()
    assert sum(a == b for a, b in zip(old_parts, new_parts, strict=True)) >= 8


OTHERS = {
    "another picture": (shrunk(OTHER, 4), {}),
    "another picture's thumbnail": (shrunk(OTHER, 4), REDUCED),
    "turned about": (shrunk(np.ascontiguousarray(COLOUR[::-1, ::-1]), 4), {}),
    "a part": (shrunk(np.ascontiguousarray(COLOUR[60:, 80:]), 4), {}),
    "a negative": (255 - shrunk(COLOUR, 4), {}),
    "of the same size": (COLOUR.copy(), {}),
    "of another shape": (shrunk(COLOUR, 4)[:40].copy(), REDUCED),
    "a mask": (
        shrunk(COLOUR, 4)[..., 1] > 99,
        {"subfiletype": 5, "photometric": "mask", "compression": None},
    ),
}


def with_another_face():
    changed = shrunk(COLOUR, 4)
    changed[20:40, 25:50] = shrunk(OTHER, 4)[20:40, 25:50]
    return changed, REDUCED


@pytest.mark.parametrize("kind", [*OTHERS, "another face"])
def test_a_page_of_another_picture_stays_byte_for_byte(kind):
    samples, options = OTHERS.get(kind) or with_another_face()
    data = tiff(PICTURE, (samples, {"compression": "lzw"} | options))
    done, recoded = edited(data)
    assert recoded is None and page_of(done, 1)[1] == page_of(data, 1)[1]
    assert (page_of(done, 0)[0][BOX] == VALUE).all()


@pytest.mark.parametrize("is_upright", [True, False])
def test_the_thumbnail_of_a_turned_picture_is_made_anew_as_it_lies(is_upright):
    small = shrunk(COLOUR, 4)
    thumbnail = np.ascontiguousarray(np.rot90(small, -1)) if is_upright else small
    turned = (COLOUR, {"extratags": [(274, "H", 1, 6, True)]})
    data = tiff(turned, (thumbnail, REDUCED))
    picture = decode(data)
    done, _ = edited(data, picture.upright_box(*BOX))
    new = page_of(done, 1)[0]
    new = np.rot90(new) if is_upright else new
    assert np.abs(new[inside(4)].astype(int) - VALUE).mean() < 6
    assert (new[outside(4)] == small[outside(4)]).all()


def test_a_version_that_can_not_be_made_anew_stays_and_the_record_says_so():
    few = (shrunk(COLOUR, 4)[..., 1] > 90, REDUCED)
    whole = tiff(PICTURE, few)
    done, recoded = edited(whole)
    assert recoded.startswith("its smaller version of 80x60 pixels stays as it was: ")
    assert page_of(done, 1)[1] == page_of(whole, 1)[1]
    colours = Image.fromarray(shrunk(COLOUR, 4)).quantize(250)
    table = np.array(colours.getpalette()).reshape(-1, 3).T.astype(np.uint16) * 257
    table = np.pad(table, ((0, 0), (0, 256 - table.shape[1])))
    indexed = tiff(PICTURE, (np.asarray(colours), REDUCED | {"photometric": "palette", "colormap": table}))
    assert edited(indexed)[1].endswith("it has a palette")


def old_style_thumbnail(small, quality=90):
    """A TIFF with a second page as EXIF has it, and where its JPEG lies."""
    buffer = io.BytesIO()
    Image.fromarray(small).save(buffer, "JPEG", quality=quality)
    coded = buffer.getvalue()
    tags = [(513, "I", 1, 8, True), (514, "I", 1, len(coded), True)]
    data = tiff(PICTURE, (np.zeros((8, 8), np.uint8), REDUCED | {"extratags": tags}))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        tag, place = file.pages[1].tags[513], len(data)
    data = data[: tag.valueoffset] + place.to_bytes(4, "little") + data[tag.valueoffset + 4 :]
    return data + coded, slice(place, place + len(coded))


def test_an_old_style_jpeg_of_a_page_is_made_anew_in_its_bytes():
    data, place = old_style_thumbnail(shrunk(COLOUR, 2))
    done, recoded = edited(data)
    new = np.asarray(Image.open(io.BytesIO(done[place])))
    assert recoded is None and np.abs(new[inside(2, 4)].astype(int) - VALUE).mean() < 8
    other, place = old_style_thumbnail(shrunk(OTHER, 2))
    assert edited(other)[0][place] == other[place]


def test_thumbnails_of_a_palette_and_of_an_enlarged_picture_are_made_anew():
    colours = Image.fromarray(COLOUR).quantize(250)
    table = np.array(colours.getpalette() + [0] * 768)[:768].reshape(-1, 3).T.astype(np.uint16) * 257
    indexed = (np.asarray(colours), {"photometric": "palette", "colormap": table})
    done, recoded = edited(tiff(indexed, VERSIONS["plain"]))
    assert recoded is None and np.abs(page_of(done, 1)[0][inside(4)].astype(int) - VALUE).mean() < 6
    large = enlarged(decode(tiff(PICTURE, VERSIONS["plain"])), 2)
    rgb = large.rgb.astype(np.float32)
    rgb[160:320, 200:400] = VALUE
    done, recoded, _ = encode(large, rgb)
    assert recoded is None and np.abs(page_of(done, 1)[0][inside(4)].astype(int) - VALUE).mean() < 6
    assert (page_of(done, 1)[0][outside(4)] == shrunk(COLOUR, 4)[outside(4)]).all()


def test_an_edit_held_in_parts_gives_the_bytes_of_one_held_whole():
    picture = decode(tiff(PICTURE, *(VERSIONS[k] for k in ("plain", "LZW, tiles"))))
    rgb = picture.rgb.astype(np.float32)
    rgb[BOX] = VALUE
    parts = Canvas(picture.rgb, [BOX])
    parts[BOX][:] = VALUE
    assert encode(picture, parts) == encode(picture, rgb)
