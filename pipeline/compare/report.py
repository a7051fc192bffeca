"""What a comparison says: as values for programs, as a page for people, as lines for a terminal."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from pipeline.compare.crops import Face, both_saved, cut_faces
from pipeline.compare.distances import Distance, distance_lines, distance_parts, set_distances
from pipeline.compare.draw import Measured, ShownFace, differences_plot, faces_sheet
from pipeline.compare.notes import asides, uncounted
from pipeline.compare.paired import LEVEL, SAME, Paired, PairedSums
from pipeline.compare.pairs import Comparison, columns_of, compare
from pipeline.compare.runs import Compared, Refused, caveats, comparable, difference_of_settings
from pipeline.io import store
from pipeline.metrics.directions import METRIC_INFO, metric_info
from pipeline.metrics.distribution import FeatureStatistics
from pipeline.records.rows import OUTCOMES
from pipeline.reporting import page
from pipeline.reporting.text import value_text, words

# Faces are chosen by the first of these that was measured, else by their pixels.
PREFERRED = ("lpips", "quality_after", "ids", "psnr", "ssim", "identity_kept")
PIXELS = "pixels"
# the page stays small whatever the size of the runs; compare.json has all of it
SHOWN_SHARDS, SHOWN_SETTINGS = 500, 100
HOW = (
    f"{LEVEL:.0%} intervals of the mean difference B less A over the same faces, by Student's t with the pictures as "
    "draws: faces of one picture are not independent. They are not widened for the number of measurements."
)


@dataclass(frozen=True)
class Result:
    """Two runs compared."""

    a: Compared
    b: Compared
    found: Comparison
    # measurements that mean different things in the two runs, and why
    left_out: Mapping[str, str]
    # what the shown faces were chosen by
    by: str
    panels: list[tuple[str, list[Face]]] = field(default_factory=list)
    # mean absolute difference of the two restorations over some faces; None where none could be cut
    pixels: Paired | None = None
    # of the faces as sets, by name; empty where a run has no features
    distances: Mapping[str, Distance] = field(default_factory=dict)

    def paired(self) -> dict[str, Paired]:
        """Every measurement that can be compared and has pairs."""
        named = {name: s.paired() for name, s in zip(self.found.names, self.found.sums, strict=True)}
        return {n: p for n, p in named.items() if p is not None and n not in self.left_out}


def compare_runs(
    a: Compared,
    b: Compared,
    by: str | None,
    shown: int,
    sampled: int,
    reference: FeatureStatistics | None = None,
) -> Result:
    """Compare two runs.

    by: measurement by which faces are chosen to be shown, or PIXELS. shown: so many faces. sampled: faces of which
    pixels are compared. reference: set from which the faces' distance is compared. Raises Refused or StoreError.
    """
    columns_b = set(columns_of(b))
    names = [n for n in columns_of(a) if n in columns_b]
    names.sort(key=lambda n: list(METRIC_INFO).index(n) if n in METRIC_INFO else len(METRIC_INFO))
    found = compare(a, b, names)
    at_side = [n for n in names if metric_info(n).at_side]
    result = Result(a, b, found, comparable(names, a, b, at_side), "")
    measured = result.paired()
    if by not in (None, PIXELS, *measured):
        known = ", ".join([PIXELS, *measured])
        raise Refused(f"--by {by}: one of {known} was wanted, which both runs measured")
    chosen = by or next((n for n in PREFERRED if n in measured), PIXELS)
    cut = cut_faces(a, b, found.sample[:sampled])
    cut = sorted((f for f in cut if np.isfinite(f.distance)), key=lambda f: -f.distance)
    half = max(shown // 2, 1)
    if chosen == PIXELS:
        panels = [("changed most", cut[:half]), ("changed least", cut[::-1][: min(half, len(cut) - half)])]
    else:
        place = names.index(chosen)
        panels = [
            (title, cut_faces(a, b, pairs[:half]))
            for title, pairs in zip(
                _panel_titles(chosen), (found.rose[place], found.fell[place]), strict=True
            )
        ]
    panels = [panel for panel in panels if panel[1]]
    distances = set_distances(a, b, found.sample, reference)
    return Result(a, b, found, result.left_out, chosen, panels, _mean_distance(cut), distances)


def _mean_distance(faces: Sequence[Face]) -> Paired | None:
    """Over faces, whose pictures are identified by name and unit."""
    if not faces:
        return None
    _, image = np.unique([f"{f.pair['file_b']} {f.member}" for f in faces], return_inverse=True)
    distance = np.array([f.distance for f in faces])
    sums = PairedSums(1)
    sums.add(np.zeros_like(distance), distance, image, np.zeros(len(faces), np.int64))
    return sums.paired()


def _panel_titles(name: str) -> tuple[str, str]:
    """Titles over the faces whose value rose, and fell."""
    shown = words(name)
    better = metric_info(name).better
    if better == "neither":
        return f"{shown} rose most", f"{shown} fell most"
    risen, fallen = ("better", "worse") if better == "up" else ("worse", "better")
    return f"{shown}: {risen} in B", f"{shown}: {fallen} in B"


def values(result: Result) -> dict[str, Any]:
    """Everything that was found, for compare.json."""
    a, b, found = result.a, result.b, result.found
    return {
        "a": _run_values(a),
        "b": _run_values(b),
        "shared": asdict(found.tally),
        "how": HOW,
        "reservations": caveats(a, b),
        "metrics": {n: _paired_values(n, p) for n, p in result.paired().items()},
        "distances": {n: d.values() for n, d in result.distances.items()},
        "left_out": dict(result.left_out),
        "pixels": None if result.pixels is None else asdict(result.pixels),
        "outcomes": _outcome_values(found),
        "moves": {
            o: {to: int(n) for to, n in zip(OUTCOMES, row, strict=True)}
            for o, row in zip(OUTCOMES, found.moves, strict=True)
        },
        "shards": list(_shard_values(result)),
        "settings": [{"name": n, "a": mine, "b": theirs} for n, mine, theirs in difference_of_settings(a, b)],
        "seconds_per_face": {"a": a.seconds(), "b": b.seconds()},
        "by": result.by,
        "faces": [
            {"panel": title, "member": f.member, "face": f.number, "pixels": _number(f.distance)}
            | {n: _both(result, n, f) for n in result.paired()}
            for title, faces in result.panels
            for f in faces
        ],
    }


def _run_values(run: Compared) -> dict[str, Any]:
    counts = run.totals.counts
    return {
        "output": run.run.output,
        "fingerprint": run.run.digest,
        "mlflow_run_id": run.run_id,
        "units": len(run.units),
        "units_planned": run.units_planned,
        "images": counts.images,
        "faces": counts.faces,
        "outcomes": counts.outcomes,
    }


def _paired_values(name: str, paired: Paired) -> dict[str, Any]:
    better = metric_info(name).better
    verdict = {"better": better, "better_in_b": paired.better(better), "verdict": paired.verdict(better)}
    return asdict(paired) | verdict | {"of_input": metric_info(name).of_input}


def _outcome_values(found: Comparison) -> dict[str, dict[str, Any]]:
    """Shares of the shared images by outcome, and their difference; an outcome that neither run has is left out."""
    values: dict[str, dict[str, Any]] = {}
    for outcome, sums in zip(OUTCOMES, found.outcomes, strict=True):
        paired = sums.paired()
        if paired is not None and (paired.a or paired.b):
            values[outcome] = asdict(paired) | {"verdict": paired.verdict("neither")}
    return values


def _shard_values(result: Result) -> Iterator[dict[str, Any]]:
    """One line for each shard of B: its shared images, how many changed their outcome, and mean differences."""
    found = result.found
    names = [n for n, p in result.paired().items() if p.rose or p.fell]
    for number, shard in enumerate(found.shards):
        outcomes = [sums.of_shard(number) for sums in found.outcomes]
        restored = outcomes[0]
        if restored is None:
            continue
        moved = sum(p.rose * p.images for p in outcomes if p is not None)
        values: dict[str, Any] = {"shard": shard, "images": restored.images, "other_outcome": round(moved)}
        pairs = {n: found.sums[found.names.index(n)].of_shard(number) for n in names}
        values["faces"] = max((p.faces for p in pairs.values() if p is not None), default=0)
        yield values | {n: None if p is None else p.difference for n, p in pairs.items()}


def _both(result: Result, name: str, face: Face) -> list[float | None]:
    """A face's value in A and in B."""
    place = result.found.names.index(name)
    return [_number(float(face.pair[run][place])) for run in "ab"]


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None


def pictures(result: Result) -> dict[str, bytes]:
    """faces.png and differences.png, those of which there is something to show."""
    title = f"A {result.a.name}  ·  B {result.b.name}"
    drawn = {}
    if result.panels:
        how = (
            "as the networks made them"
            if both_saved(result.a, result.b)
            else "cut out of the delivered pictures"
        )
        panels = [(name, [_shown_face(result, f) for f in faces]) for name, faces in result.panels]
        below = f"faces chosen by {words(result.by)}, {how}"
        drawn["faces.png"] = faces_sheet(title, below, panels)
    changed = {n: p for n, p in result.paired().items() if p.rose or p.fell}
    if changed:
        sample, places = result.found.sample, {n: result.found.names.index(n) for n in changed}
        measured = [Measured(n, sample["a"][:, i], sample["b"][:, i], changed[n]) for n, i in places.items()]
        drawn["differences.png"] = differences_plot(title, measured)
    return drawn


def _shown_face(result: Result, face: Face) -> ShownFace:
    crops = face.before, face.a, face.b
    return ShownFace(f"{face.member}, face {face.number}", _change(result, face), crops)


def _change(result: Result, face: Face) -> str:
    """How a face's values and pixels differ, in one line."""
    parts = [] if not np.isfinite(face.distance) else [f"pixels differ by {face.distance:.1f}"]
    name = "sharpness_after" if result.by == PIXELS else result.by
    if name in result.paired():
        mine, theirs = _both(result, name, face)
        parts.insert(0, f"{words(name)} {value_text(mine)} → {value_text(theirs)}")
    return ", ".join(parts)


def document(summary: Mapping[str, Any], drawn: Mapping[str, bytes]) -> str:
    """The page: everything of compare.json that people ask for, with the pictures inside."""
    a, b, shared = summary["a"], summary["b"], summary["shared"]
    names = [store.name_of(run["output"]) for run in (a, b)]
    tiles = {"images in both": shared["images"], "faces restored by both": shared["faces"]}
    tiles |= {"images only in A": shared["images_only"][0], "images only in B": shared["images_only"][1]}
    parts = [
        page.note(f"A is {a['output']}, B is {b['output']}"),
        page.tiles(tiles),
        *(page.note(sentence) for sentence in summary["reservations"] + uncounted(shared)),
        page.heading("Measurements of the same faces"),
        page.note(summary["how"]),
        _metrics_table(summary["metrics"])
        if summary["metrics"]
        else page.note("nothing was measured in both"),
        *(page.note(sentence) for sentence in asides(summary)),
        *distance_parts(summary["distances"]),
    ]
    if "faces.png" in drawn:
        parts += [
            page.heading("Faces"),
            page.picture(drawn["faces.png"], "png", "faces before, in A and in B"),
        ]
    if "differences.png" in drawn:
        parts += [page.heading("Distributions"), page.picture(drawn["differences.png"], "png", "histograms")]
    parts += [
        page.heading("Outcomes of the same images"),
        _outcomes_table(summary),
        page.note("From A, down, to B, across:"),
    ]
    moves = [[o, *row.values()] for o, row in summary["moves"].items()]
    parts += [page.table(["in A \\ in B", *OUTCOMES], moves), page.heading("Settings that differ")]
    settings = [[s["name"], _text(s["a"]), _text(s["b"])] for s in summary["settings"]]
    parts.append(
        page.table(["setting", "A", "B"], settings[:SHOWN_SETTINGS]) if settings else page.note("none")
    )
    parts += [
        page.heading("Seconds of work for each restored face"),
        _seconds_table(summary["seconds_per_face"]),
    ]
    if summary["shards"]:
        some = f"the first {SHOWN_SHARDS} of {len(summary['shards'])}; compare.json has all of them"
        parts += [page.heading("Shards of B"), page.note("mean differences, B less A")]
        parts.append(page.note(some if len(summary["shards"]) > SHOWN_SHARDS else ""))
        rows = [list(s.values()) for s in summary["shards"][:SHOWN_SHARDS]]
        parts.append(page.table(list(summary["shards"][0]), rows))
    return page.document(f"{names[0]} against {names[1]}", parts)


def _metrics_table(metrics: Mapping[str, Mapping[str, Any]]) -> page.Part:
    columns = ["measurement", "better", "A", "B", "B less A", "95% interval", "better in B", "faces", ""]
    rows = [
        [
            words(n),
            ARROWS[m["better"]],
            *(m[k] for k in ("a", "b", "difference")),
            _interval(m),
            _percent(m["better_in_b"]),
            m["faces"],
            m["verdict"],
        ]
        for n, m in metrics.items()
        if m["verdict"] != SAME
    ]
    return page.table(columns, rows)


ARROWS = {"up": "↑", "down": "↓", "neither": ""}


def _interval(paired: Mapping[str, Any], form: str = "+.4g") -> str:
    if not paired["rose"] and not paired["fell"]:
        return "none changed"
    if paired["low"] is None:
        return "one picture only"
    return f"{paired['low']:{form}} … {paired['high']:{form}}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"


def _outcomes_table(summary: Mapping[str, Any]) -> page.Part:
    columns = ["outcome", "A", "B", "B less A", "95% interval"]
    rows = [
        [
            words(n),
            f"{o['a']:.2%}",
            f"{o['b']:.2%}",
            f"{o['difference']:+.2%}",
            _interval(o, "+.2%"),
        ]
        for n, o in summary["outcomes"].items()
    ]
    return page.table(columns, rows)


def _seconds_table(seconds: Mapping[str, Mapping[str, float]]) -> page.Part:
    stages = list(seconds["a"]) or list(seconds["b"])
    return page.table(["stage", "A", "B"], [[s, seconds["a"].get(s), seconds["b"].get(s)] for s in stages])


def _text(value: Any) -> str:
    return "not set" if value is None else str(value)


def lines(summary: Mapping[str, Any]) -> Iterator[str]:
    """The comparison for a terminal."""
    shared = summary["shared"]
    yield f"A  {summary['a']['output']}"
    yield f"B  {summary['b']['output']}"
    yield ""
    yield (
        f"{shared['images']} images in both ({shared['images_only'][0]} only in A, {shared['images_only'][1]} only in "
        f"B), {shared['faces']} faces restored by both"
    )
    for sentence in [*summary["reservations"], *uncounted(shared)]:
        yield f"note: {sentence}"
    yield ""
    yield f"{'measurement':<18} {'A':>10} {'B':>10} {'B less A':>10}   {'95% interval':<24} {'better':>6}"
    for name, m in summary["metrics"].items():
        if m["verdict"] == SAME:
            continue
        numbers = f"{m['a']:>10.4g} {m['b']:>10.4g} {m['difference']:>+10.4g}"
        shown = f"{name} {ARROWS[m['better']]}"
        yield f"{shown:<18} {numbers}   {_interval(m):<24} {_percent(m['better_in_b']):>6}  {m['verdict']}"
    yield from distance_lines(summary["distances"])
    for sentence in asides(summary):
        yield f"note: {sentence}"
    yield ""
    for name, o in summary["outcomes"].items():
        numbers = f"{o['a']:>10.2%} {o['b']:>10.2%} {o['difference']:>+10.2%}"
        yield f"{name:<18} {numbers}   {_interval(o, '+.2%')}"
    seconds = summary["seconds_per_face"]
    for stage in seconds["a"]:
        pair = [s.get(stage, float("nan")) for s in (seconds["a"], seconds["b"])]
        yield f"{f's/face {stage}':<18} {pair[0]:>10.3g} {pair[1]:>10.3g} {pair[1] - pair[0]:>+10.3g}"
    yield ""
    for setting in summary["settings"]:
        yield f"{setting['name']}: {_text(setting['a'])} → {_text(setting['b'])}"
