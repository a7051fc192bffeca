"""Whether a delivered picture is what its record says."""

import hashlib
from typing import Any

from pipeline.io import images
from pipeline.records.rows import NOT_RESTORED


def wrong_picture(record: dict[str, Any], data: bytes, max_pixels: int) -> str:
    """Why a delivered picture is not what the record of its image says; empty when it is.

    A restored picture must open, decode and have the recorded size; every other one must be its original, byte for
    byte, and open where the original did.
    """
    restored = record["outcome"] == "restored"
    if not restored and record["sha256"] and record["reason"] != "changed":
        found = hashlib.sha256(data).hexdigest()
        if found != record["sha256"]:
            return (
                f"recorded as {record['outcome']}, so that the unchanged original with sha256 "
                f"{record['sha256'][:16]} was wanted, {found[:16]} is there"
            )
    if restored or record["outcome"] == "no_face" or record["reason"] in NOT_RESTORED:
        try:
            # earlier versions counted a pixel as one whatever its depth
            height, width = images.decode_rgb(data, max_pixels * images.weight(data)).shape[:2]
        except images.ImageError as error:
            return f"a picture was wanted, it does not open: {error}"
        wanted = (record.get("width", width), record.get("height", height))
        if (width, height) != wanted:
            return f"a picture of {wanted[0]}x{wanted[1]} was wanted, one of {width}x{height} is there"
    return ""
