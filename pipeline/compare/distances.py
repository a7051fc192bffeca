"""Distances of two runs' faces as sets, FID and KID, with the interval of their difference.

Over the same faces in both runs, at most MOST_FACES of them, the first by digest. The interval is that of the
delete-half jackknife: the pictures are halved at random, DRAWS times, and both runs' distances taken over the faces of
the same half. With r of G pictures kept, the squared error of the difference is r / (G - r) times the variance of the
draws (Shao & Wu 1989). Drawing without replacement repeats no face, as a bootstrap does, and a repeated face biases
both distances.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from pipeline.compare.paired import LEVEL, conclusion
from pipeline.compare.pairs import NEEDED, Rows, read_unit_table
from pipeline.compare.runs import READERS, Compared
from pipeline.metrics.directions import Better
from pipeline.metrics.distribution import FeatureStatistics
from pipeline.metrics.inner_products import PairedDistance, ReferenceDistance, SetDistance
from pipeline.records.rows import FEATURES_LENGTH
from pipeline.reporting import page

# A draw takes an eigenproblem of half as many faces for each run.
MOST_FACES, DRAWS = 2000, 40
# with fewer pictures a half says nothing of the whole
LEAST_IMAGES = 10
# what the restored faces are compared with → its feature column
COLUMNS: Mapping[str, str] = {"truth": "features_truth", "input": "features_before"}
INPUT = "input"
HOW = (
    "Distances of the restored faces as sets, over the same faces in both runs: from the true faces, from the same "
    "faces as they came (input), or from the reference. FID of few faces is too high, and its difference too large, by "
    "amounts that fall with their number: compare those of one number only. KID is unbiased for any number. Intervals "
    "say how the difference varies over pictures at this number of faces (random halves of them)."
)

Features = dict[str, NDArray[np.float16]]


@dataclass(frozen=True)
class Distance:
    """A distance of both runs' faces, and its difference B - A."""

    name: str
    faces: int
    images: int
    a: float
    b: float
    # bounds of the difference's confidence interval; None below LEAST_IMAGES pictures
    low: float | None
    high: float | None

    @property
    def better(self) -> Better:
        """The direction that is better: faces that differ from their inputs may be better or worse."""
        return "neither" if self.name.endswith(INPUT) else "down"

    @property
    def verdict(self) -> str:
        """The conclusion, in two or three words."""
        if self.low is None or self.high is None:
            return f"fewer than {LEAST_IMAGES} pictures"
        return conclusion(self.low, self.high, self.better)

    def values(self) -> dict[str, Any]:
        """For compare.json."""
        more = {"difference": self.b - self.a, "better": self.better, "verdict": self.verdict}
        return asdict(self) | more


def set_distances(
    a: Compared, b: Compared, pairs: Rows, reference: FeatureStatistics | None
) -> dict[str, Distance]:
    """Every distance that both runs' records have features for, by name: fid_truth, kid_truth, fid_input, ...

    pairs: of `pair_type`, in a random order.
    """
    pairs = pairs[:MOST_FACES]
    if not len(pairs):
        return {}
    (ours, _), (theirs, digests) = (
        read_features_at(run, pairs[f"file_{side}"], pairs[f"row_{side}"])
        for run, side in ((a, "a"), (b, "b"))
    )
    _, image = np.unique(digests, return_inverse=True)
    found: dict[str, Distance] = {}
    for against, column in COLUMNS.items():
        known = np.isfinite([f[c][:, 0] for f in (ours, theirs) for c in ("features", column)]).all(axis=0)
        if known.sum() > 1:
            makers = [PairedDistance(f["features"][known], f[column][known]) for f in (ours, theirs)]
            found |= difference(against, makers, image[known])
    known = np.isfinite([f["features"][:, 0] for f in (ours, theirs)]).all(axis=0)
    if reference is not None and known.sum() > 1:
        from_it = [ReferenceDistance(f["features"][known], reference) for f in (ours, theirs)]
        found |= difference("reference", from_it, image[known])
    return found


def read_features_at(
    compared: Compared, files: NDArray[np.int64], rows: NDArray[np.int64]
) -> tuple[Features, NDArray[np.str_]]:
    """[N, D] of every feature column at these rows of records, nan in rows without, and the pictures' digests.

    files: number of each face's unit; rows: of its row in the unit's table.
    """
    columns = ("features", *COLUMNS.values())
    found = {name: np.full((len(files), FEATURES_LENGTH), np.nan, np.float16) for name in columns}
    digests = np.empty(len(files), "U64")

    def read(file: int) -> None:
        mine = np.flatnonzero(files == file)
        table = read_unit_table(compared, compared.units[file], [*NEEDED, *columns]).take(rows[mine])
        digests[mine] = table.column("sha256").to_pylist()
        for name in (n for n in columns if n in table.schema.names):
            column = table.column(name).combine_chunks()
            vectors = column.drop_null().flatten().to_numpy(zero_copy_only=False)
            known = column.is_valid().to_numpy(zero_copy_only=False)
            found[name][mine[known]] = vectors.reshape(-1, FEATURES_LENGTH)

    with ThreadPoolExecutor(READERS) as pool:
        list(pool.map(read, np.unique(files).tolist()))
    return found, digests


def difference(
    against: str, distances: Sequence[SetDistance], image: NDArray[np.int64]
) -> dict[str, Distance]:
    """The distances of A and B and their difference's interval, by name. image: [N] picture of each face."""
    a, b = (distance() for distance in distances)
    numbers = np.unique(image)
    reach = dict.fromkeys(a, float("nan"))
    if len(numbers) >= LEAST_IMAGES:
        reach = _reach(distances, image, numbers)
    found = {}
    for name in a:
        gap, half = b[name] - a[name], reach[name]
        ends = (gap - half, gap + half) if np.isfinite(half) else (None, None)
        called = f"{name}_{against}"
        found[called] = Distance(called, len(image), len(numbers), a[name], b[name], *ends)
    return found


def _reach(
    distances: Sequence[SetDistance], image: NDArray[np.int64], numbers: NDArray[np.int64]
) -> dict[str, float]:
    """Half width of the interval of each difference."""
    rng = np.random.default_rng(0)
    kept = len(numbers) // 2
    draws: dict[str, list[float]] = {}
    for _ in range(DRAWS):
        part = np.flatnonzero(np.isin(image, rng.permutation(numbers)[:kept]))
        a, b = (distance(part) for distance in distances)
        for name in a:
            draws.setdefault(name, []).append(b[name] - a[name])
    scale = kept / (len(numbers) - kept)
    quantile = float(stdtrit(len(numbers) - 1, 0.5 + LEVEL / 2))
    return {name: quantile * float(np.sqrt(scale * np.var(d, ddof=1))) for name, d in draws.items()}


def distance_parts(distances: Mapping[str, Mapping[str, Any]]) -> list[page.Part]:
    """The section of the page; nothing without distances."""
    if not distances:
        return []
    columns = ["distance", "A", "B", "B less A", "95% interval", "faces", ""]
    rows = [
        [n, d["a"], d["b"], d["difference"], interval(d), d["faces"], d["verdict"]]
        for n, d in distances.items()
    ]
    return [page.heading("Distances of the faces as sets"), page.note(HOW), page.table(columns, rows)]


def distance_lines(distances: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """The same for a terminal."""
    for name, d in distances.items():
        numbers = f"{d['a']:>10.4g} {d['b']:>10.4g} {d['difference']:>+10.4g}"
        yield f"{name:<18} {numbers}   {interval(d):<24} {'':>6}  {d['verdict']}, {d['faces']} faces"


def interval(distance: Mapping[str, Any]) -> str:
    """The interval of a difference, for people."""
    if distance["low"] is None:
        return "not known"
    return f"{distance['low']:+.4g} … {distance['high']:+.4g}"
