"""Give untouched blocks of an edited JPEG their original coefficients back, so that they decode to the same bits."""

import ctypes
import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.io.jpeg_parts import APP14, FRAMES, METADATA, START_OF_SCAN, Damaged, late_metadata, segments

BLOCK = 8
# Most components of a JPEG, and rows of blocks that are worked on at once: the whole picture's take much memory.
MOST_COMPONENTS, ROWS_AT_ONCE = 4, 16

# one picture's coefficients at a time: they take up to 6 bytes a pixel, several times over
_ONE_AT_A_TIME = Lock()


class Unmergeable(ValueError):
    """Two JPEGs whose blocks can not be exchanged. The message is a short reason."""


def keep_untouched_blocks(
    original: bytes, edited: bytes, touched: NDArray[np.bool_]
) -> tuple[bytes, str | None]:
    """The edited JPEG with the original's coefficients in every block that no touched pixel lies in, and None.

    Both are of one size. Where they differ in colour space or chroma sampling (Pillow writes neither 4:4:0 nor 4:1:1),
    where a quantisation step of `edited` does not divide that of `original`, or where the JPEG library can not read the
    coefficients, the blocks stay as they were coded again, and a short reason takes the place of None. touched:
    [H, W] of the stored picture. Metadata is that of `original`. Raises OSError and MemoryError where the system
    refused memory or files: that says nothing about the picture.
    """
    try:
        return with_metadata_of(original, _merged(_bare(original), _bare(edited), touched)), None
    except Unmergeable as error:
        reason = str(error)
    try:
        return with_metadata_of(original, edited), reason
    except Unmergeable:  # its segments can not be separated
        return edited, reason


def _merged(original: bytes, edited: bytes, touched: NDArray[np.bool_]) -> bytes:
    """`keep_untouched_blocks` on files without metadata. Raises Unmergeable, OSError, MemoryError."""
    with _ONE_AT_A_TIME, _file_of(original) as source, _file_of(edited) as target:
        first, second = _header(source), _header(target)
        if first.colour_space != second.colour_space:
            raise Unmergeable("its colour space can not be written again")
        if first.blocks != second.blocks:
            raise Unmergeable("its chroma sampling can not be written again")
        before, after = _coefficients(source, first), _coefficients(target, second)
        tables = [(before.table(i), after.table(i)) for i in range(len(first.blocks))]
        if any((coarse % fine).any() for coarse, fine in tables):
            raise Unmergeable("its quantisation steps can not be written again")
        luma = first.blocks[0]
        for theirs, ours, (coarse, fine) in zip(before.planes, after.planes, tables, strict=True):
            _restore_component(theirs, ours, coarse // fine, touched, luma)
        before.planes.clear()
        _write(target, edited, second, after)
        return Path(target).read_bytes()


def _bare(data: bytes) -> bytes:
    """Without metadata. The Adobe segment stays: it says what the colours are. Raises Unmergeable."""
    return b"\xff\xd8" + b"".join(part for marker, part in _segments(data) if not _is_metadata(marker, part))


def _is_metadata(marker: int, part: bytes) -> bool:
    return marker in METADATA and marker != APP14


def _restore_component(
    before: NDArray[np.int16],
    after: NDArray[np.int16],
    factor: NDArray[np.int32],
    touched: NDArray[np.bool_],
    luma: tuple[int, int],
) -> None:
    """Overwrite `after` ([rows, columns, 8, 8] coefficients) in place by `before * factor` in untouched blocks.

    luma: rows and columns of the blocks of the first component.
    """
    rows, columns = before.shape[:2]
    height, width = BLOCK * -(-luma[0] // rows), BLOCK * -(-luma[1] // columns)
    for start in range(0, rows, ROWS_AT_ONCE):
        few = min(ROWS_AT_ONCE, rows - start)
        area = np.zeros((few * height, columns * width), bool)
        seen = touched[start * height :][: area.shape[0], : area.shape[1]]
        area[: seen.shape[0], : seen.shape[1]] = seen
        untouched = ~area.reshape(few, height, columns, width).any(axis=(1, 3))
        kept = before[start : start + few][untouched].astype(np.int32) * factor
        after[start : start + few][untouched] = kept.astype(after.dtype)


def with_metadata_of(source: bytes, target: bytes) -> bytes:
    """`target` with the metadata segments of `source` instead of its own, in their order.

    The Adobe segment of `source` stays where it says of the colours what is true of `target`, too. Raises Unmergeable
    as `_segments`.
    """
    theirs, ours = _segments(source), _segments(target)
    adobe = [part for marker, part in ours if marker == APP14]
    if not any(m == APP14 for m, _ in theirs) and _is_plain_cmyk(ours):
        adobe = []  # by which readers would take the inks as inverted
    if any(m == APP14 and _transform([p]) == _transform(adobe) for m, p in theirs):
        adobe = []
        kept = [part for marker, part in theirs if marker in METADATA]
    else:
        kept = [part for marker, part in theirs if _is_metadata(marker, part)]
    rest = [part for marker, part in ours if marker not in METADATA]
    return b"\xff\xd8" + b"".join([*kept, *late_metadata(source), *adobe, *rest])


def _is_plain_cmyk(parts: list[tuple[int, bytes]]) -> bool:
    """Whether a JPEG is of four inks as such, which is what one of four components without Adobe's segment is."""
    frames = [part for marker, part in parts if marker in FRAMES]
    adobe = [part for marker, part in parts if marker == APP14]
    return bool(frames) and frames[0][9] == 4 and (not adobe or _transform(adobe) == 0)


def _transform(adobe: list[bytes]) -> int:
    """How an Adobe segment says that colours are coded; without one, as luma and chroma."""
    return adobe[0][15] if adobe and len(adobe[0]) > 15 else 1


def _segments(data: bytes) -> list[tuple[int, bytes]]:
    """Markers and bytes of a JPEG's segments after the start; the scan data are one segment to the end.

    Raises Unmergeable where they can not be separated.
    """
    found: list[tuple[int, bytes]] = []
    try:
        for marker, start, end in segments(data):
            if marker == START_OF_SCAN:
                return [*found, (START_OF_SCAN, data[start:])]
            found.append((marker, data[start:end]))
    except Damaged as error:
        raise Unmergeable(str(error)) from error
    raise Unmergeable("it has no scan")


# The rest of this file calls the C functions of jpeglib. Its Python around them copies each picture into a
# temporary file, which a full disk refuses, and says of every failure alike that reading or writing failed.


@dataclass(frozen=True)
class _Header:
    """What the library needs to know to write a JPEG like this one."""

    # height and width in pixels
    size: tuple[int, int]
    # libjpeg's number
    colour_space: int
    # rows and columns of 8x8 blocks of each component
    blocks: list[tuple[int, int]]
    # vertical and horizontal sampling factor of each component
    sampling: list[tuple[int, int]]


@dataclass(frozen=True)
class _Coefficients:
    # [rows, columns, 8, 8] of each component
    planes: list[NDArray[np.int16]]
    # [4, 8, 8] quantisation tables, and which of them each component uses
    tables: NDArray[np.uint16]
    numbers: NDArray[np.int16]

    def table(self, component: int) -> NDArray[np.int32]:
        """[8, 8] quantisation steps of a component."""
        steps: NDArray[np.int32] = self.tables[self.numbers[component]].astype(np.int32)
        return steps


def _header(path: str) -> _Header:
    """The header of a JPEG whose scans were all read once. Raises Unmergeable, OSError, MemoryError."""
    blocks, sampling = ((ctypes.c_int * (2 * MOST_COMPONENTS))() for _ in range(2))
    size, spaces, scans = (ctypes.c_int * 2)(), (ctypes.c_int * 2)(), (ctypes.c_int * 1)()
    # the library writes three numbers there: components, and those of the output
    components = (ctypes.c_int * 3)()
    _call(
        "read_jpeg_info", os.fsencode(path), blocks, size, components, sampling, spaces,
        None, None, None, None, scans, None,
    )  # fmt: skip
    count = components[0]
    if not 1 <= count <= MOST_COMPONENTS:
        raise Unmergeable(f"it has {count} components")
    return _Header(
        size=(size[0], size[1]),
        colour_space=spaces[1],
        blocks=[(blocks[2 * i], blocks[2 * i + 1]) for i in range(count)],
        sampling=[(sampling[2 * i], sampling[2 * i + 1]) for i in range(count)],
    )


def _coefficients(path: str, header: _Header) -> _Coefficients:
    """The coefficients of a JPEG whose header was read. Raises Unmergeable, OSError, MemoryError."""
    planes: list[NDArray[np.int16]] = [np.zeros((*shape, BLOCK, BLOCK), np.int16) for shape in header.blocks]
    tables = np.zeros((MOST_COMPONENTS, BLOCK, BLOCK), np.uint16)
    numbers = np.full(MOST_COMPONENTS, -1, np.int16)
    _call("read_jpeg_dct", os.fsencode(path), *_addresses(planes), tables.ctypes, numbers.ctypes)
    return _Coefficients(planes, tables, numbers)


def _write(path: str, like: bytes, header: _Header, coefficients: _Coefficients) -> None:
    """Write coefficients over the file at `path`; what no argument says is as in the JPEG `like`.

    Raises Unmergeable, OSError, MemoryError.
    """
    adobe = [part[4:] for marker, part in _segments(like) if marker == APP14]
    content = b"".join(adobe)
    with _file_of(like) as source:
        _call(
            "write_jpeg_dct", os.fsencode(source), os.fsencode(path), *_addresses(coefficients.planes),
            (ctypes.c_int * 2)(*header.size), _flat(header.blocks), _flat(header.sampling),
            header.colour_space, len(header.blocks), coefficients.tables.ctypes, -1, coefficients.numbers.ctypes,
            len(adobe), (ctypes.c_int32 * len(adobe))(*[APP14] * len(adobe)),
            (ctypes.c_int32 * len(adobe))(*map(len, adobe)), (ctypes.c_ubyte * len(content))(*content),
            # flags: none is set
            ctypes.c_uint(0), ctypes.c_uint(0xFFFFFFFF),
        )  # fmt: skip


def _addresses(planes: list[NDArray[np.int16]]) -> list[Any]:
    """The four components' coefficients as the library takes them; None for those that are not there."""
    return [p.ctypes for p in planes] + [None] * (MOST_COMPONENTS - len(planes))


def _flat(pairs: list[tuple[int, int]]) -> Any:
    return (ctypes.c_int * (2 * len(pairs)))(*(number for pair in pairs for number in pair))


def _call(function: str, *arguments: Any) -> None:
    """Call a C function of jpeglib.

    Raises Unmergeable where libjpeg complains of the picture, and OSError or MemoryError where the system refused it
    something: libjpeg itself leaves errno alone.
    """
    _check_descriptors()
    entry: Callable[..., int] = getattr(_library(), function)
    values = [getattr(a, "data_as", lambda _, a=a: a)(ctypes.c_void_p) for a in arguments]
    ctypes.set_errno(0)
    if entry(*values):
        return
    refused = ctypes.get_errno()
    what = f"the JPEG library could not work on a picture: {os.strerror(refused)}"
    if refused == errno.ENOMEM:
        raise MemoryError(what)
    if refused:
        raise OSError(refused, what)
    done = "written again" if function.startswith("write") else "read"
    raise Unmergeable(f"the JPEG library says that its coefficients can not be {done}")


def _check_descriptors() -> None:
    """Raise OSError unless two more files can be opened.

    The library opens two at most, and forgets to close the first where the second is refused.
    """
    first, second = os.pipe()
    os.close(first)
    os.close(second)


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    """jpeglib's libjpeg 6b, which carries it; imported where a JPEG is written."""
    from jpeglib._bind import CJpegLib

    return ctypes.CDLL(CJpegLib.get()._name, use_errno=True)


@contextmanager
def _file_of(data: bytes) -> Iterator[str]:
    """The path of a file with these bytes, for a library that knows paths only. Raises OSError.

    It lies in memory where the system can do that, so that no full or missing temporary folder matters.
    """
    if hasattr(os, "memfd_create") and os.path.isdir("/proc/self/fd"):
        handle = os.memfd_create("picture.jpg")
        path = f"/proc/self/fd/{handle}"
    else:
        handle, path = tempfile.mkstemp(suffix=".jpg")
    try:
        with open(handle, "wb", closefd=False) as file:
            file.write(data)
        yield path
    finally:
        os.close(handle)
        if not path.startswith("/proc/"):
            os.unlink(path)
