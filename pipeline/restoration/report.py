"""What a run shows to people: contact sheet, plots and one HTML page, from what the run left in its output.

Strips of sample faces, before and as delivered, are made by the workers (pipeline/stages/sample.py), the rest by the
driver at the end. Files are read and written through pipeline/io/store.py only, so that an output on S3 gets the same
report.
"""

import hashlib
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.io import images, layout, store
from pipeline.io.fence import write_while
from pipeline.io.tables import read_table
from pipeline.reporting import page
from pipeline.reporting.palette import FAINT, OCHRE, TEAL
from pipeline.reporting.plots import Figure, Series
from pipeline.reporting.sheet import LARGEST_TILE, SMALLEST_TILE, Card, Group, Line, Row, draw_sheet
from pipeline.stages.sample import Shown, read_strip

# What the files of the report are, for who reads the output again.
COLUMNS = ("before", "delivered", "what was decided")
SHEET_FACES = 60
# the page stays small whatever the size of the run
SHOWN_FAILURES, SHOWN_SHARDS = 100, 500
FAILURE_COLUMNS = ("member", "stage", "reason", "error")
# records files read for the plots, chosen evenly; and at most, in search of the failures
PLOT_FILES, SEARCHED_FILES = 400, 5000
READERS = 16

Pixels = NDArray[np.uint8]


def contact_sheet(faces: Sequence[Shown], title: str, limit: int = SHEET_FACES) -> Pixels:
    """One picture of at most `limit` faces, taken evenly, in panels of three named columns: [H, W, 3] uint8 RGB."""
    chosen = [faces[i] for i in evenly(len(faces), limit)]
    panels = 1 + (len(chosen) > 5) + (len(chosen) > 20)
    wanted = LARGEST_TILE if len(chosen) <= 12 else 192 if len(chosen) <= 30 else SMALLEST_TILE
    side = min([wanted, *(len(tiles) for tiles, _ in chosen)])
    rows = [_face_row(tiles, decision) for tiles, decision in chosen]
    down = -(-len(rows) // panels)  # of every panel but the last
    columns = [Line(name, bold=True) for name in COLUMNS]
    parts = [rows[start : start + down] for start in range(0, len(rows), max(down, 1))]
    below = f"{len(chosen)} sample faces, each as it came, as it was delivered, and what was decided of it"
    return draw_sheet(
        title,
        [[Group(part, columns, beside=True) for part in parts]],
        side,
        below if chosen else "no face was found",
    )


def _face_row(tiles: Pixels, decision: str) -> Row:
    """A face: its two tiles, its picture's name, and what was decided of it."""
    name, _, decided = decision.rpartition("\n")
    names = [Line(line, FAINT) for line in name.split("\n") if line]
    return Row([Card(np.split(tiles, 2, axis=1), [*names, Line(decided, wrap=True)])])


def write_report(
    output_uri: str, summary: Mapping[str, Any], is_held: Callable[[], bool] = lambda: True
) -> None:
    """Write OUT/report/: contact_sheet.png, histograms.png, shards.parquet (where there are any) and index.html.

    Last comes `_ledger/report.json` with the size and sha256 of each, for verification.

    summary: `title`; `outcomes`, `settings`, `measured` and `means`, each a mapping; `shards`, a list of mappings;
    any other value is a line of the table at the top. All may be missing. is_held: whether the output still is ours to
    write to, by a fresh look. Raises Fenced where it is not, or StoreError.
    """
    written: list[dict[str, Any]] = []

    def write(name: str, data: bytes) -> None:
        path = layout.report_path(name)
        write_while(is_held, output_uri, path, data)
        written.append({"path": path, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)})

    # a report of which only a part is new can not be compared
    write_while(is_held, output_uri, layout.REPORT_FILES, b"[]")
    title = str(summary.get("title", store.name_of(output_uri)))
    sheet = contact_sheet(_read_strips(store.join(output_uri, layout.SAMPLES)), title)
    write("contact_sheet.png", images.encode_png(sheet))
    failed = int(summary.get("outcomes", {}).get("failed", 0))
    records = _read_records(store.join(output_uri, layout.RECORDS), failed)
    plots = _histograms(records, summary.get("means", {}))
    if plots:
        write("histograms.png", plots)
    shards = _same_keys(summary.get("shards", []))
    if shards:
        write("shards.parquet", _table_bytes(shards))
    parts = _sections(summary, shards, records, images.encode_jpeg(sheet, 90), plots)
    write("index.html", page.document(title, parts).encode())
    write_while(is_held, output_uri, layout.REPORT_FILES, json.dumps(written, indent=1).encode())


def _sections(
    summary: Mapping[str, Any],
    shards: Sequence[Mapping[str, Any]],
    records: "_Records",
    sheet: bytes,
    plots: bytes,
) -> list[page.Part]:
    """The page's parts, in the order in which people ask."""
    known = ("title", "outcomes", "settings", "means", "measured", "shards")
    outcomes = dict(summary.get("outcomes", {}))
    partly = f"from {records.read} of {records.files} records files, chosen evenly"
    coverage = page.note(partly if records.read < records.files else "")
    parts = [page.tiles(outcomes | {k: v for k, v in summary.items() if k not in known})]
    alternative = "rows of faces: before, as they were delivered, and what was decided of each"
    parts += [page.heading("Contact sheet"), page.picture(sheet, "jpeg", alternative)]
    if plots:
        parts += [page.heading("Distributions"), coverage, page.picture(plots, "png", "histograms")]
    if records.failures:
        failed = max(int(outcomes.get("failed", 0)), len(records.failures))
        some = f"{len(records.failures)} of {failed}" if failed > len(records.failures) else ""
        parts += [page.heading("Failed images"), page.note(some)]
        parts.append(page.table(["image", *FAILURE_COLUMNS[1:]], records.failures))
    if records.skipped:
        parts += [page.heading("Skipped images by reason"), coverage, page.pairs(records.skipped)]
    if shards:
        some = f"the first {SHOWN_SHARDS} of {len(shards)}; shards.parquet has all of them"
        parts += [page.heading("Shards"), page.note(some if len(shards) > SHOWN_SHARDS else "")]
        parts.append(page.table(list(shards[0]), [list(s.values()) for s in shards[:SHOWN_SHARDS]]))
    for name, title in (
        ("measured", "Measured, means over faces ± 95 % interval"),
        ("means", "Means over the run"),
        ("settings", "Settings"),
    ):
        if summary.get(name):
            parts += [page.heading(title), page.pairs(summary[name])]
    return parts


@dataclass
class _Records:
    """What the plots and the list of failures need of the records."""

    files: int = 0
    read: int = 0
    face_sizes: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    sharpness_before: list[float] = field(default_factory=list)
    sharpness_after: list[float] = field(default_factory=list)
    # values of FAILURE_COLUMNS
    failures: list[list[str]] = field(default_factory=list)
    # images by reason, over the files read
    skipped: dict[str, int] = field(default_factory=dict)

    def add(self, rows: Iterable[Mapping[str, Any]], plotted: bool) -> None:
        """Take one file's rows."""
        for row in rows:
            if row["kind"] == "image" and row["outcome"] == "failed":
                if len(self.failures) < SHOWN_FAILURES:
                    self.failures.append([str(row[n] or "") for n in FAILURE_COLUMNS])
            elif row["kind"] == "image" and row["outcome"] == "skipped":
                reason = str(row["reason"] or "no reason recorded")
                self.skipped[reason] = self.skipped.get(reason, 0) + 1
            elif row["kind"] == "face" and plotted:
                self._add_face(row)

    def _add_face(self, row: Mapping[str, Any]) -> None:
        if row["box"]:
            x0, y0, x1, y1 = row["box"][:4]
            self.face_sizes.append(math.sqrt(max((x1 - x0) * (y1 - y0), 0.0)))
        values = (self.scores, "score"), (self.sharpness_before, "sharpness_before")
        for into, name in (*values, (self.sharpness_after, "sharpness_after")):
            if row[name] is not None:
                into.append(row[name])


def _read_strips(folder: str) -> list[Shown]:
    """The faces of at most SHEET_FACES strips, chosen evenly."""
    entries = store.list_files(folder) if store.exists(folder) else []
    chosen = [entries[i] for i in evenly(len(entries), SHEET_FACES)]
    with ThreadPoolExecutor(READERS) as pool:
        return [
            face for data in pool.map(store.read_bytes, [e.uri for e in chosen]) for face in read_strip(data)
        ]


def _read_records(folder: str, failed: int) -> _Records:
    """The records for plots and failures: of small runs all, of large ones an even choice for the plots, and then
    more until as many failures are found as there are, or as are shown.
    """

    entries = store.list_files(folder) if store.exists(folder) else []
    uris = [e.uri for e in entries if e.path.endswith(".parquet")]
    plotted = [uris[i] for i in evenly(len(uris), PLOT_FILES)]
    others = sorted(set(uris) - set(plotted))
    searched = [others[i] for i in evenly(len(others), SEARCHED_FILES - len(plotted))]
    names = ["kind", "member", "outcome", "reason", "stage", "error", "box", "score"]
    names += ["sharpness_before", "sharpness_after"]
    records = _Records(files=len(uris))

    def rows(uri: str) -> list[dict[str, Any]]:
        table = read_table(store.read_bytes(uri), names)
        return table.to_pylist()  # type: ignore[no-any-return]

    with ThreadPoolExecutor(READERS) as pool:
        for found in pool.map(rows, plotted):
            records.add(found, plotted=True)
            records.read += 1
        for start in range(0, len(searched), READERS):
            if len(records.failures) >= min(failed, SHOWN_FAILURES):
                break
            for found in pool.map(rows, searched[start : start + READERS]):
                records.add(found, plotted=False)
                records.read += 1
    return records


def _histograms(records: _Records, means: Mapping[str, Any]) -> bytes:
    """PNG of face sizes, sharpness before and after, scores, and seconds per stage; empty when there is nothing."""
    seconds = {n.removeprefix("seconds_"): float(v) for n, v in means.items() if n.startswith("seconds_")}
    if not records.face_sizes and not any(seconds.values()):
        return b""
    figure = Figure((11, 6.2), 2, 2)
    size, sharpness, score, stages = figure.panels
    size.title("face size (px, side of the box)", y="faces")
    size.histograms([Series(records.face_sizes)])
    sharpness.title("sharpness of the faces", y="faces")
    before = Series(records.sharpness_before, OCHRE, "before")
    sharpness.histograms([before, Series(records.sharpness_after, TEAL, "restored")])
    sharpness.legend()
    score.title("detection score", y="faces")
    score.histograms([Series(records.scores)])
    stages.title("seconds per stage")
    stages.bars(seconds, [f"{v:.3g}" for v in seconds.values()])
    return figure.png()


def _same_keys(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows with every key that any of them has: a shard without faces has no mean over faces."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return [{name: row.get(name) for name in names} for row in rows]


def _table_bytes(rows: Sequence[dict[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows)), buffer)
    return buffer.getvalue()


def evenly(count: int, limit: int) -> list[int]:
    """At most `limit` of the numbers below `count`, ends included, spread evenly."""
    if count <= limit:
        return list(range(count))
    return [round(i * (count - 1) / max(limit - 1, 1)) for i in range(limit)]
