"""What a cleaning shows to people: funnel, histograms with thresholds, samples for every reason, drift, cost.

Files below `reports/NNNN`: index.html, funnel.png, histograms.png, grid-REASON.png, summary.json.
"""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.cleaning.gates import gate_value, is_broken, version_gates
from pipeline.cleaning.options import CleanConfig
from pipeline.cleaning.policy import EVERY_REASON, REASONS
from pipeline.cleaning.versions import Version
from pipeline.console.progress import duration
from pipeline.faces.detect import shrink_to
from pipeline.io import images, store
from pipeline.io.names import unescape_surrogates
from pipeline.io.readers import read_unit
from pipeline.io.units import Address, Unit
from pipeline.records.rows import Row
from pipeline.reporting import page
from pipeline.reporting.palette import FAINT, INK, OCHRE, RED, TEAL
from pipeline.reporting.plots import Figure, Panel, Series
from pipeline.reporting.sheet import Card, Group, Line, draw_sheet
from pipeline.reporting.sheet import Row as SheetRow
from pipeline.reporting.text import words

Pixels = NDArray[np.uint8]
Numbers = NDArray[np.float64]

# of each reason
SAMPLES, TILE, ACROSS = 12, 180, 6
READERS = 4
# Measured column → its threshold in the policy, and how it is called.
HISTOGRAMS: Mapping[str, tuple[str, str]] = {
    "short_side": ("min_side", "shorter side (px)"),
    "aspect": ("max_aspect", "longer side / shorter side"),
    "light": ("min_light", "lightest hundredth (share of white)"),
    "dark": ("max_dark", "darkest twentieth (share of white)"),
    "entropy": ("min_entropy", "entropy of the greys (bits)"),
    "faces": ("max_faces", "faces"),
    "face_size": ("min_face", "largest face (px)"),
    "face_margin": ("min_margin", "face to frame (share of its side)"),
    "face_sharpness": ("min_sharpness", "variance of the face's Laplacian, log10"),
    "face_crispness": ("min_crispness", "crispness of the faces"),
    "face_scale": ("max_scale", "face / preset's side"),
}
LOGARITHMIC = frozenset({"face_sharpness"})
# Reason → the measured columns that are set beneath a picture dropped for it.
DECIDING_COLUMNS = {
    "too_small": ("width", "height"),
    "odd_aspect": ("width", "height"),
    "too_dark": ("light",),
    "too_bright": ("dark",),
    "low_information": ("entropy",),
    "too_many_faces": ("faces",),
    "face_too_small": ("face_size",),
    "face_cut_off": ("face_margin",),
    "too_blurred": ("face_sharpness",),
    "blurred": ("face_crispness",),
    "sharp": ("face_crispness",),
    "large": ("face_scale",),
}


@dataclass
class Cost:
    """What a start took, and what repairing takes."""

    began: float
    pictures: int = 0
    bytes: int = 0
    # of one CPU, over all tasks
    measuring_seconds: float = 0.0
    repair_seconds: float = 0.0
    faces_to_repair: int = 0
    # of one device, for all faces to repair; None where it is not known
    gpu_seconds: float | None = None
    cpu_seconds: float | None = None

    def add(self, row: Row) -> None:
        """Take what measuring one unit took."""
        self.pictures += row["images"]
        self.bytes += row["bytes"]
        self.measuring_seconds += row["seconds"]

    def summary(self) -> dict[str, Any]:
        """For people, by what it is of."""
        values: dict[str, Any] = {
            "pictures measured": self.pictures,
            "bytes read": f"{self.bytes / 1e6:.1f} MB",
            "measuring, CPU time": duration(self.measuring_seconds),
            "repairing, wall time": duration(self.repair_seconds),
            "wall time": duration(time.monotonic() - self.began),
            "faces in pictures to repair": self.faces_to_repair,
        }
        if self.gpu_seconds is not None and self.cpu_seconds is not None:
            values |= {"repairing them on one GPU": f"{self.gpu_seconds / 3600:.3g} GPU hours, expected"}
            values |= {"repairing them on one CPU": f"{duration(self.cpu_seconds)}, expected"}
        return values


def write_report(
    output: str,
    folder: str,
    version: Version,
    rows: pa.Table,
    parent: pa.Table,
    config: CleanConfig,
    cost: Cost,
) -> None:
    """Write a version's report below the output. rows: its pictures; parent: those of the version before."""
    place = store.join(output, folder)
    before = parent.filter(pc.not_equal(parent.column("verdict"), "deleted"))
    changes = drift(version, rows, before)
    pictures = {"funnel": draw_funnel(version), "histograms": draw_histograms(rows, before, config)}
    grids = dict(draw_grids(output, rows, version.number, config.image_column))
    for name, sheet in grids.items():
        pictures[f"grid-{name}"] = images.encode_png(sheet)
    for name, data in pictures.items():
        store.write_bytes(store.join(place, f"{name}.png"), data)
    gates = [
        {"condition": g.text, "value": gate_value(g, version), "broken": is_broken(g, version)}
        for g in version_gates(config.fail_if)
    ]
    summary = {
        "version": asdict(version),
        "gates": gates,
        "drift": changes,
        "cost": asdict(cost) | {"began": None, "wall_seconds": time.monotonic() - cost.began},
        "metrics": metrics(version, changes, cost),
        "made_at": time.time(),
    }
    parts = _sections(version, config, cost, gates, changes, pictures, grids)
    title = f"{store.name_of(output)}, {'dry run' if config.dry_run else f'version {version.number}'}"
    store.write_bytes(store.join(place, "index.html"), page.document(title, parts).encode())
    # last: a summary says that the report is whole
    store.write_bytes(store.join(place, "summary.json"), json.dumps(summary, indent=1).encode())


def metrics(version: Version, changes: Mapping[str, Any], cost: Cost) -> dict[str, float]:
    """A version's numbers, for a series over versions."""
    total = max(version.images, 1)
    values: dict[str, float] = {"images": version.images, "new_images": version.new_images}
    values |= {"deleted": version.deleted, "seconds_measuring": cost.measuring_seconds}
    values |= {f"share.{name}": n / total for name, n in {**version.verdicts, **version.reasons}.items()}
    return values | {f"drift.{name}": value for name, value in changes["distances"].items()}


# ---- drift


def drift(version: Version, rows: pa.Table, before: pa.Table) -> dict[str, Any]:
    """How this version, and what is new in it, differs from the one before.

    shares: of each reason, before, now and among the new pictures. distances: of each measured column the
    Kolmogorov-Smirnov distance between the new pictures and the version before, 0 (alike) to 1; empty for a first one.
    """
    new = rows.filter(pc.equal(rows.column("since"), version.number))
    tables = {"before": before, "now": rows, "new": new}
    shares = {
        reason: {name: _share(table, reason) for name, table in tables.items()}
        for reason in EVERY_REASON
        if any(_share(table, reason) for table in tables.values())
    }
    distances = {}
    for name in HISTOGRAMS:
        one, other = _values(before, name), _values(new, name)
        if one.size and other.size:
            distances[name] = round(kolmogorov_smirnov(one, other), 4)
    return {"shares": shares, "distances": distances}


def _share(table: pa.Table, reason: str) -> float:
    found = pc.sum(pc.equal(table.column("reason"), reason)).as_py() or 0
    return float(found / max(table.num_rows, 1))


def kolmogorov_smirnov(one: Numbers, other: Numbers) -> float:
    """The largest difference of the two samples' distribution functions."""
    from scipy.stats import ks_2samp

    # the p-value goes unused, and its asymptotic form is quick and without warnings
    return float(ks_2samp(one, other, method="asymp").statistic)


def _values(table: pa.Table, name: str) -> Numbers:
    """The finite values of a measured column, or of one that is made of width and height."""
    if name in ("short_side", "aspect"):
        width, height = _column(table, "width"), _column(table, "height")
        short, long = np.minimum(width, height), np.maximum(width, height)
        values = short if name == "short_side" else long / short
    else:
        values = _column(table, name)
    return values[np.isfinite(values)]


def _column(table: pa.Table, name: str) -> Numbers:
    values: Numbers = table.column(name).cast(pa.float64()).to_numpy()
    return values


# ---- drawings


def draw_funnel(version: Version) -> bytes:
    """PNG: how many pictures are left after each reason to drop them, and what is done with these."""
    left, bars, texts = version.images, {"all pictures": float(version.images)}, [f"{version.images}  "]
    for reason in (*REASONS, "blurred", "repair_failed"):
        dropped = version.dropped.get(reason, 0)
        if dropped:
            left -= dropped
            bars[words(reason)] = left
            texts.append(f"{left}  −{dropped}")
    repaired = version.verdicts.get("repair", 0)
    figure = Figure((11, 1.2 + 0.36 * len(bars)))
    [panel] = figure.panels
    panel.bars(bars, texts, TEAL, "left")
    panel.bar_part(len(bars) - 1, left - repaired, repaired, OCHRE, "repaired")
    panel.legend("lower right")
    return figure.png()


def draw_histograms(rows: pa.Table, before: pa.Table, config: CleanConfig) -> bytes:
    """PNG: every measured column, with its threshold, and the version before as a line."""
    figure = Figure((12, 9), 4, 3)
    for name, panel in zip(HISTOGRAMS, figure.panels, strict=False):
        _draw_histogram(panel, name, _values(rows, name), _values(before, name), config)
    for panel in figure.panels[len(HISTOGRAMS) :]:
        panel.hide()
    return figure.png()


def _draw_histogram(panel: Panel, name: str, now: Numbers, then: Numbers, config: CleanConfig) -> None:
    """The bins reach over all but the outermost 2 % at each end, and over the threshold."""
    threshold, title = HISTOGRAMS[name]
    limit = float(getattr(config, threshold))
    if name in LOGARITHMIC:
        now, then = (np.log10(np.maximum(v, 0.1)) for v in (now, then))
        limit = float(np.log10(max(limit, 0.1)))
    panel.title(title)
    if not now.size:
        panel.nothing()
        return
    series = [Series(now), *([Series(then, INK, outlined=True)] if then.size else [])]
    panel.histograms(series, (0.02, 0.98), [limit], shares=True)
    panel.reference("x", limit, RED, "--")


def draw_grids(output: str, rows: pa.Table, number: int, column: str) -> Iterator[tuple[str, Pixels]]:
    """For every reason that occurs a sheet of sample pictures, those that this version has first before others."""
    for reason in EVERY_REASON:
        of_reason = rows.filter(pc.equal(rows.column("reason"), reason))
        chosen = sample(of_reason, number)
        with ThreadPoolExecutor(READERS) as pool:
            cards = list(pool.map(lambda row: Card(show(output, row, rows, column), caption(row)), chosen))
        if cards:
            yield reason, samples_sheet(cards, f"{words(reason)}: {len(cards)} of {of_reason.num_rows}")


def sample(rows: pa.Table, number: int) -> list[Row]:
    """At most SAMPLES rows, new ones first, chosen by digest, so that the choice is spread evenly."""
    new = (rows.column("since").to_numpy() == number) if rows.num_rows else np.empty(0, np.bool_)
    keys = [hashlib.sha256(name.encode()).digest() for name in rows.column("name").to_pylist()]
    order = sorted(range(rows.num_rows), key=lambda i: (not new[i], keys[i]))[:SAMPLES]
    chosen: list[Row] = rows.take(pa.array(order, pa.int64())).to_pylist()
    return chosen


def caption(row: Row) -> list[Line]:
    """What decided, and the name."""
    values = [f"{words(name)} {row[name]:.4g}" for name in DECIDING_COLUMNS.get(row["reason"], ())]
    repeats = f"repeats {row['repeats']}" if row["repeats"] else ""
    return [Line(", ".join(values) or row["problem"] or repeats), Line(row["name"], FAINT)]


def show(output: str, row: Row, rows: pa.Table, column: str) -> list[Pixels | None]:
    """A picture, and beside it what it was repaired to, or what it repeats; None for what can not be shown."""
    shown = [picture_of(row, column)]
    if row["repaired"]:
        shown.append(_decoded(store.read_bytes(store.join(output, row["repaired"]))))
    if row["repeats"]:
        place = pc.index(rows.column("name"), row["repeats"]).as_py()
        shown.append(picture_of(rows.slice(place, 1).to_pylist()[0], column))
    return shown


def picture_of(row: Row, column: str) -> Pixels | None:
    """The picture of a manifest's row, as it is now; None for one that can not be read."""
    if not row["sha256"]:
        return None
    address = Address(row["member"], unescape_surrogates(row["uri"]), row["offset"], row["length"])
    ((_, data),) = read_unit(Unit("report", "folder", 0, True, (address,)), column)
    return None if isinstance(data, store.StoreError) else _decoded(data)


def _decoded(data: bytes) -> Pixels | None:
    try:
        return shrink_to(images.decode_rgb(data), TILE)[0]
    except images.ImageError:
        return None


def samples_sheet(cards: Sequence[Card], title: str) -> Pixels:
    """The cards in rows as long as a page is wide: [H, W, 3] uint8."""
    across = max(ACROSS // max(len(card.pictures) for card in cards), 1)
    rows = [SheetRow(cards[start : start + across]) for start in range(0, len(cards), across)]
    return draw_sheet(title, [[Group(rows)]], TILE, enlarge=False)


# ---- page


def _sections(
    version: Version,
    config: CleanConfig,
    cost: Cost,
    gates: Sequence[Mapping[str, Any]],
    changes: Mapping[str, Any],
    pictures: Mapping[str, bytes],
    grids: Mapping[str, Pixels],
) -> list[page.Part]:
    """The page's parts, in the order in which people ask."""
    counted = {"pictures": version.images} | {
        v: version.verdicts.get(v, 0) for v in ("keep", "repair", "drop")
    }
    parts = [page.tiles(counted | {"new": version.new_images, "deleted": version.deleted})]
    if gates:
        lines = [[g["condition"], g["value"], "broken" if g["broken"] else "holds"] for g in gates]
        parts += [page.heading("Quality gates"), page.table(["condition", "value", ""], lines)]
    parts += [
        page.heading("Funnel"),
        page.picture(pictures["funnel"], "png", "pictures left after each reason"),
    ]
    parts += [page.heading("Drift")]
    shares = [[words(reason), *s.values()] for reason, s in changes["shares"].items()]
    since = f"version {version.parent}" if version.parent else "before"
    parts += [page.table(["reason", f"share in {since}", "now", "among the new"], shares)]
    if changes["distances"]:
        parts += [
            page.note("Kolmogorov-Smirnov distance of the new pictures from the version before, 0 to 1")
        ]
        parts += [page.pairs(changes["distances"])]
    parts += [page.heading("What was measured"), page.note("dashed: the threshold; line: the version before")]
    parts += [page.picture(pictures["histograms"], "png", "histograms with thresholds")]
    parts += [page.heading("Samples"), page.note(_how_shown(grids))]
    parts += [page.picture(images.encode_jpeg(grid, 88), "jpeg", name) for name, grid in grids.items()]
    parts += [page.heading("Cost"), page.pairs(cost.summary())]
    return [*parts, page.heading("Policy"), page.pairs(config.thresholds())]


def _how_shown(grids: Mapping[str, Pixels]) -> str:
    pairs = {"exact_duplicate", "near_duplicate"} & grids.keys()
    return (
        "duplicates are left of the picture that they repeat, repairs right of the original"
        if pairs or ("blurred" in grids)
        else ""
    )
