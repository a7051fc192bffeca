"""XMP in the bytes of each kind of file: another program reads it, and everything else of the file stays."""

import io
import random
import struct
import zlib
from pathlib import Path

import exiftool
import imagecodecs
import numpy as np
import pillow_heif
import pytest
import tifffile
from PIL import Image, ImageCms

from pipeline.io.tiff_xmp import NoPlace
from pipeline.io.tiff_xmp import find_packet as find_in_tiff
from pipeline.io.tiff_xmp import with_packet as with_packet_in_tiff
from pipeline.io.xmp import MOST_BYTES, Label, merged
from pipeline.io.xmp_places import find_packet, with_packet

NOISE = np.random.default_rng(0).integers(0, 256, (24, 31, 3), np.uint8)
LABEL = Label("DifFace", "prior ab", "difface", "preset portrait", "c" * 64, "2026-11-27")
FIRST = merged(None, Label("", "", "first", "", "a" * 64))
PACKET = merged(None, LABEL)
EXIF = Image.Exif()
EXIF[0x010F] = "Maker"


def saved(kind: str, picture: np.ndarray = NOISE, **options) -> bytes:
    body = io.BytesIO()
    Image.fromarray(picture).save(body, kind, **options)
    return body.getvalue()


def tiff(**options) -> bytes:
    body = io.BytesIO()
    with tifffile.TiffWriter(body, **options) as writer:
        writer.write(NOISE, photometric="rgb")
    return body.getvalue()


def jpeg_xl() -> bytes:
    return bytes(imagecodecs.jpegxl_encode(NOISE, lossless=True))


FILES = {
    "plain.jpg": saved("JPEG"),
    "exif.jpg": saved(
        "JPEG",
        exif=EXIF,
        icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        comment=b"hello",
    ),
    "progressive.jpg": saved("JPEG", progressive=True),
    "a.png": saved("PNG"),
    "lossless.webp": saved("WEBP", lossless=True),
    "lossy.webp": saved("WEBP"),
    "alpha.webp": saved("WEBP", np.dstack([NOISE, NOISE[..., 0]]), lossless=True),
    "exif.webp": saved("WEBP", lossless=True, exif=EXIF),
    "a.tif": saved("TIFF"),
    "big.tif": tiff(bigtiff=True),
    "motorola.tif": tiff(byteorder=">"),
    "big motorola.tif": tiff(bigtiff=True, byteorder=">"),
    "a.gif": saved("GIF"),
    "a.jp2": saved("JPEG2000"),
}


def decoded(data: bytes) -> np.ndarray:
    if data[:2] in (b"II", b"MM"):
        return np.asarray(tifffile.imread(io.BytesIO(data)))
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGBA"))


def without(data: bytes, *parts: bytes) -> bytes:
    for part in parts:
        assert data.count(part) == 1
        data = data.replace(part, b"")
    return data


@pytest.mark.parametrize("name", FILES)
def test_another_program_reads_every_field_and_no_pixel_changes(name, tmp_path):
    data = FILES[name]
    found = exiftool.read(tmp_path / name, with_packet(data, PACKET))
    assert found["XMP-iptcExt:DigitalSourceType"].endswith("/compositeWithTrainedAlgorithmicMedia")
    assert found["XMP-iptcExt:AISystemUsed"] == "DifFace"
    assert found["XMP-iptcExt:AISystemVersionUsed"] == "prior ab"
    [event] = found["XMP-xmpMM:History"]
    said = {"Action": "edited", "SoftwareAgent": "difface", "When": "2026:11:27"}
    assert event == said | {"Parameters": f"preset portrait; parent sha256:{'c' * 64}"}
    assert found["XMP-xmpMM:DerivedFrom"] == {"InstanceID": f"sha256:{'c' * 64}"}
    assert (decoded(with_packet(data, PACKET)) == decoded(data)).all()


@pytest.mark.parametrize("name", FILES)
def test_a_packet_is_found_again_and_takes_the_place_of_the_one_before(name, tmp_path):
    data = FILES[name]
    assert find_packet(data) in (None, b"")
    once = with_packet(data, FIRST)
    assert find_packet(once) == FIRST
    twice = with_packet(once, PACKET)
    assert find_packet(twice) == PACKET
    assert (decoded(twice) == decoded(data)).all()
    if not name.endswith(".tif"):  # whose earlier packet lies where other pages may point
        assert FIRST not in twice
    before, after = (exiftool.read(tmp_path / name, d) for d in (data, twice))
    size = {"System:FileSize", "File:FileSize"}
    moved = {name for name in before if before[name] != after.get(name)} - size
    # a WebP that had no header for more than the pixels, a GIF that had no extensions
    assert {n for n in moved if not n.startswith("System:")} <= {
        "ExifTool:ExifToolVersion", "RIFF:FileType", "File:FileType", "GIF:GIFVersion", "RIFF:VP8Version",
        "RIFF:WebP_Flags", "RIFF:HorizontalScale", "RIFF:VerticalScale", "RIFF:AlphaIsUsed",
        "RIFF:ImageWidth", "RIFF:ImageHeight",
    }  # fmt: skip


def test_bmp_and_others_have_no_place(tmp_path):
    for data in (saved("BMP"), b"", b"RIFF\0\0\0\0AVI ", b"some text"):
        with pytest.raises(NoPlace, match="carry no XMP"):
            find_packet(data)
        with pytest.raises(NoPlace, match="carry no XMP"):
            with_packet(data, PACKET)


def test_a_jpeg_keeps_every_other_segment_and_the_order_of_the_first():
    data = FILES["exif.jpg"]
    done = with_packet(data, PACKET)
    segment = (
        b"\xff\xe1" + (2 + 29 + len(PACKET)).to_bytes(2, "big") + b"http://ns.adobe.com/xap/1.0/\0" + PACKET
    )
    assert without(done, segment) == data
    assert done.index(b"Exif\0\0") < done.index(segment) < done.index(b"ICC_PROFILE")


def test_an_extended_xmp_of_a_jpeg_is_left_alone():
    extended = b"http://ns.adobe.com/xmp/extension/\0" + b"0" * 32 + struct.pack(">II", 5, 0) + b"<a/>."
    more = b"\xff\xe1" + (2 + len(extended)).to_bytes(2, "big") + extended
    data = with_packet(FILES["plain.jpg"], FIRST)
    data = data[:-2][:2] + more + data[2:]
    done = with_packet(data, PACKET)
    assert more in done and find_packet(done) == PACKET


def test_a_packet_that_no_segment_holds_is_refused():
    with pytest.raises(NoPlace, match="65504 bytes of XMP in one segment"):
        with_packet(FILES["plain.jpg"], b"x" * 65505)
    assert find_packet(with_packet(FILES["plain.jpg"], b"x" * 65504)) == b"x" * 65504


def second_picture(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        assert image.n_frames == 2
        image.seek(1)
        return np.asarray(image)


def index_of(data: bytes) -> int:
    """Where the index of pictures has its entries: [flags, size, offset, two numbers] of each."""
    start = data.index(b"MPF\0") + 4
    (tags,) = struct.unpack_from("<H", data, start + 8)
    found = {
        e[0]: e[3] for e in (struct.unpack_from("<HHII", data, start + 10 + 12 * n) for n in range(tags))
    }
    return start + found[0xB002]


def two_pictures(packet_behind_index: bool) -> bytes:
    """A JPEG with another behind it, which its index names."""
    body = io.BytesIO()
    Image.fromarray(NOISE).save(body, "MPO", save_all=True, append_images=[Image.fromarray(255 - NOISE)])
    data = body.getvalue()
    if not packet_behind_index:
        return data
    segment = (
        b"\xff\xe1" + (2 + 29 + len(FIRST)).to_bytes(2, "big") + b"http://ns.adobe.com/xap/1.0/\0" + FIRST
    )
    at, entries = data.index(b"\xff\xdb"), index_of(data)
    grown = bytearray(data[:at] + segment + data[at:])
    for place in (entries + 4, entries + 16 + 8):  # the first one's size, and the second one's offset
        struct.pack_into("<I", grown, place, struct.unpack_from("<I", grown, place)[0] + len(segment))
    return bytes(grown)


@pytest.mark.parametrize("packet_behind_index", [False, True])
def test_the_further_pictures_of_a_jpeg_are_found_where_its_index_says(packet_behind_index):
    data = two_pictures(packet_behind_index)
    done = with_packet(data, PACKET)
    assert (second_picture(done) == second_picture(data)).all()
    assert find_packet(done) == PACKET
    # what the first picture's size says is where the second one begins
    (size,) = struct.unpack_from("<I", done, index_of(done) + 4)
    assert done[size:].startswith(b"\xff\xd8")


def png_text(kind: bytes, body: bytes) -> bytes:
    chunk = kind + b"XML:com.adobe.xmp\0" + body
    whole = (len(chunk) - 4).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    at = FILES["a.png"].index(b"IDAT") - 4
    return FILES["a.png"][:at] + whole + FILES["a.png"][at:]


@pytest.mark.parametrize(
    "data",
    [
        png_text(b"iTXt", b"\1\0en\0XMP\0" + zlib.compress(FIRST)),
        png_text(b"tEXt", FIRST),
        png_text(b"zTXt", b"\0" + zlib.compress(FIRST)),
    ],
    ids=["compressed", "plain text", "compressed text"],
)
def test_xmp_of_a_png_is_read_in_each_form_of_text(data):
    assert find_packet(data) == FIRST
    done = with_packet(data, PACKET)
    assert find_packet(done) == PACKET
    assert done.count(b"XML:com.adobe.xmp") == 1


def test_a_text_that_unpacks_to_gigabytes_is_read_up_to_the_limit():
    bomb = zlib.compress(b"a" * (64 << 20), 9)
    assert len(find_packet(png_text(b"iTXt", b"\1\0\0\0" + bomb)) or b"") == MOST_BYTES + 1
    assert find_packet(png_text(b"zTXt", b"\0no zlib")) == b""


def pages() -> bytes:
    body = io.BytesIO()
    with tifffile.TiffWriter(body) as writer:
        for number in range(3):
            writer.write(NOISE + number, photometric="rgb", description=f"page {number}", metadata=None)
    return body.getvalue()


@pytest.mark.parametrize("page", [0, 1, 2])
def test_one_page_of_a_tiff_gets_the_packet_and_nothing_else_moves(page):
    data = pages()
    done = with_packet_in_tiff(data, PACKET, page)
    # beside what is added, the one offset that led to the page's directory
    changed = np.flatnonzero(np.frombuffer(done[: len(data)], np.uint8) != np.frombuffer(data, np.uint8))
    assert changed.max() - changed.min() < 4
    with tifffile.TiffFile(io.BytesIO(done)) as file:
        assert len(file.pages) == 3
        for number, one in enumerate(file.pages):
            assert (one.asarray() == NOISE + number).all()
            assert one.description == f"page {number}"
            assert (700 in one.tags) == (number == page)
    assert find_in_tiff(done, page) == (done.index(PACKET), done.index(PACKET) + len(PACKET))


def test_a_page_that_is_not_there_and_a_damaged_directory_are_refused():
    with pytest.raises(NoPlace, match="has 3 pages"):
        with_packet_in_tiff(pages(), PACKET, 3)
    for data in (b"II*\0", b"II*\0\xff\xff\xff\0", b"II\x2c\0\0\0\0\0", b"MM\0*\0\0\0\x08\xff\xff"):
        with pytest.raises(NoPlace):
            with_packet(data, PACKET)


def test_files_cut_off_anywhere_are_refused_or_carry_the_packet():
    for data in FILES.values():
        for end in range(0, len(data), max(len(data) // 40, 1)):
            try:
                assert PACKET in with_packet(data[:end], PACKET)
            except NoPlace:
                continue


@pytest.mark.parametrize("name", FILES)
def test_files_with_any_number_in_them_changed_are_refused_or_carry_the_packet(name):
    data, draw = with_packet(FILES[name], FIRST), random.Random(name)
    for _ in range(400):
        changed = bytearray(data)
        for _ in range(draw.randint(1, 4)):
            place = draw.randrange(draw.choice([32, 400, len(data)]))
            changed[place : place + 4] = draw.choice(
                [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff", b"\0\1", b""]
            )
        try:
            find_packet(bytes(changed))
            assert PACKET in with_packet(bytes(changed), PACKET)
        except NoPlace:
            continue


def test_the_packet_of_jpeg_xl_and_its_box(tmp_path: Path):
    data = jpeg_xl()
    done = with_packet(with_packet(data, FIRST), PACKET)
    assert find_packet(done) == PACKET and FIRST not in done
    assert data in done
    assert (imagecodecs.jpegxl_decode(done) == NOISE).all()
    assert exiftool.read(tmp_path / "a.jxl", done)["XMP-iptcExt:AISystemUsed"] == "DifFace"


def heif(kind: str, **options) -> bytes:
    pillow_heif.register_heif_opener()
    return saved(kind, np.kron(NOISE, np.ones((8, 8, 1), np.uint8)), **options)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
@pytest.mark.parametrize(
    "carried", [{}, {"xmp": FIRST}, {"exif": EXIF.tobytes()}, {"xmp": FIRST, "exif": EXIF.tobytes()}]
)
def test_xmp_is_an_item_of_heic_and_avif_and_all_others_keep_their_bytes(kind, carried, tmp_path):
    data = heif(kind, **carried)
    assert find_packet(data) == carried.get("xmp")
    done = with_packet(with_packet(data, FIRST), PACKET)
    assert find_packet(done) == PACKET
    assert (decoded(done) == decoded(data)).all()
    pixels = data[data.index(b"mdat") :][: 8 if carried else None]
    assert pixels in done
    found = exiftool.read(tmp_path / "a.heic", done)
    assert found["XMP-iptcExt:AISystemUsed"] == "DifFace"
    assert found.get("IFD0:Make") == ("Maker" if "exif" in carried else None)
    with Image.open(io.BytesIO(done)) as image:
        assert image.info["xmp"] == PACKET


def test_xmp_that_describes_another_item_of_a_heic_stays_its_own():
    """As a telephone's gain map has it."""
    file = pillow_heif.from_pillow(Image.new("RGB", (64, 64)))
    second = Image.new("RGB", (64, 64), "red")
    second.info["xmp"] = FIRST
    file.add_from_pillow(second)
    body = io.BytesIO()
    file.save(body, format="HEIF")
    data = body.getvalue()
    assert find_packet(data) is None
    done = with_packet(data, PACKET)
    assert find_packet(done) == PACKET
    assert [image.info.get("xmp") for image in pillow_heif.open_heif(done)] == [PACKET, FIRST]


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_an_index_of_items_that_is_damaged_is_refused(kind):
    data = heif(kind)
    for end in range(12, len(data), 7):
        try:  # a few bytes behind the last whole box are no damage
            assert with_packet(data[:end], PACKET).endswith(PACKET)
        except NoPlace:
            continue
    sequence = data + b"\0\0\0\x08moov"
    with pytest.raises(NoPlace, match="a sequence of pictures"):
        with_packet(sequence, PACKET)
    for name in (b"iloc", b"iinf", b"pitm"):
        with pytest.raises(NoPlace, match=f"lacks {name.decode()}"):
            with_packet(data.replace(name, b"free", 1), PACKET)


def test_the_page_that_shows_the_picture_gets_the_packet_where_none_is_named():
    body = io.BytesIO()
    with tifffile.TiffWriter(body) as writer:
        writer.write(np.zeros((20, 30), np.uint8), subfiletype=1)  # a reduced copy
        writer.write(np.full((200, 300), 9, np.uint8))
    done = with_packet(body.getvalue(), PACKET)
    with tifffile.TiffFile(io.BytesIO(done)) as file:
        assert [700 in page.tags for page in file.pages] == [False, True]
        assert file.pages[1].tags[700].value == PACKET and (file.pages[1].asarray() == 9).all()
    assert find_packet(done) == PACKET
