"""Distances of a run's faces as sets, from the feature columns of its records."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.io import layout, store
from pipeline.metrics.distribution import FeatureStatistics, read_features, sum_records
from pipeline.metrics.inner_products import PairedDistance
from pipeline.records.rows import FEATURE_COLUMNS

# Faces over which a KID is computed: it is unbiased for any number, and its products take their square.
MOST_FACES = 2000


def distances_of_run(output: str, reference: FeatureStatistics | None) -> dict[str, float]:
    """The distances of an output's faces by name; empty where fewer than two have features.

    fid_truth, kid_truth: of the restored faces from the true ones. fid_input, kid_input: from the same faces as they
    came, which were measured where there is no truth. fid_reference, fid_reference_before: of the restored faces, and
    of the faces as they came, from the reference.
    """
    records = store.join(output, layout.RECORDS)
    restored, true, came = sum_records(records, FEATURE_COLUMNS).values()
    if restored.count < 2:
        return {}
    found = {}
    ours = restored.statistics
    for name, column, other in (("truth", "features_truth", true), ("input", "features_before", came)):
        # a run that went on with other --metrics has measured a part of its faces only
        if other.count < 2 or (name == "input" and other.count != restored.count):
            continue
        found[f"fid_{name}"] = ours.distance(other.statistics)
        pairs = read_pairs(records, ("features", column))
        if len(pairs[0]) > 1:
            found[f"kid_{name}"] = PairedDistance(*pairs)()["kid"]
    if reference is not None:
        found["fid_reference"] = ours.distance(reference)
        if came.count == restored.count:
            found["fid_reference_before"] = came.statistics.distance(reference)
    return found


def read_pairs(records: str, columns: Sequence[str]) -> list[NDArray[np.float16]]:
    """[N, D] of each of these columns, of at most MOST_FACES faces that have all; of files in a fixed random order."""
    uris = [e.uri for e in store.list_files(records) if e.path.endswith(".parquet")]
    parts: list[list[NDArray[np.float16]]] = []
    count = 0
    for place in np.random.default_rng(0).permutation(len(uris)):
        found = list(read_features(uris[place], columns, together=True).values())
        if len(found) == len(columns):
            parts.append(found)
            count += len(found[0])
        if count >= MOST_FACES:
            break
    empty = np.zeros((0, 1), np.float16)
    return [np.concatenate(c)[:MOST_FACES] for c in zip(*parts, strict=True)] or [empty for _ in columns]
