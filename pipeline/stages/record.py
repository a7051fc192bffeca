"""The unit's records as Parquet, and its marker."""

import io
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.records import OUTCOMES, FaceRecord, ImageRecord, Unit, restorable

SCHEMA = pa.schema(
    [
        ("kind", pa.string()),  # "image" or "face"
        ("unit", pa.string()),
        ("member", pa.string()),
        ("face", pa.int32()),  # -1 in image rows
        ("sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("outcome", pa.string()),
        ("reason", pa.string()),
        ("stage", pa.string()),
        ("error", pa.string()),
        ("traceback", pa.string()),  # where in the program a failure came from
        ("attempts", pa.int32()),  # of the image's unit: 1, and one more for every --retry; null in face rows
        ("box", pa.list_(pa.float64())),
        ("landmarks", pa.list_(pa.float64())),
        ("affine", pa.list_(pa.float64())),
        ("score", pa.float64()),
        ("scale", pa.float64()),
        ("crispness", pa.float64()),
        ("strength", pa.float64()),
        ("kept", pa.string()),  # why the face was left as it is; empty for a restored one
        ("start_step", pa.int32()),
        ("eta", pa.float64()),
        ("seed", pa.int64()),
        ("model_sha256", pa.string()),
        ("sharpness_before", pa.float64()),
        ("sharpness_after", pa.float64()),
        ("distance", pa.float64()),
    ]
)


def record_table(
    unit: Unit, images: Sequence[ImageRecord], faces: Sequence[FaceRecord], settings: dict[str, Any]
) -> bytes:
    """One row per image and one per face, as Parquet bytes that depend on the unit and the settings alone.

    settings: eta, seed, model_sha256.
    """
    rows: list[dict[str, Any]] = []
    for place, image in enumerate(images):
        address = {"unit": unit.name, "member": image.member, "sha256": image.sha256}
        size = {"width": image.width, "height": image.height, "outcome": image.outcome}
        what: dict[str, Any] = {"reason": image.reason, "stage": image.stage, "error": image.error}
        what |= {"traceback": image.traceback, "attempts": unit.attempts}
        rows.append({"kind": "image", "face": -1} | address | size | what)
        for face in faces:
            if face.image == place:
                measured = {k: v for k, v in vars(face).items() if k != "image"}
                rows.append({"kind": "face"} | address | size | measured | settings)
    columns = [pa.array([storable(row.get(f.name)) for row in rows], type=f.type) for f in SCHEMA]
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns, schema=SCHEMA), buffer)
    return buffer.getvalue()


def storable(value: Any) -> Any:
    """The value as Parquet takes it: bytes of a file name that are no UTF-8 are spelled out, as \\udce9."""
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


def causes(images: Sequence[ImageRecord], outcome: str) -> dict[str, int]:
    """How many images ended with this outcome for each `stage: reason`."""
    return dict(sorted(Counter(f"{i.stage}: {i.reason}" for i in images if i.outcome == outcome).items()))


def make_marker(
    unit: Unit,
    images: Sequence[ImageRecord],
    faces: Sequence[FaceRecord],
    sums: dict[str, float],
    outputs: list[dict[str, str | int]],
) -> dict[str, Any]:
    """What the ledger needs to know of a finished unit. Raises ValueError when an image has no outcome."""
    counted = Counter(image.outcome for image in images)
    if set(counted) - set(OUTCOMES):
        raise ValueError(f"unit {unit.name}: every image needs one of {OUTCOMES}, got {dict(counted)}")
    names = ("sharpness_before", "sharpness_after", "distance")
    measured = {name: sum(getattr(f, name) for f in faces) for name in names}
    return {
        "unit": unit.name,
        "shard": unit.shard,
        "part": unit.part,
        "last": unit.last,
        "images": len(images),
        "faces": len(restorable(faces)),
        "outcomes": {name: counted[name] for name in OUTCOMES},
        "reasons": {name: causes(images, name) for name in ("skipped", "failed")},
        "attempts": unit.attempts,
        "outputs": outputs,
        "sums": sums | measured | {"faces_kept": float(sum(bool(f.kept) for f in faces))},
        "finished_at": time.time(),
    }
