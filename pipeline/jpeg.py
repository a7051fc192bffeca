"""Give untouched blocks of an edited JPEG their original coefficients back, so that they decode to the same bits."""

import tempfile
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK = 8
# Markers that carry metadata: APP0..APP15 and COM.
METADATA = frozenset({*range(0xE0, 0xF0), 0xFE})
START_OF_SCAN = 0xDA
APP2, APP14 = 0xE2, 0xEE

# jpeglib keeps what it reads in global variables: two threads in it at once end the process
_ONE_AT_A_TIME = Lock()


def keep_untouched_blocks(original: bytes, edited: bytes, touched: NDArray[np.bool_]) -> bytes:
    """The edited JPEG with the original's coefficients in every block that no touched pixel lies in.

    Both are of one size. Where they differ in chroma sampling (Pillow writes neither 4:4:0 nor 4:1:1), where a
    quantisation step of `edited` does not divide that of `original`, or where the coefficients can not be read, the
    blocks stay as they were coded again. touched: [H, W] of the stored picture. Metadata is that of `original`.
    """
    try:
        merged = _merged(_bare(original), _bare(edited), touched)
    except OSError:  # jpeglib is stricter than the decoder about damage that shows in no pixel
        merged = edited
    try:
        return with_metadata_of(original, merged)
    except OSError:  # the same of `_segments`
        return merged


def _merged(original: bytes, edited: bytes, touched: NDArray[np.bool_]) -> bytes:
    """`keep_untouched_blocks` on files without metadata. Raises OSError when jpeglib can not read or write them."""
    import jpeglib  # carries its own libjpeg; imported where a JPEG is written

    with _ONE_AT_A_TIME, tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, name) for name in ("original.jpg", "edited.jpg")]
        for path, data in zip(paths, (original, edited), strict=True):
            path.write_bytes(data)
        before, after = (jpeglib.read_dct(str(path)) for path in paths)
        if before.jpeg_color_space != after.jpeg_color_space:
            return edited
        names = [n for n in ("Y", "Cb", "Cr") if getattr(before, n) is not None]
        tables = [
            [jpeg.qt[jpeg.quant_tbl_no[i]].astype(np.int32) for jpeg in (before, after)]
            for i in range(len(names))
        ]
        alike = all(getattr(before, n).shape == getattr(after, n).shape for n in names)
        if not alike or any((coarse % fine).any() for coarse, fine in tables):
            return edited
        for name, (coarse, fine) in zip(names, tables, strict=True):
            _restore_component(getattr(before, name), getattr(after, name), coarse, fine, touched, before.Y)
        after.write_dct(str(paths[1]))
        return paths[1].read_bytes()


def _bare(data: bytes) -> bytes:
    """Without metadata: jpeglib holds 50 segments at most. The Adobe segment stays, it tells what the colours are."""
    return b"\xff\xd8" + b"".join(part for marker, part in _segments(data) if not _is_metadata(marker, part))


def _is_metadata(marker: int, part: bytes) -> bool:
    return marker in METADATA and marker != APP14


def _restore_component(
    before: NDArray[Any],
    after: NDArray[Any],
    coarse: NDArray[np.int32],
    fine: NDArray[np.int32],
    touched: NDArray[np.bool_],
    luma: NDArray[Any],
) -> None:
    """Overwrite `after` ([rows, columns, 8, 8] coefficients) in place where its blocks are untouched."""
    rows, columns = before.shape[:2]
    height, width = BLOCK * -(-luma.shape[0] // rows), BLOCK * -(-luma.shape[1] // columns)
    area = np.zeros((rows * height, columns * width), bool)
    seen = touched[: area.shape[0], : area.shape[1]]
    area[: seen.shape[0], : seen.shape[1]] = seen
    untouched = ~area.reshape(rows, height, columns, width).any(axis=(1, 3))
    after[untouched] = (before[untouched].astype(np.int32) * (coarse // fine)).astype(after.dtype)


def with_metadata_of(source: bytes, target: bytes) -> bytes:
    """`target` with the metadata segments of `source` instead of its own, but for the index of further pictures."""
    kept = [p for m, p in _segments(source) if _is_metadata(m, p) and not (m == APP2 and p[4:8] == b"MPF\0")]
    rest = [p for m, p in _segments(target) if not _is_metadata(m, p)]
    return b"\xff\xd8" + b"".join(kept) + b"".join(rest)


def _segments(data: bytes) -> list[tuple[int, bytes]]:
    """Markers and bytes of a JPEG's segments after the start; the scan data are one segment to the end.

    Raises OSError where there are other bytes between the segments, which decoders pass over.
    """
    place, found = 2, []
    while (marker := data[place : place + 2])[1:] != bytes([START_OF_SCAN]):
        if marker == b"\xff\xff":  # a fill byte before the marker
            place += 1
            continue
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        if marker[:1] != b"\xff" or length < 2:
            raise OSError("segments of a JPEG were wanted, other bytes lie between them")
        end = place + 2 + length
        found.append((data[place + 1], data[place:end]))
        place = end
    return [*found, (START_OF_SCAN, data[place:])]
