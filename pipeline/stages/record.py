"""The unit's records as Parquet, and its marker."""

import io
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.io.units import Unit
from pipeline.records.marker import Marker, Output
from pipeline.records.rows import (
    DECISIONS,
    LEFT_TEXTS,
    OUTCOMES,
    RUNG_TEXTS,
    Counts,
    FaceRecord,
    ImageRecord,
    with_crops,
)
from pipeline.records.totals import PER_COLUMN

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
        ("recoded", pa.string()),  # why pixels outside of the faces changed, too; null where they did not
        ("attempts", pa.int32()),  # of the image's unit: 1, and one more for every --retry; null in face rows
        ("box", pa.list_(pa.float64())),
        ("landmarks", pa.list_(pa.float64())),
        ("affine", pa.list_(pa.float64())),
        ("score", pa.float64()),
        ("scale", pa.float64()),
        ("crispness", pa.float64()),
        ("strength", pa.float64()),
        ("treatment", pa.string()),  # left, estimator, chain
        (
            "rung",
            pa.string(),
        ),  # the treatment that passed the gates: asked, held, lower_n, estimator; empty for none
        ("tried", pa.string()),  # every treatment that was tried, with what was measured, as JSON
        ("kept", pa.string()),  # why the face was left as it is; empty for a restored one
        ("left_for", pa.string()),  # the kind of that reason, as in LEFT_TEXTS of records/rows.py
        ("estimated_change", pa.float64()),  # mean |f(y) - y|, 0..255; null where nothing was estimated
        ("start_step", pa.int32()),  # these three null where there was no chain
        ("calls", pa.int32()),
        ("hold", pa.float64()),
        ("eta", pa.float64()),
        ("seed", pa.int64()),
        ("samples", pa.int32()),  # chains of which one is delivered; null without a chain
        ("spread", pa.float64()),  # these three of several samples (faces/spread.py): levels over the face,
        ("spread_identity", pa.float64()),  # largest angle from the delivered one, degrees,
        ("invented", pa.bool_()),  # and whether that is above the preset's bound
        ("model_sha256", pa.string()),
        ("sharpness_before", pa.float64()),
        ("sharpness_after", pa.float64()),
        ("distance", pa.float64()),
    ]
)
# Columns that the outputs of earlier versions do not have.
ADDED_LATER = frozenset(
    {"invented", "left_for", "recoded", "rung", "samples", "spread", "spread_identity", "tried"}
)


def record_table(
    unit: Unit,
    images: Sequence[ImageRecord],
    faces: Sequence[FaceRecord],
    settings: dict[str, Any],
    measured: Sequence[str] = (),
    features: Mapping[str, NDArray[np.float16]] | None = None,
) -> bytes:
    """One row per image and one per face, as Parquet bytes that depend on the unit and the settings alone.

    settings: eta, seed, model_sha256. measured: columns that --metrics adds, null where there is no value.
    features: further columns, [F, D] each with a row per face that has a crop, nan for none.
    """
    features = features or {}
    schema = wider_schema(measured, list(features))
    vectors = {id(f): {n: v[i] for n, v in features.items()} for i, f in enumerate(with_crops(faces))}
    rows: list[dict[str, Any]] = []
    for place, image in enumerate(images):
        address = {"unit": unit.name, "member": image.member, "sha256": image.sha256}
        size = {"width": image.width, "height": image.height, "outcome": image.outcome}
        what: dict[str, Any] = {"reason": image.reason, "stage": image.stage, "error": image.error}
        what |= {"traceback": image.traceback, "recoded": image.recoded, "attempts": unit.attempts}
        rows.append({"kind": "image", "face": -1} | address | size | what)
        for face in faces:
            if face.image == place:
                values = {k: v for k, v in vars(face).items() if k != "image"} | face.measured
                values |= {"tried": json.dumps(face.tried)}
                values |= {n: v for n, v in vectors.get(id(face), {}).items() if np.isfinite(v).all()}
                # a treatment may have a randomness of its own
                own = {} if face.eta is None else {"eta": face.eta}
                rows.append({"kind": "face"} | address | size | values | settings | own)
    columns = [pa.array([storable(row.get(f.name)) for row in rows], type=f.type) for f in schema]
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns, schema=schema), buffer)
    return buffer.getvalue()


def wider_schema(measured: Sequence[str], features: Sequence[str]) -> pa.Schema:
    """SCHEMA with a column per measurement, and one of vectors per name in `features`."""
    fields = [pa.field(name, pa.float32()) for name in measured]
    # lists of a fixed size can not be read again where one of them is null (pyarrow 25)
    fields += [pa.field(name, pa.list_(pa.float16())) for name in features]
    return pa.schema([*SCHEMA, *fields])


def storable(value: Any) -> Any:
    """The value as Parquet takes it: bytes of a file name that are no UTF-8 are escaped, as \\udce9."""
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


def causes(images: Sequence[ImageRecord], outcome: str) -> dict[str, int]:
    """How many images ended with this outcome for each `stage: reason`."""
    return dict(sorted(Counter(f"{i.stage}: {i.reason}" for i in images if i.outcome == outcome).items()))


def make_marker(
    unit: Unit,
    images: Sequence[ImageRecord],
    faces: Sequence[FaceRecord],
    sums: dict[str, float],
    outputs: Sequence[Output],
    measured: Sequence[str] = (),
    device: str = "",
    environment: Mapping[str, str] | None = None,
) -> Marker:
    """The marker of a finished unit. Raises ValueError when an image has no outcome.

    measured: columns whose sums it carries besides.
    """
    counted = Counter(image.outcome for image in images)
    if set(counted) - set(OUTCOMES):
        raise ValueError(f"unit {unit.name}: every image needs one of {OUTCOMES}, got {dict(counted)}")
    names = ("sharpness_before", "sharpness_after", "distance")
    summed = {name: sum(getattr(f, name) for f in faces) for name in names} | measured_sums(faces, measured)
    return Marker(
        unit=unit.name,
        shard=unit.shard,
        part=unit.part,
        last=unit.last,
        counts=Counts(len(images), len(faces), {name: counted[name] for name in OUTCOMES}),
        sums=sums | summed | decided(faces),
        finished_at=time.time(),
        outputs=tuple(outputs),
        attempts=unit.attempts,
        reasons={name: causes(images, name) for name in ("skipped", "failed")},
        run=unit.run,
        device=device,
        environment=environment or {},
    )


def decided(faces: Sequence[FaceRecord]) -> dict[str, float]:
    """How many faces were treated in each way, passed the gates with each treatment, and were left for each reason.

    Named as SUMS of records/totals.py.
    """
    counted = Counter(f.treatment for f in faces if not f.error)
    left = Counter(f.left_for for f in faces)
    rungs = Counter(f.rung for f in faces)
    samples = {
        "faces_sampled": sum(f.spread is not None for f in faces),
        "faces_invented": sum(bool(f.invented) for f in faces),
    }
    return {f"faces_{way}": float(counted[way]) for way in DECISIONS} | {
        **{f"faces_left_{why}": float(left[why]) for why in LEFT_TEXTS if left[why]},
        **{f"faces_rung_{rung}": float(rungs[rung]) for rung in RUNG_TEXTS if rungs[rung]},
        "crops": float(len(with_crops(faces))),
        **{name: float(number) for name, number in samples.items() if number},
    }


def measured_sums(faces: Sequence[FaceRecord], columns: Sequence[str]) -> dict[str, float]:
    """COLUMN/SUM of every column: how many faces have a value, its sum, and its squares'."""
    sums: dict[str, float] = {}
    for column in columns:
        measured = [f.measured[column] for f in faces if column in f.measured]
        values = (float(len(measured)), sum(measured), sum(v * v for v in measured))
        sums |= {f"{column}/{name}": value for name, value in zip(PER_COLUMN, values, strict=True)}
    return sums
