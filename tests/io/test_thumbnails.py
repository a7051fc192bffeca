"""Thumbnails show the picture as it has become, in the very bytes that the old ones took."""

import base64
import io
import struct

import numpy as np
import pytest
from edited_pictures import saved
from PIL import Image
from skimage import data as pictures

from pipeline.io.images import decode, encode

COLOUR = np.ascontiguousarray(pictures.astronaut()[:240, 100:420])
PICTURE = Image.fromarray(COLOUR)
BOX = (slice(80, 160), slice(100, 200))


def edited(data, box=BOX):
    picture = decode(data)
    rgb = picture.rgb.astype(np.float32)
    rgb[box] = (20, 200, 60)
    return encode(picture, rgb).data


def exif(thumbnail, orientation=1):
    """A TIFF of two IFDs with a maker note, and the thumbnail at its end."""
    note = b"Maker\0\0" * 9
    ifd0 = struct.pack("<H", 2) + struct.pack("<HHII", 0x0112, 3, 1, orientation)
    note_at = 8 + 2 + 24 + 4
    ifd0 += struct.pack("<HHII", 0x927C, 7, len(note), note_at)
    ifd1_at = note_at + len(note)
    start = ifd1_at + 2 + 24 + 4
    ifd1 = struct.pack("<H", 2) + struct.pack("<HHII", 0x201, 4, 1, start)
    ifd1 += struct.pack("<HHII", 0x202, 4, 1, len(thumbnail)) + bytes(4)
    return b"II*\0\x08\0\0\0" + ifd0 + struct.pack("<I", ifd1_at) + note + ifd1 + thumbnail + b"after"


def small(picture=PICTURE, size=(160, 120), bars=0, **options):
    """A thumbnail, between black bars where those are wanted."""
    done = Image.new("RGB", size)
    done.paste(picture.resize((size[0], size[1] - 2 * bars), Image.Resampling.BICUBIC), (0, bars))
    return saved(done, "JPEG", **{"quality": 80} | options)


def differences(before, after):
    """Start and end of where two files of one length differ."""
    assert len(before) == len(after)
    places = np.nonzero(np.frombuffer(before, np.uint8) != np.frombuffer(after, np.uint8))[0]
    return (int(places[0]), int(places[-1])) if len(places) else None


def is_renewed(old, new):
    """Whether a thumbnail of the whole picture became green where that did, and stayed where it stayed."""
    before, after = (np.asarray(Image.open(io.BytesIO(d)).convert("RGB")).astype(int) for d in (old, new))
    middle = after[45:75, 58:92]
    return np.abs(middle - (20, 200, 60)).mean() < 12 and np.abs(after - before)[:, 120:].mean() < 2


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_the_thumbnail_of_exif_is_made_anew_and_nothing_else_of_it_changes(kind):
    thumbnail = small()
    block = exif(thumbnail)
    data = saved(PICTURE, kind, exif=b"Exif\0\0" + block)
    again = edited(data)
    found = Image.open(io.BytesIO(again)).info["exif"]
    found = found[found.index(b"II*\0") :][: len(block)]
    start, end = differences(block, found)
    place = block.index(thumbnail)
    assert place <= start <= end < place + len(thumbnail)
    assert is_renewed(thumbnail, found[place : place + len(thumbnail)])


def exif_with_samples(thumbnail, order):
    """A TIFF of two IFDs, of which the second is an uncompressed RGB picture of 80 x 60 in strips of 20 rows."""
    sizes, places = (3 * 80 * 20,) * 3, 8 + 2 + 12 + 4
    tags = [
        (256, 3, 80),
        (257, 3, 60),
        (258, 3, 0),
        (259, 3, 1),
        (262, 3, 2),
        (273, 4, 0),
        (277, 3, 3),
        (278, 3, 20),
    ]
    tags.append((279, 4, 0))
    values = {258: (8, 8, 8)}
    at = places + 2 + 12 * len(tags) + 4
    values[273] = tuple(at + 6 + 12 + 12 + i * sizes[0] for i in range(3))
    values[279] = sizes
    ifd, more = struct.pack(order + "H", len(tags)), b""
    for code, kind, value in tags:
        if code not in values:
            held = struct.pack(order + "HH", value, 0) if kind == 3 else struct.pack(order + "I", value)
            ifd += struct.pack(order + "HHI", code, kind, 1) + held
            continue
        ifd += struct.pack(order + "HHII", code, kind, 3, at + len(more))
        more += struct.pack(order + ("3H" if kind == 3 else "3I"), *values[code])
    first = struct.pack(order + "HHHIHHI", 1, 0x0112, 3, 1, 1, 0, places)
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    return head + first + ifd + bytes(4) + more + thumbnail.tobytes() + b"after"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("order", "<>")
def test_an_uncompressed_thumbnail_of_exif_is_made_anew(kind, order):
    thumbnail = np.asarray(PICTURE.resize((80, 60), Image.Resampling.BOX))
    block = exif_with_samples(thumbnail, order)
    again = edited(saved(PICTURE, kind, exif=b"Exif\0\0" + block))
    place = block.index(thumbnail.tobytes()[:90])
    found = again[again.index(block[:place]) :][: len(block)]
    new = np.frombuffer(found, np.uint8, thumbnail.size, place).reshape(thumbnail.shape)
    assert (
        found.endswith(b"after")
        and (np.delete(new, slice(19, 41), axis=0) == np.delete(thumbnail, slice(19, 41), 0)).all()
    )
    assert np.abs(new[22:38, 27:48].astype(int) - (20, 200, 60)).max() <= 12
    other = exif_with_samples(thumbnail[::-1], order)
    assert other in edited(saved(PICTURE, kind, exif=b"Exif\0\0" + other))


def test_a_thumbnail_between_bars_and_one_of_a_turned_picture():
    # 4:3 with bars above and below
    thumbnail = small(PICTURE.crop((0, 0, 320, 180)), bars=15)
    data = saved(PICTURE.crop((0, 0, 320, 180)), "JPEG", exif=b"Exif\0\0" + exif(thumbnail))
    again = edited(data)
    found = Image.open(io.BytesIO(again)).info["exif"]
    new = np.asarray(Image.open(io.BytesIO(found[found.index(thumbnail[:20], 20) :]))).astype(int)
    assert np.abs(new[62:88, 58:92] - (20, 200, 60)).mean() < 12 and new[:10].mean() < 8
    # stored as it lies; the edit is in the upright picture
    data = saved(PICTURE, "JPEG", exif=b"Exif\0\0" + exif(small(), orientation=3))
    again = edited(data, (slice(80, 160), slice(120, 220)))
    found = Image.open(io.BytesIO(again)).info["exif"]
    assert is_renewed(small(), found[found.index(START) :])


START = b"\xff\xd8\xff"


def test_photoshops_and_xmps_thumbnails_are_made_anew():
    thumbnail = small()
    resource = b"8BIM\x04\x0c\0\0" + struct.pack(">I", 28 + len(thumbnail)) + bytes(28) + thumbnail
    body = b"Photoshop 3.0\0" + resource + b"8BIM\x04\x04\0\0\0\0\0\0"
    app13 = b"\xff\xed" + struct.pack(">H", len(body) + 2) + body
    text = base64.b64encode(thumbnail)
    lines = b"&#xA;".join(text[i : i + 76] for i in range(0, len(text), 76))
    packet = b"<x:xmpmeta><xmpGImg:image>" + lines + b"</xmpGImg:image><dc:title/></x:xmpmeta>"
    plain = saved(PICTURE, "JPEG", xmp=packet)
    data = plain[:2] + app13 + plain[2:]
    again = edited(data)
    place = again.index(b"Photoshop 3.0")
    found = again[place : place + len(body)]
    assert found[: 14 + 12 + 28] == body[: 14 + 12 + 28] and found.endswith(body[-12:])
    assert is_renewed(thumbnail, found[54:])
    new = Image.open(io.BytesIO(again)).info["xmp"]
    assert (
        len(new) == len(packet) and new[:26] == packet[:26] and new.count(b"&#xA;") == packet.count(b"&#xA;")
    )
    assert is_renewed(thumbnail, base64.b64decode(new[26 : new.index(b"</xmpGImg")].replace(b"&#xA;", b"")))


@pytest.mark.parametrize(
    "thumbnail", [small(PICTURE.rotate(180)), small(Image.new("RGB", (9, 9))), START + b"no"]
)
def test_a_thumbnail_of_another_picture_stays(thumbnail):
    block = exif(thumbnail)
    again = edited(saved(PICTURE, "JPEG", exif=b"Exif\0\0" + block))
    assert block in again


def test_a_thumbnail_of_what_was_not_edited_stays():
    block = exif(small())
    data = saved(PICTURE, "JPEG", exif=b"Exif\0\0" + block)
    picture = decode(data)
    assert block in encode(picture, picture.rgb.astype(np.float32)).data


def test_large_thumbnails_behind_the_picture_are_made_anew_and_gain_maps_stay():
    preview, gain = small(), saved(PICTURE.convert("L").resize((80, 60)), "JPEG")
    first = saved(PICTURE, "JPEG")
    mark = b"II*\0\x08\0\0\0" + struct.pack("<H", 1) + struct.pack("<HHII", 0xB002, 7, 48, 26) + bytes(4)
    second = len(first) + 8 + len(mark) + 48
    entries = struct.pack("<IIIHH", 0x20030000, second, 0, 0, 0)
    entries += struct.pack("<IIIHH", 0x010001, len(preview), second - 10, 0, 0)
    entries += struct.pack("<IIIHH", 0, len(gain), second + len(preview) - 10, 0, 0)
    body = b"MPF\0" + mark + entries
    data = first[:2] + b"\xff\xe2" + struct.pack(">H", len(body) + 2) + body + first[2:] + preview + gain
    again = edited(data)
    assert again.endswith(gain) and not again.endswith(preview + gain)
    assert is_renewed(preview, again[-len(preview + gain) : -len(gain)])
