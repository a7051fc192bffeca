"""The unit's records as Parquet, and its marker."""

import io
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.io.delivered import delivered_name
from pipeline.io.units import Unit
from pipeline.records.marker import Marker, Output
from pipeline.records.rows import (
    DECISIONS,
    FEATURE_COLUMNS,
    LEFT_TEXTS,
    OUTCOMES,
    RUNG_TEXTS,
    Counts,
    FaceRecord,
    ImageRecord,
    with_crops,
)
from pipeline.records.totals import PER_COLUMN
from pipeline.records.verdicts import VERDICT_TEXTS

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
        # why pixels outside of the faces changed, too, or a smaller version did not; null where neither is so
        ("recoded", pa.string()),
        # the image's name where it is delivered as another kind; null where as it came
        ("delivered", pa.string()),
        ("label", pa.string()),  # "xmp", "sidecar: WHY" or "none: WHY"; null for a picture without a label
        ("attempts", pa.int32()),  # of the image's unit: 1, and one more for every --retry; null in face rows
        ("box", pa.list_(pa.float64())),
        ("landmarks", pa.list_(pa.float64())),
        ("affine", pa.list_(pa.float64())),
        ("score", pa.float64()),
        ("scale", pa.float64()),
        ("side", pa.int32()),  # of the face's crop, pixels
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
        ("predicted_error", pa.float64()),  # of the estimate, 0..255; null where the preset predicts none
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
        ("has_crop", pa.bool_()),  # whether anything looked at the face; null in image rows, as what follows
        ("verdict", pa.string()),  # the last one on the face: accept, reject, redo; empty for none
        ("verdict_by", pa.string()),
        ("verdict_at", pa.string()),
        ("verdict_settings", pa.string()),  # of a face that is redone, as JSON
    ]
)
# Columns that the outputs of earlier versions do not have.
VERDICT_COLUMNS = ("verdict", "verdict_by", "verdict_at", "verdict_settings")
SAMPLE_COLUMNS = ("samples", "spread", "spread_identity", "invented")
ADDED_LATER = frozenset(
    {"side", "left_for", "predicted_error", "recoded", "label", "delivered", "rung", "tried", "has_crop"}
    | {*VERDICT_COLUMNS, *SAMPLE_COLUMNS}
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
        what |= {
            "traceback": image.traceback,
            "recoded": image.recoded,
            "label": image.label,
            "delivered": image.delivered,
            "attempts": unit.attempts,
        }
        rows.append({"kind": "image", "face": -1} | address | size | what)
        for face in faces:
            if face.image == place:
                values = {k: v for k, v in vars(face).items() if k != "image"} | face.measured
                values |= {"tried": json.dumps(face.tried)}
                if face.verdict_settings is not None:
                    values |= {"verdict_settings": json.dumps(face.verdict_settings)}
                values |= {n: v for n, v in vectors.get(id(face), {}).items() if np.isfinite(v).all()}
                # a treatment may have a randomness of its own, and one that a person chose a seed
                own = {n: v for n in ("eta", "seed") if (v := getattr(face, n)) is not None}
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


def by_image(rows: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The rows of a table by image: the image's row, then its faces'."""
    groups: list[list[dict[str, Any]]] = []
    for row in rows:
        if row["kind"] == "image" or not groups:
            groups.append([])
        groups[-1].append(row)
    return groups


class ReadRecords(NamedTuple):
    """What `record_table` wrote of an image."""

    image: ImageRecord
    faces: list[FaceRecord]
    # columns of vectors, by the face's number
    features: dict[int, dict[str, list[float]]]


def records_of(
    rows: Sequence[Mapping[str, Any]], place: int, member: str, measured: Sequence[str]
) -> ReadRecords:
    """The records of an image from its row and its faces': `record_table` makes the same rows of them.

    place: of the image in its unit. member: its name, of which the table has what `storable` makes. measured: columns
    that --metrics added.
    """
    first, *others = rows
    known = {f.name for f in fields(ImageRecord)} & first.keys()
    values = {name: first[name] for name in known} | {"member": member}
    if values.get("delivered"):
        values["delivered"] = delivered_name(member, first)
    image = ImageRecord(**values)
    faces, features = [], {}
    for row in others:
        # an earlier version wrote the rest alone
        values = {f.name: row[f.name] for f in fields(FaceRecord) if row.get(f.name) is not None}
        for name in ("tried", "verdict_settings"):
            values |= {name: json.loads(values[name])} if name in values else {}
        if "has_crop" not in values:  # of an earlier version
            values["has_crop"] = row["treatment"] != "left" or row["estimated_change"] is not None
        values |= {"measured": {n: row[n] for n in measured if row.get(n) is not None}}
        faces.append(FaceRecord(**values | {"image": place}))
        features[row["face"]] = {n: row[n] for n in FEATURE_COLUMNS if row.get(n) is not None}
    return ReadRecords(image, faces, features)


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
    verdicts: tuple[str, Mapping[str, str]] = ("", {}),
) -> Marker:
    """The marker of a finished unit. Raises ValueError when an image has no outcome.

    measured: columns whose sums it carries besides. verdicts: digest of those on its faces, and by image's place.
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
        verdicts=verdicts[0],
        verdicts_by_place=verdicts[1],
    )


def decided(faces: Sequence[FaceRecord]) -> dict[str, float]:
    """How many faces were treated in each way, passed the gates with each treatment, and were left for each reason.

    Named as SUMS of records/totals.py.
    """
    counted = Counter(f.treatment for f in faces if not f.error)
    left = Counter(f.left_for for f in faces)
    rungs = Counter(f.rung for f in faces)
    said = Counter(f.verdict for f in faces)
    samples = {
        "faces_sampled": sum(f.spread is not None for f in faces),
        "faces_invented": sum(bool(f.invented) for f in faces),
    }
    return {f"faces_{way}": float(counted[way]) for way in DECISIONS} | {
        **{f"faces_left_{why}": float(left[why]) for why in LEFT_TEXTS if left[why]},
        **{f"faces_rung_{rung}": float(rungs[rung]) for rung in RUNG_TEXTS if rungs[rung]},
        **{f"faces_verdict_{what}": float(said[what]) for what in VERDICT_TEXTS if said[what]},
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
