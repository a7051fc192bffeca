"""Feed the readers mutations of good files: `python -m hostile.fuzz`, as `make fuzz` runs it.

Whatever the bytes, a picture is decoded or refused with ImageError, an input is planned or refused with InputError, and
every planned image ends with one outcome. Nothing else may be raised, nothing may hang, memory stays bounded. It runs
for FUZZ_SECONDS (120), each round with another seed; a finding ends it with the smallest bytes that show it.
"""

import faulthandler
import os
import random
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
from hostile import corpus
from hostile.stages import run_stages
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from photographs import encoded

from pipeline.io.images import ImageError, decode, encode
from pipeline.io.shards import InputError

# Largest picture decoded here: enough for every path, small enough for many tries.
MOST_PIXELS = 1_000_000
# Room for memory beside what is there at the start.
MOST_BYTES = 3 << 30
# Tries of one target with one seed.
ROUND = 300

# One change of some bytes: what is done, where (as a share of the length), and with what.
Change = tuple[str, float, int]
DEEDS = ("flip", "byte", "cut", "drop", "double", "zeros", "ones", "number", "splice", "swap")
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def mutated(data: bytes, changes: list[Change], other: bytes) -> bytes:
    """The data after the changes; `other` lends its bytes to splices and its beginning to swaps."""
    raw = bytearray(data)
    for deed, share, value in changes:
        place = int(share * len(raw))
        length = 1 + value % 64
        if deed == "flip" and raw:
            raw[place % len(raw)] ^= 1 << value % 8
        elif deed == "byte" and raw:
            raw[place % len(raw)] = value % 256
        elif deed == "cut":
            del raw[place:]
        elif deed == "drop":
            del raw[place : place + length]
        elif deed == "double":
            raw[place:place] = raw[place : place + length * 8]
        elif deed in ("zeros", "ones"):
            raw[place : place + length] = (b"\0" if deed == "zeros" else b"\xff") * length
        elif deed == "number":
            width = (1, 2, 4)[value % 3]
            number = NUMBERS[value % len(NUMBERS)] % 256**width
            raw[place : place + width] = number.to_bytes(width, "little" if value & 1 else "big")
        elif deed == "splice":
            start = value * 97 % (len(other) + 1)
            raw[place : place + length * 4] = other[start : start + length * 4]
        elif deed == "swap":
            raw[: value % 200] = other[: value % 200]
    return bytes(raw)


@cache
def pictures() -> Mapping[str, bytes]:
    """Seeds: every picture of the corpus that is small, and some kinds more."""
    made = {name: make() for name, (make, _) in corpus.PICTURES.items() if "bomb" not in name}
    more = {
        "lzw.tif": encoded(corpus.FACE, "TIFF", compression="tiff_lzw"),
        "jpeg.tif": encoded(corpus.FACE, "TIFF", compression="jpeg"),
        "deep colour.tif": corpus.deep_colour(".tiff"),
        "tiles.tif": corpus.tiles_and_levels(),
        "palette.tif": encoded(corpus.FACE.quantize(16), "TIFF", compression="packbits"),
        "cmyk.tif": encoded(corpus.FACE.convert("CMYK"), "TIFF", compression="tiff_adobe_deflate"),
        "fax.tif": encoded(corpus.FACE.convert("1"), "TIFF", compression="group4"),
        "progressive.jpg": encoded(corpus.FACE, "JPEG", progressive=True),
        "profile.jpg": encoded(corpus.FACE, "JPEG", icc_profile=corpus.SRGB, exif=corpus.exif(6)),
        "lossless.webp": encoded(corpus.FACE, "WEBP", lossless=True, exif=corpus.exif(8)),
        "transparent.gif": encoded(corpus.FACE.quantize(16), "GIF", transparency=3),
        "text.png": encoded(corpus.FACE, "PNG", dpi=(300, 300), icc_profile=corpus.SRGB),
    }
    return {name: data for name, data in (made | more).items() if 40 < len(data) < 60_000}


def written(sources: Mapping[str, corpus.Source], name: str, left_out: tuple[str, ...]) -> dict[str, bytes]:
    """The files that the sources write under this name."""
    found = {}
    for key, source in sources.items():
        with tempfile.TemporaryDirectory() as folder:
            if key not in left_out:
                source.write(Path(folder))
            path = Path(folder, name)
            if path.is_file() and path.stat().st_size < 200_000:
                found[key] = path.read_bytes()
    return found


@cache
def tars() -> Mapping[str, bytes]:
    return written(corpus.TARS, "s.tar", ("compressed bomb", "headers without end"))


@cache
def parquets() -> Mapping[str, bytes]:
    return written(corpus.PARQUETS, "s.parquet", ("rows of nothing", "one value often"))


def check_picture(data: bytes) -> None:
    """Decode; where that succeeds edit, encode, and decode again."""
    try:
        picture = decode(data, MOST_PIXELS)
    except ImageError as error:
        assert error.reason and str(error)
        return
    height, width = picture.rgb.shape[:2]
    assert picture.rgb.dtype == np.uint8 and 0 < height * width <= MOST_PIXELS
    edited = picture.rgb.astype(np.float32)
    edited[: height // 2 + 1, : width // 2 + 1] = 7
    try:
        again = encode(picture, edited).data
    except ImageError:
        return
    assert decode(again, MOST_PIXELS).rgb.shape == picture.rgb.shape


def check_shard(name: str, data: bytes) -> None:
    """Plan it and walk it through the stages; no face is ever found in it."""
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch("pipeline.stages.align.load_detector", lambda _: lambda picture: []),
        mock.patch("pipeline.io.local.os.fsync", lambda _: None),
    ):
        source = Path(folder, "in")
        source.mkdir()
        (source / name).write_bytes(data)
        try:
            done = run_stages(source, Path(folder, "out"), unit_images=2, max_pixels=MOST_PIXELS)
        except InputError:
            return
        assert len(done.images) == sum(len(u.images) for u in done.units)
        assert all(m["images"] == sum(m["outcomes"].values()) for m in done.markers)
        assert {p.name for p in Path(folder).iterdir()} <= {"in", "out"}


def check_tar(data: bytes) -> None:
    check_shard("s.tar", data)


def check_parquet(data: bytes) -> None:
    check_shard("s.parquet", data)


TARGETS: Mapping[str, tuple[Callable[[], Mapping[str, bytes]], Callable[[bytes], None]]] = {
    "pictures": (pictures, check_picture),
    "tars": (tars, check_tar),
    "parquets": (parquets, check_parquet),
}
CHANGES = st.lists(
    st.tuples(st.sampled_from(DEEDS), st.floats(0, 1, exclude_max=True), st.integers(0, 2**32 - 1)),
    min_size=1,
    max_size=6,
)


def fuzz(target: str, examples: int, number: int, kept: Path | None = None, deadline: float = 20) -> None:
    """So many tries of one target with one seed; raises what the first finding raised, with its bytes in a note.

    kept: a file for the bytes that are being tried, should they end the process. deadline: seconds of one try.
    """
    make, check = TARGETS[target]
    seeds = make()
    names = st.sampled_from(sorted(seeds))

    @seed(number)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(names, names, CHANGES, st.booleans())
    def tried(name: str, other: str, changes: list[Change], at_the_start: bool) -> None:
        # headers are at the start of most kinds, and at the end of Parquet
        near = [(d, s * 0.05 if at_the_start else s, v) for d, s, v in changes]
        data = mutated(seeds[name], near, seeds[other])
        if kept:
            kept.write_bytes(data)
        began = time.monotonic()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if kept:  # a hang ends the process
                faulthandler.dump_traceback_later(deadline * 3, exit=True, file=sys.stderr)
            try:
                check(data)
            except BaseException as error:
                error.add_note(f"{target}: {name} changed to {len(data)} bytes: {data[:4000].hex()}")
                raise
            finally:
                faulthandler.cancel_dump_traceback_later()
        took = time.monotonic() - began
        assert took < deadline, f"{target}: {name} took {took:.0f} s: {data[:4000].hex()}"

    tried()


def main() -> None:
    """Rounds over all targets until the time is up."""
    limit = float(os.environ.get("FUZZ_SECONDS", "120"))
    began, tries, number = time.monotonic(), 0, random.SystemRandom().randrange(2**32)
    for make, check in TARGETS.values():  # loads everything
        check(next(iter(make().values())))
    # the decoders' own libraries talk about every damage
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    faulthandler.enable(sys.stderr)
    kept = Path(tempfile.gettempdir(), "difface-fuzz-last")
    here = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (here + MOST_BYTES, here + MOST_BYTES))
    while time.monotonic() - began < limit:
        for target in TARGETS:
            left = limit - (time.monotonic() - began)
            if left <= 0:
                break
            print(f"{target}: seed {number}, {left:.0f} s left; trying {kept}", flush=True)
            fuzz(target, ROUND, number, kept)
            tries += ROUND
            number += 1
    print(f"{tries} mutations in {time.monotonic() - began:.0f} s, nothing found")


if __name__ == "__main__":
    main()
