"""What a cleaning shows to people: funnel, histograms with thresholds, samples for every reason, drift, cost.

Files below `reports/NNNN`: index.html, funnel.png, histograms.png, grid-REASON.png, summary.json.
"""

import hashlib
import io
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
from PIL import Image, ImageDraw

from pipeline.cleaning.gates import parse_gates
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
from pipeline.reporting.canvas import fitting, font

Pixels = NDArray[np.uint8]
Numbers = NDArray[np.float64]

# of each reason
SAMPLES, TILE, ACROSS = 12, 180, 6
READERS = 4
GROUND, INK, FAINT = (250, 250, 248), (28, 30, 34), (110, 114, 120)
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
# What a picture of a reason is shown with.
TOLD = {
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

    def told(self) -> dict[str, Any]:
        """For people."""
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
        {"condition": g.text, "value": g.value(version), "broken": g.broken(version)}
        for g in parse_gates(config.fail_if)
    ]
    told = {
        "version": asdict(version),
        "gates": gates,
        "drift": changes,
        "cost": asdict(cost) | {"began": None, "wall_seconds": time.monotonic() - cost.began},
        "metrics": metrics(version, changes, cost),
        "made_at": time.time(),
    }
    parts = _sections(version, config, cost, gates, changes, pictures, grids)
    title = f"{store.name_of(output)}, {'census' if config.dry_run else f'version {version.number}'}"
    store.write_bytes(store.join(place, "index.html"), page.document(title, parts).encode())
    # last: a summary says that the report is whole
    store.write_bytes(store.join(place, "summary.json"), json.dumps(told, indent=1).encode())


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
    everything = np.sort(np.concatenate([one, other]))
    below = [np.searchsorted(np.sort(x), everything, "right") / x.size for x in (one, other)]
    return float(np.abs(below[0] - below[1]).max())


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


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained", facecolor="#ffffff")
    FigureCanvasAgg(figure)
    return figure


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def draw_funnel(version: Version) -> bytes:
    """PNG: how many pictures are left after each reason to drop them, and what is done with these."""
    left, names, bars, notes = version.images, ["all pictures"], [version.images], [""]
    for reason in (*REASONS, "blurred", "repair_failed"):
        dropped = version.dropped.get(reason, 0)
        if dropped:
            left -= dropped
            names.append(reason.replace("_", " "))
            bars.append(left)
            notes.append(f"−{dropped}")
    figure = _figure(11, 1.2 + 0.36 * len(bars))
    axes = figure.subplots()
    repaired = version.verdicts.get("repair", 0)
    axes.barh(range(len(bars)), bars, color="#4a7a8c", height=0.62, label="left")
    axes.barh(len(bars) - 1, repaired, left=left - repaired, color="#b8763e", height=0.62, label="repaired")
    for i, (bar, note) in enumerate(zip(bars, notes, strict=True)):
        axes.text(bar, i, f" {bar}  {note}", va="center", fontsize=9)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    return _png(figure)


def draw_histograms(rows: pa.Table, before: pa.Table, config: CleanConfig) -> bytes:
    """PNG: every measured column, with its threshold, and the version before as a line."""
    figure = _figure(12, 9)
    every = iter(figure.subplots(4, 3).flat)
    for (name, (threshold, title)), axes in zip(HISTOGRAMS.items(), every, strict=False):
        axes.set_title(title, loc="left", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        limit = float(getattr(config, threshold))
        now, then = _values(rows, name), _values(before, name)
        if name in LOGARITHMIC:
            now, then = (np.log10(np.maximum(v, 0.1)) for v in (now, then))
            limit = float(np.log10(max(limit, 0.1)))
        if not now.size:
            axes.text(0.5, 0.5, "nothing measured", ha="center", transform=axes.transAxes, color="#6e7278")
            continue
        low, high = min(np.quantile(now, 0.02), limit), max(np.quantile(now, 0.98), limit)
        room = (high - low) * 0.03 or 1.0
        bins = np.linspace(low - room, high + room, 41)
        inside = np.clip(now, bins[0], bins[-1])
        axes.hist(inside, bins, color="#4a7a8c", alpha=0.7, weights=np.full(now.size, 1 / now.size))
        if then.size:
            shares = np.full(then.size, 1 / then.size)
            axes.hist(
                np.clip(then, bins[0], bins[-1]), bins, histtype="step", color="#1c1e22", weights=shares
            )
        axes.axvline(limit, color="#b03a2e", linestyle="--", linewidth=1.2)
    for axes in every:
        axes.set_axis_off()
    return _png(figure)


def draw_grids(output: str, rows: pa.Table, number: int, column: str) -> Iterator[tuple[str, Pixels]]:
    """For every reason that occurs a sheet of sample pictures, those that this version has first before others."""
    for reason in EVERY_REASON:
        of_reason = rows.filter(pc.equal(rows.column("reason"), reason))
        chosen = sample(of_reason, number)
        with ThreadPoolExecutor(READERS) as pool:
            tiles = list(pool.map(lambda row: (show(output, row, rows, column), caption(row)), chosen))
        if tiles:
            yield reason, sheet(tiles, f"{reason.replace('_', ' ')}: {len(tiles)} of {of_reason.num_rows}")


def sample(rows: pa.Table, number: int) -> list[Row]:
    """At most SAMPLES rows, new ones first, chosen by digest, so that the choice is spread evenly."""
    new = (rows.column("since").to_numpy() == number) if rows.num_rows else np.empty(0, np.bool_)
    keys = [hashlib.sha256(name.encode()).digest() for name in rows.column("name").to_pylist()]
    order = sorted(range(rows.num_rows), key=lambda i: (not new[i], keys[i]))[:SAMPLES]
    chosen: list[Row] = rows.take(pa.array(order, pa.int64())).to_pylist()
    return chosen


def caption(row: Row) -> tuple[str, str]:
    """What decided, and the name."""
    values = [f"{name.replace('_', ' ')} {row[name]:.4g}" for name in TOLD.get(row["reason"], ())]
    repeats = f"repeats {row['repeats']}" if row["repeats"] else ""
    return (", ".join(values) or row["problem"] or repeats), row["name"]


def show(output: str, row: Row, rows: pa.Table, column: str) -> Pixels | None:
    """A picture, beside what it was repaired to, or what it repeats; None where it can not be shown."""
    shown = [picture_of(row, column)]
    if row["repaired"]:
        shown.append(_decoded(store.read_bytes(store.join(output, row["repaired"]))))
    if row["repeats"]:
        place = pc.index(rows.column("name"), row["repeats"]).as_py()
        shown.append(picture_of(rows.slice(place, 1).to_pylist()[0], column))
    found = [p for p in shown if p is not None]
    return np.concatenate([fitted(p) for p in found], axis=1) if found else None


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


def fitted(picture: Pixels) -> Pixels:
    """[H, W, 3] uint8 of at most TILE in the middle of a square of that side."""
    height, width = picture.shape[:2]
    tile = np.full((TILE, TILE, 3), 232, np.uint8)
    top, left = (TILE - height) // 2, (TILE - width) // 2
    tile[top : top + height, left : left + width] = picture
    return tile


def sheet(tiles: Sequence[tuple[Pixels | None, tuple[str, str]]], title: str) -> Pixels:
    """Pictures in rows, each above its two lines: [H, W, 3] uint8."""
    wide = max((t.shape[1] for t, _ in tiles if t is not None), default=TILE)
    across = min(max(ACROSS * TILE // wide, 1), len(tiles))
    gap, below, top = 12, 40, 44
    lines = -(-len(tiles) // across)
    size = (max(across * (wide + gap) + gap, 360), top + lines * (TILE + below + gap))
    image = Image.new("RGB", size, GROUND)
    draw = ImageDraw.Draw(image)
    draw.text((gap, 12), fitting(title, font(17, True), size[0] - 2 * gap), INK, font(17, True))
    for i, (tile, texts) in enumerate(tiles):
        x, y = gap + i % across * (wide + gap), top + i // across * (TILE + below + gap)
        if tile is not None:
            image.paste(Image.fromarray(tile), (x, y))
        for line, text in enumerate(texts):
            draw.text(
                (x, y + TILE + 3 + 17 * line), fitting(text, font(12), wide), (INK, FAINT)[line], font(12)
            )
    return np.asarray(image)


# ---- page


def _sections(
    version: Version,
    config: CleanConfig,
    cost: Cost,
    gates: Sequence[Mapping[str, Any]],
    changes: Mapping[str, Any],
    pictures: Mapping[str, bytes],
    grids: Mapping[str, Pixels],
) -> list[str]:
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
    shares = [[reason.replace("_", " "), *s.values()] for reason, s in changes["shares"].items()]
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
    parts += [page.heading("Cost"), page.pairs(cost.told())]
    return [*parts, page.heading("Policy"), page.pairs(config.thresholds())]


def _how_shown(grids: Mapping[str, Pixels]) -> str:
    pairs = {"exact_duplicate", "near_duplicate"} & grids.keys()
    return (
        "duplicates stand to the left of the picture that they repeat, repairs to the right of theirs"
        if pairs or ("blurred" in grids)
        else ""
    )
