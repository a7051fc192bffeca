"""What a file carried beside its pixels, in the file of the edited picture: byte for byte, in its place."""

from collections.abc import Sequence

from pipeline.io import bmp, gif, jpeg_parts, png, riff
from pipeline.io.picture import ImageError, Picture
from pipeline.io.thumbnails import Renewal


def check_carried(data: bytes, kind: str) -> None:
    """Raise SkippedImage where a file carries what `carried` could not keep, and ImageError where it is damaged.

    kind: Pillow's format name.
    """
    if kind in ("JPEG", "MPO"):
        jpeg_parts.check_index(data)
    elif kind == "BMP":
        bmp.check_header(data)
    elif kind == "GIF":
        try:
            gif.gif_blocks(data)
        except (IndexError, ValueError) as error:
            raise ImageError("truncated", "the blocks of a GIF can not be separated") from error


def carried(original: Picture, edited: bytes, renewed: Sequence[Renewal] = ()) -> bytes:
    """The file of an edited picture with all that the original's file carried beside its pixels.

    renewed: blocks that take the place of others, as thumbnails of what was edited do. Of a JPEG, segments must be
    there already. What can not be kept was refused by `check_carried`.
    """
    source, done = original.source, edited
    if not source:
        return edited
    if original.format == "JPEG":
        done = jpeg_parts.with_rest_of(source, edited)
    elif original.format == "PNG":
        done = png.with_chunks_of(source, edited)
    elif original.format == "WEBP":
        height, width = original.stored.shape[:2]
        done = riff.with_chunks_of(source, edited, (width, height), original.alpha is not None)
    elif original.format == "GIF":
        done = gif.with_blocks_of(source, edited, own_palette=original.palette is not None)
    elif original.format == "BMP":
        done = bmp.with_header_of(source, edited)
    for old, new in renewed:
        done = done.replace(old, new)
    return done
