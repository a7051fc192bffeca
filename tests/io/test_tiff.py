"""An edited TIFF is the file it was but for the samples that were edited, whatever its kind."""

import io
import json
import subprocess

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps
from skimage import data as pictures

from pipeline.faces.canvas import Canvas
from pipeline.io.icc import rgb_profile
from pipeline.io.images import ImageError, SkippedImage, decode, encode, enlarged
from pipeline.io.tiff import Tiff

COLOUR = np.ascontiguousarray(pictures.astronaut()[:120, 150:310])
HEIGHT, WIDTH = COLOUR.shape[:2]
GREY = COLOUR.mean(axis=2).astype(np.uint8)
ALPHA = np.linspace(1, 255, GREY.size).reshape(GREY.shape).astype(np.uint8)
CMYK = np.asarray(Image.fromarray(COLOUR).convert("CMYK")).copy()
CMYK[..., 3] = 20
# rows and columns that are edited, and that every reader may find changed
ROWS, COLUMNS = slice(40, 60), slice(30, 70)
EDITED = np.zeros((HEIGHT, WIDTH), bool)
EDITED[ROWS, COLUMNS] = True
PROPHOTO = rgb_profile((0.3457, 0.3585), (0.7347, 0.2653, 0.1596, 0.8404, 0.0366, 0.0001), 1.8)


def deep(samples):
    """uint8 → uint16 with low bits of their own."""
    return (samples.astype(np.uint16) * 257) ^ np.uint16(37)


def tiff(samples, big=False, order="<", **options):
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, bigtiff=big, byteorder=order) as file:
        file.write(samples, metadata=None, **options)
    return buffer.getvalue()


def from_pillow(samples, **options):
    buffer = io.BytesIO()
    Image.fromarray(samples).save(buffer, "TIFF", **options)
    return buffer.getvalue()


def edited(data, value=(90.0, 140.0, 40.0)):
    """The file with a box of one colour, and why it was coded again."""
    picture = decode(data)
    rgb = picture.rgb.astype(np.float32)
    box = picture.upright_box(ROWS, COLUMNS)
    rgb[box] = value
    first, second = encode(picture, rgb), encode(picture, rgb)
    assert first == second
    return first[:2]


def page_of(data, number=0):
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        return file.pages[number].asarray()


RGB16, RGBA16 = deep(COLOUR), deep(np.dstack([COLOUR, ALPHA]))
TILED = {"tile": (48, 64)}
KINDS = {
    "16-bit rgb": tiff(RGB16, photometric="rgb", rowsperstrip=16),
    "16-bit rgb in one strip": tiff(RGB16, photometric="rgb"),
    "16-bit rgb, big-endian": tiff(
        RGB16, order=">", photometric="rgb", rowsperstrip=16, compression="lzw", predictor=True
    ),
    "16-bit rgb, BigTIFF": tiff(RGB16, big=True, photometric="rgb", rowsperstrip=16, compression="zlib"),
    "16-bit rgb, BigTIFF, big-endian, tiled": tiff(RGB16, True, ">", photometric="rgb", compression="zstd", **TILED),
    "16-bit rgb, planar": tiff(np.moveaxis(RGB16, 2, 0), photometric="rgb", planarconfig="separate", rowsperstrip=32),
    "16-bit rgb, planar, tiled, Deflate": tiff(
        np.moveaxis(RGB16, 2, 0), photometric="rgb", planarconfig="separate", compression="zlib", predictor=True,
        **TILED,
    ),
    "16-bit rgba": tiff(RGBA16, photometric="rgb", extrasamples=["unassalpha"], compression="lzw", rowsperstrip=16),
    "16-bit rgb with infrared": tiff(RGBA16, photometric="rgb", extrasamples=["unspecified"], compression="zlib"),
    "16-bit rgb with two more": tiff(
        np.dstack([RGBA16, RGBA16[..., :1]]), photometric="rgb", extrasamples=["unspecified", "unassalpha"]
    ),
    "8-bit rgba, premultiplied": tiff(
        np.dstack([COLOUR // 2, np.full_like(GREY, 128)]), photometric="rgb", extrasamples=["assocalpha"]
    ),
    "16-bit grey": tiff(deep(GREY), photometric="minisblack", compression="packbits", rowsperstrip=16),
    "16-bit grey, white is zero": tiff(deep(GREY), photometric="miniswhite", rowsperstrip=16),
    "16-bit grey with alpha": tiff(
        deep(np.dstack([GREY, ALPHA])), photometric="minisblack", extrasamples=["unassalpha"], planarconfig="contig"
    ),
    "8-bit grey, white is zero": tiff(GREY, photometric="miniswhite", compression="lzma", rowsperstrip=16),
    "16-bit cmyk": tiff(deep(CMYK), photometric="separated", compression="zlib", predictor=True, rowsperstrip=16),
    "8-bit cmyk, tiled": tiff(CMYK, photometric="separated", compression="lzw", **TILED),
    "8-bit cmyk with alpha": tiff(
        np.dstack([CMYK, ALPHA]), photometric="separated", extrasamples=["unassalpha"], planarconfig="contig"
    ),
    "8-bit rgb": tiff(COLOUR, photometric="rgb", compression="zlib", rowsperstrip=16),
    "8-bit rgb of libtiff": from_pillow(COLOUR, compression="tiff_lzw"),
    "8-bit rgb of libtiff, Deflate": from_pillow(
        COLOUR, compression="tiff_adobe_deflate", tiffinfo={317: 2}
    ),
    "8-bit rgb of libtiff, PackBits": from_pillow(COLOUR, compression="packbits"),
    "16-bit grey of libtiff": from_pillow(deep(GREY), compression="tiff_lzw"),
    "with a profile": tiff(
        RGB16 // 2 + 12000, photometric="rgb", compression="zlib", rowsperstrip=16, iccprofile=PROPHOTO
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_an_edit_changes_its_own_samples_and_no_other_ones_at_their_depth(kind):
    data = KINDS[kind]
    after, recoded = edited(data)
    old, new = page_of(data), page_of(after)
    if old.shape[0] in (3, 4):
        old, new = np.moveaxis(old, 0, 2), np.moveaxis(new, 0, 2)
    assert recoded is None and new.dtype == old.dtype and new.shape == old.shape
    old, new = old.reshape(HEIGHT, WIDTH, -1), new.reshape(HEIGHT, WIDTH, -1)
    assert (old[~EDITED] == new[~EDITED]).all()
    assert (old[EDITED] != new[EDITED]).any(axis=1).mean() > 0.9
    grey = 0.299 * 90 + 0.587 * 140 + 0.114 * 40
    seen = decode(after).rgb[EDITED].astype(int)
    if "grey" in kind:
        old_grey = decode(data).rgb[EDITED].astype(int)
        assert np.abs(seen - grey).max() <= 2, (seen[:3], old_grey[:3])
    else:
        assert np.abs(seen - (90, 140, 40)).max() <= (3 if "premultiplied" in kind else 2)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_edited_leaves_the_very_bytes(kind):
    picture = decode(KINDS[kind])
    assert encode(picture, picture.rgb.astype(np.float32)) == (KINDS[kind], None, "")


# Of strips and of tiles: places and sizes.
PLACES = (273, 279, 324, 325)


def tag_bytes(data):
    """Type, count and bytes of every tag of every page, but for places and sizes of strips and tiles."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        return [
            {
                t.code: (t.dtype, t.count, data[t.valueoffset :][: t.valuebytecount])
                for t in p.tags
                if t.code not in PLACES
            }
            for top in file.pages
            for p in (top, *(top.pages or ()))
        ]


@pytest.mark.parametrize("kind", KINDS)
def test_every_tag_stays_byte_for_byte(kind):
    assert tag_bytes(edited(KINDS[kind])[0]) == tag_bytes(KINDS[kind])


@pytest.mark.parametrize("kind", [k for k in KINDS if "16-bit rgb" in k and "infrared" not in k])
def test_strips_and_tiles_without_an_edited_pixel_keep_their_bytes_and_the_file_grows_little(kind):
    after = edited(KINDS[kind])[0]
    with tifffile.TiffFile(io.BytesIO(KINDS[kind])) as old, tifffile.TiffFile(io.BytesIO(after)) as new:
        first, second = old.pages[0], new.pages[0]
        same = 0
        places = zip(
            first.dataoffsets, first.databytecounts, second.dataoffsets, second.databytecounts, strict=True
        )
        for place, size, new_place, new_size in places:
            before = KINDS[kind][place : place + size]
            same += before == after[new_place : new_place + new_size]
    assert same >= (len(first.dataoffsets) // 3 if len(first.dataoffsets) > 3 else 0)
    assert len(after) < 1.35 * len(KINDS[kind])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("tiled", [True, False])
def test_a_turned_page_is_edited_upright_and_stays_turned(orientation, tiled):
    where = TILED if tiled else {"rowsperstrip": 16}
    data = tiff(
        RGB16, photometric="rgb", compression="zlib", extratags=[(274, "H", 1, orientation, True)], **where
    )
    picture = decode(data)
    exif = Image.Exif()
    exif[274] = orientation
    turned = Image.fromarray(((RGB16.astype(int) + 128) // 257).astype(np.uint8))
    turned.info["exif"] = exif.tobytes()
    assert (picture.rgb == np.asarray(ImageOps.exif_transpose(turned))).all()
    rgb = picture.rgb.astype(np.float32)
    rgb[5:15, 20:40] = (250, 0, 0)
    after = encode(picture, rgb).data
    assert (decode(after).rgb == rgb).all() and decode(after).orientation == orientation
    assert ((page_of(after) != RGB16).any(axis=2).sum()) == 200


def jpegs(samples, photometric="rgb", colours=None, **options):
    how = {"level": 85} | ({} if colours is None else {"outcolorspace": colours})
    return tiff(samples, compression="jpeg", compressionargs=how, photometric=photometric, **options)


JPEGS = {
    "tiles": jpegs(COLOUR, tile=(64, 64), subsampling=(2, 2)),
    "whole chroma": jpegs(COLOUR, tile=(64, 64), subsampling=(1, 1)),
    "rgb": jpegs(COLOUR, colours="rgb", rowsperstrip=32),
    "grey": jpegs(GREY, "minisblack", rowsperstrip=32),
    "tables of the page": from_pillow(COLOUR, compression="jpeg", quality=85),
}


@pytest.mark.parametrize("kind", JPEGS)
def test_of_jpeg_in_a_tiff_untouched_blocks_decode_to_the_same_values(kind):
    data = JPEGS[kind]
    after, recoded = edited(data)
    old, new = (np.asarray(Image.open(io.BytesIO(d)).convert("RGB")).astype(int) for d in (data, after))
    far = np.ones((HEIGHT, WIDTH), bool)
    far[16:84, 8:92] = False
    assert recoded is None and (old[far] == new[far]).all()
    middle = new[45:55, 40:60].mean(axis=(0, 1))
    wanted = [0.299 * 90 + 0.587 * 140 + 0.114 * 40] * 3 if kind == "grey" else (90, 140, 40)
    assert np.abs(middle - wanted).max() < 4
    assert tag_bytes(after) == tag_bytes(data)
    assert np.abs(page_of(after).astype(int) - page_of(data).astype(int))[far].max() == 0


SMALL = COLOUR[::4, ::4].copy()


def with_pages(*pages, **options):
    """A TIFF of pages: samples and options of each; SubIFDs follow their page."""
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, **options) as file:
        for samples, more in pages:
            file.write(samples, metadata=None, **{"photometric": "rgb", **more})
    return buffer.getvalue()


PICTURE = (RGB16, {"compression": "zlib", "rowsperstrip": 16})
PAGES = {
    "a thumbnail behind": (with_pages(PICTURE, (SMALL, {"subfiletype": 1})), 0),
    "a thumbnail before": (with_pages((SMALL, {"subfiletype": 1}), PICTURE), 1),
    "a thumbnail that does not say so": (with_pages((SMALL, {}), PICTURE), 1),
    "a pyramid below": (
        with_pages(
            (RGB16, {"subifds": 2, "tile": (48, 64), "compression": "lzw"}),
            (RGB16[::2, ::2].copy(), {"subfiletype": 1, "tile": (48, 64)}),
            (RGB16[::4, ::4].copy(), {"subfiletype": 1}),
        ), 0,
    ),
    "a pyramid of pages": (with_pages(PICTURE, *[(RGB16[::n, ::n].copy(), {"subfiletype": 1}) for n in (2, 4)]), 0),
    "a mask of the same size": (
        with_pages(PICTURE, (GREY > 99, {"subfiletype": 4, "photometric": "mask"})), 0
    ),
    "a back of the same size": (with_pages(PICTURE, (COLOUR[::-1].copy(), {"compression": "lzw"})), 0),
    "BigTIFF": (with_pages((SMALL, {"subfiletype": 1}), PICTURE, (SMALL, {}), bigtiff=True, byteorder=">"), 1),
}  # fmt: skip


def all_pages(data):
    """Every page of the chain, and every one below it."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        return [p.asarray() for top in file.pages for p in (top, *(top.pages or ()))]


@pytest.mark.parametrize("kind", PAGES)
def test_the_page_with_the_picture_is_edited_and_other_pictures_stay(kind):
    data, number = PAGES[kind]
    after, recoded = edited(data)
    assert recoded is None and decode(data).rgb.shape == COLOUR.shape
    old, new = all_pages(data), all_pages(after)
    assert (old[number][~EDITED] == new[number][~EDITED]).all()
    for i, (before, page) in enumerate(zip(old, new, strict=True)):
        is_smaller = len(page) < HEIGHT
        assert np.array_equal(before, page) == (i != number and not is_smaller), i
    assert tag_bytes(after) == tag_bytes(data)


def everything(data, folder):
    """What exiftool finds in a TIFF, but for where it lies and how long it is."""
    (folder / "a.tif").write_bytes(data)
    done = subprocess.run(
        ["exiftool", "-j", "-a", "-u", "-G1", "-b", folder / "a.tif"], capture_output=True, check=True
    )
    (found,) = json.loads(done.stdout)
    left = ("Strip", "Tile", "Thumbnail", "Preview")
    return {
        k: v
        for k, v in found.items()
        if ":" in k and not k.startswith(("System:", "File:")) and not any(n in k for n in left)
    }


def with_exif():
    """A TIFF of libtiff with EXIF and GPS directories."""
    exif = {0x829A: (1, 60), 0x9003: "1999:12:31 10:11:12", 0x927C: b"maker" * 9}
    gps = {1: "N", 2: (48.0, 8.0, 3.5)}
    return from_pillow(COLOUR, tiffinfo={271: "Epson", 34665: exif, 34853: gps})


def test_directories_of_exif_and_gps_stay(tmp_path):
    data = with_exif()
    after, _ = edited(data)
    assert tag_bytes(after) == tag_bytes(data)
    found = everything(after, tmp_path)
    assert found == everything(data, tmp_path)
    assert found["ExifIFD:DateTimeOriginal"] == "1999:12:31 10:11:12" and found["GPS:GPSLatitude"].startswith(
        "48 deg"
    )


IPTC = b"\x1c\x02P\0\x0aMuseum Xyz\0"


def test_a_file_of_every_kind_of_tag_keeps_them_all(tmp_path):
    texts = "Großmutter, Café"
    tags = [
        (270, 2, 0, texts.encode() + b"\0", True),
        (315, 2, 0, texts.encode("latin-1") + b"\0", True),
        (700, 1, 0, b"<x:xmpmeta xmlns:x='adobe:ns:meta/'></x:xmpmeta>", True),
        # which some programs write as whole numbers
        (33723, "I", len(IPTC) // 4, tuple(np.frombuffer(IPTC, "<u4").tolist()), True),
        (34377, 1, 0, b"8BIM\x04\x04\0\0\0\0\0\x04abcd", True),
        (297, "H", 2, (3, 7), True),
        (65000, "d", 3, (0.5, np.pi, -1.0), True),
        (65001, 7, 0, bytes(range(256)) * 9, True),
        (65002, "q", 1, 1 << 40, True),
    ]
    data = tiff(
        RGB16, True, photometric="rgb", compression="lzw", rowsperstrip=16, resolution=(300, 300.5),
        resolutionunit=3, extratags=tags, iccprofile=PROPHOTO, software="scan", datetime="2001:02:03 04:05:06",
    )  # fmt: skip
    after, _ = edited(data)
    assert tag_bytes(after) == tag_bytes(data) and len(tag_bytes(data)[0]) >= 23
    found = everything(after, tmp_path)
    assert found == everything(data, tmp_path) and found["IPTC:By-line"] == "Museum Xyz"


def test_a_palette_becomes_rgb_of_its_own_colours_and_all_else_stays():
    image = Image.fromarray(COLOUR).quantize(200)
    buffer = io.BytesIO()
    image.save(buffer, "TIFF", compression="tiff_lzw", tiffinfo={315: "Somebody", 270: "x" * 90})
    after, recoded = edited(buffer.getvalue())
    old, new = np.asarray(image.convert("RGB")), page_of(after)
    assert recoded is None and (new[~EDITED] == old[~EDITED]).all() and (new[EDITED] == (90, 140, 40)).all()
    before, behind = tag_bytes(buffer.getvalue())[0], tag_bytes(after)[0]
    assert before.keys() - behind.keys() == {320}
    assert {c for c in behind if behind[c] != before.get(c)} == {258, 262, 277, 278, 284} - {
        c for c in (278, 284) if behind[c] == before.get(c)
    }
    assert decode(after).rgb.shape == COLOUR.shape


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_indices_of_few_bits_are_read_as_another_reader_does(bits):
    indices = (GREY >> (8 - bits)).astype(np.uint8)
    row = np.unpackbits(indices[..., None], axis=2)[..., 8 - bits :].reshape(HEIGHT, -1)
    colours = np.random.default_rng(0).integers(0, 256, (3, 1 << bits)) * 257
    entries = [(256, 4, 1, WIDTH), (257, 4, 1, HEIGHT), (258, 3, 1, bits), (259, 3, 1, 1), (262, 3, 1, 3)]
    entries += [(273, 4, 1, 400 + 6 * (1 << bits)), (277, 3, 1, 1), (278, 4, 1, HEIGHT)]
    entries += [(279, 4, 1, row.size // 8), (320, 3, 3 << bits, 400)]
    head = b"II*\0\x08\0\0\0" + len(entries).to_bytes(2, "little")
    head += b"".join(
        np.array([c, t], "<u2").tobytes() + np.array([n, v], "<u4").tobytes() for c, t, n, v in entries
    )
    data = head.ljust(400, b"\0") + colours.astype("<u2").tobytes() + np.packbits(row, axis=1).tobytes()
    wanted = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert (decode(data).rgb == wanted).all()
    assert (page_of(edited(data)[0])[~EDITED] == wanted[~EDITED]).all()


def test_the_samples_of_premultiplied_colours_stay_premultiplied():
    data = KINDS["8-bit rgba, premultiplied"]
    new = page_of(edited(data)[0])
    assert np.abs(new[EDITED][:, :3].astype(int) - (45, 70, 20)).max() <= 1 and (new[..., 3] == 128).all()


def test_a_profile_of_another_space_is_heeded():
    data = KINDS["with a profile"]
    picture = decode(data)
    assert np.abs(picture.rgb.astype(int) - (RGB16 // 2 + 12000) // 257).mean() > 4
    assert page_of(edited(data)[0])[ROWS, COLUMNS].std(axis=(0, 1)).max() < 600


def without(data, code):
    """The file with one tag renamed to a private one."""
    tag = Tiff.of(data).directories[0].tags[code]
    changed = bytearray(data)
    changed[tag.entry : tag.entry + 2] = (65100).to_bytes(2, "little" if data[:1] == b"I" else "big")
    return bytes(changed)


def changed(data, code, number):
    """The file with another number in a tag."""
    found = Tiff.of(data)
    tag = found.directories[0].tags[code]
    size = tag.size // tag.count
    return data[: tag.place] + found.packed(number, size) * tag.count + data[tag.place + tag.size :]


PLAIN = tiff(COLOUR, photometric="rgb", rowsperstrip=16)


@pytest.mark.parametrize(
    ("data", "reason", "said"),
    [
        (tiff(GREY.astype(np.float32), photometric="minisblack"), "float samples", "floating point"),
        (tiff(GREY.astype(np.float64), photometric="minisblack"), "float samples", "floating point"),
        (tiff(GREY.astype(np.uint32), photometric="minisblack"), "deep samples", "got 32"),
        (tiff(GREY.astype(np.int16), photometric="minisblack"), "deep samples", "signed"),
        (tiff(GREY > 9, photometric="minisblack"), "few bits", "got 1, which"),
        (from_pillow(GREY > 9, compression="group4"), "few bits", "got 1, which"),
        (tiff(COLOUR, photometric="cielab"), "unsupported TIFF", "CIELAB"),
        (changed(PLAIN, 262, 6), "unsupported TIFF", "YCbCr without JPEG"),
        (changed(PLAIN, 262, 32803), "unsupported TIFF", "raw samples of a sensor"),
        (changed(PLAIN, 259, 6), "unsupported TIFF", "old-style JPEG"),
        (changed(PLAIN, 259, 34712), "unsupported TIFF", "JPEG 2000"),
        (changed(PLAIN, 259, 4711), "unsupported TIFF", "compression 4711"),
        (changed(KINDS["16-bit rgb, BigTIFF"], 258, 12), "deep samples", "got 12"),
        (changed(PLAIN, 256, 1 << 20), "truncated", "within the file"),
        (changed(PLAIN, 256, 0), "truncated", "0x120"),
        (without(PLAIN, 273), "truncated", "strips or tiles"),
        (PLAIN[:-100], "truncated", "within the file"),
        (PLAIN[:40], "truncated", "first directory"),
        (PLAIN[:8], "truncated", "first directory"),
    ],
)
def test_what_can_not_be_written_back_is_said_in_one_sentence(data, reason, said):
    with pytest.raises(ImageError) as caught:
        decode(data)
    assert caught.value.reason == reason and said in str(caught.value) and "\n" not in str(caught.value)
    assert isinstance(caught.value, SkippedImage) == (reason != "truncated")


def test_strips_that_another_page_shares_are_not_written():
    data = with_pages(PICTURE, PICTURE)
    first, second = Tiff.of(data).directories
    mine, theirs = first.tags[273], second.tags[273]
    shared = (
        data[: theirs.place] + data[mine.place : mine.place + mine.size] + data[theirs.place + theirs.size :]
    )
    picture = decode(shared)
    with pytest.raises(ImageError, match="share bytes"):
        encode(picture, picture.rgb + np.float32(9))


def test_damaged_further_pages_are_passed_over_and_stay():
    data = with_pages((SMALL, {"subfiletype": 1}), PICTURE, bigtiff=True)
    first = Tiff.of(data).directories[0].tags
    for code, place in ((256, first[256].entry + 2), (273, first[273].entry + 2)):
        broken = data[:place] + (2).to_bytes(2, "little") + data[place + 2 :]  # a type of text
        after, recoded = edited(broken)
        assert (recoded is None) == (code == 256) and (page_of(after, 1)[~EDITED] == RGB16[~EDITED]).all()
    huge = bytearray(data)
    huge[first[273].entry + 12 : first[273].entry + 20] = b"\xff" * 8
    assert (page_of(edited(bytes(huge))[0], 1)[~EDITED] == RGB16[~EDITED]).all()


def test_a_larger_picture_takes_the_place_of_the_page_with_its_other_tags():
    data = tiff(
        RGBA16, photometric="rgb", extrasamples=["unassalpha"], compression="lzw", software="scan", **TILED
    )
    large = enlarged(decode(data), 2)
    after = encode(large, large.rgb.astype(np.float32)).data
    samples = page_of(after)
    assert samples.shape == (2 * HEIGHT, 2 * WIDTH, 4) and samples.dtype == np.uint16
    assert (decode(after).rgb == large.rgb).all()
    assert tag_bytes(after)[0][305] == tag_bytes(data)[0][305]


@pytest.mark.parametrize(
    "kind", ["16-bit rgb", "16-bit cmyk", "16-bit rgb, planar, tiled, Deflate", "16-bit rgba"]
)
def test_an_edit_held_in_parts_gives_the_bytes_of_one_held_whole(kind):
    picture = decode(KINDS[kind])
    rgb = picture.rgb.astype(np.float32)
    rgb[20:50, 30:41] = np.random.default_rng(0).uniform(-20, 280, (30, 11, 3))
    parts = Canvas(picture.rgb, [(slice(20, 50), slice(30, 41))])
    parts[20:50, 30:41][:] = rgb[20:50, 30:41]
    assert encode(picture, parts) == encode(picture, rgb)


def test_stored_samples_are_those_of_another_reader():
    assert (np.asarray(decode(KINDS["16-bit rgb, planar, tiled, Deflate"]).stored) == RGB16).all()
    part = decode(KINDS["16-bit rgba"]).stored[30:50]
    assert part.dtype == np.uint16 and (part == RGBA16[30:50, :, :3]).all()


@pytest.mark.parametrize("order", "<>")
def test_a_photoshop_thumbnail_of_the_picture_is_made_anew_in_its_bytes_and_another_stays(order):
    def with_thumbnail(samples):
        small = Image.fromarray(samples).resize((80, 60), Image.Resampling.BOX)
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=90)
        block = b"8BIM\x04\x0c\0\0" + len(buffer.getvalue()).to_bytes(4, "big") + buffer.getvalue()
        return tiff(
            RGB16, order=order, photometric="rgb", compression="zlib", extratags=[(34377, 7, 0, block, True)]
        )

    def shown(data):
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            tag = file.pages[0].tags[34377]
            block = data[tag.valueoffset :][: tag.valuebytecount]
        return block, np.asarray(Image.open(io.BytesIO(block[12:]))).astype(int)

    data = with_thumbnail(COLOUR)
    (old_block, before), (new_block, after) = shown(data), shown(edited(data)[0])
    assert len(new_block) == len(old_block) and new_block != old_block
    assert np.abs(after[22:28, 17:33] - (90, 140, 40)).mean() < 6
    assert np.abs(after[:12] - before[:12]).mean() < 4
    other = with_thumbnail(COLOUR[::-1])
    assert shown(edited(other)[0])[0] == shown(other)[0]
