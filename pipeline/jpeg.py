"""Give untouched blocks of an edited JPEG their original coefficients back, so that they decode to the same bits."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK = 8
# Markers that carry metadata: APP0..APP15 and COM.
METADATA = frozenset({*range(0xE0, 0xF0), 0xFE})
START_OF_SCAN = 0xDA


def keep_untouched_blocks(original: bytes, edited: bytes, touched: NDArray[np.bool_]) -> bytes:
    """The edited JPEG with the original's coefficients in every block that no touched pixel lies in.

    Both are of one size and chroma sampling, and every quantisation step of `edited` divides that of `original`, so
    that the old coefficients are written without loss. touched: [H, W] of the stored picture. Metadata is that of
    `edited`.
    """
    import jpeglib  # carries its own libjpeg; imported where a JPEG is written

    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, name) for name in ("original.jpg", "edited.jpg")]
        for path, data in zip(paths, (original, edited), strict=True):
            path.write_bytes(data)
        before, after = (jpeglib.read_dct(str(path)) for path in paths)
        names = [n for n in ("Y", "Cb", "Cr") if getattr(before, n) is not None]
        for component, name in enumerate(names):
            tables = [jpeg.qt[jpeg.quant_tbl_no[component]].astype(np.int32) for jpeg in (before, after)]
            _restore_component(
                getattr(before, name), getattr(after, name), tables[0], tables[1], touched, before.Y
            )
        after.write_dct(str(paths[1]))
        return with_metadata_of(edited, paths[1].read_bytes())


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
    """`target` with the metadata segments of `source` instead of its own."""
    kept = [part for marker, part in _segments(source) if marker in METADATA]
    rest = [part for marker, part in _segments(target) if marker not in METADATA]
    return b"\xff\xd8" + b"".join(kept) + b"".join(rest)


def _segments(data: bytes) -> list[tuple[int, bytes]]:
    """Markers and bytes of a JPEG's segments after the start; the scan data are one segment to the end."""
    place, found = 2, []
    while data[place + 1] != START_OF_SCAN:
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        found.append((data[place + 1], data[place:end]))
        place = end
    return [*found, (START_OF_SCAN, data[place:])]
