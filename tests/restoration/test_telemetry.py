"""The metrics of a run: what wraps the stages changes nothing, and the dashboard asks for what the code tells.

That the numbers arrive is seen on a real cluster, in tests/jobs/test_restore_s3.py.
"""

import json
import re
from pathlib import Path

import pytest
from ray.dashboard.modules.metrics import dashboards
from ray.util.metrics import Counter, Histogram

from pipeline.records.marker import Marker
from pipeline.records.rows import OUTCOMES, Counts
from pipeline.restoration.telemetry import ENGINE_SUMS, METRICS, Watched, counted, watched_actor

DASHBOARD = Path(__file__).parents[2] / "cluster" / "grafana" / "difface.json"


class Doubling:
    """An engine that doubles a number, as its settings say."""

    def __init__(self, factor: int) -> None:
        self._factor = factor

    def __call__(self, row: dict) -> dict:
        return {"number": row["number"] * self._factor}


def fails(row: dict) -> dict:
    raise ValueError("as it does alone")


def test_a_watched_stage_gives_its_row_and_raises_its_error():
    assert Watched(Doubling(2), "read")({"number": 4}) == {"number": 8}
    with pytest.raises(ValueError, match="as it does alone"):
        Watched(fails, "read")({})


def test_a_watched_actor_is_made_of_its_settings_and_keeps_its_name():
    actor = watched_actor(Doubling, "measure", "Doubling")
    assert actor.__name__ == "Doubling"
    assert actor(3)({"number": 4}) == {"number": 12}


def test_rows_come_to_the_driver_as_they_were_done_or_not():
    marker = Marker("a", "s", 0, True, Counts(4, 2, dict.fromkeys(OUTCOMES, 1)), {}, 1.0)
    rows = [{"unit": "a", "marker": marker.to_json()}, {"unit": "b"}, {"unit": "c", "undelivered": "why"}]
    assert list(counted(iter(rows), 3)) == rows


def told() -> set[str]:
    """Names under which Prometheus sees what the code tells."""
    names = set()
    for name, (kind, _, _) in METRICS.items():
        parts = ("_bucket", "_sum", "_count") if kind is Histogram else ("",)
        names |= {f"ray_{name}{'_total' if kind is Counter else part}" for part in parts}
    return names


def queries() -> list[str]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def test_the_dashboard_asks_for_metrics_that_the_code_or_ray_tells_and_for_all_of_ours():
    asked = {name for query in queries() for name in re.findall(r"ray_\w+", query)}
    of_ray = "".join(file.read_text() for file in Path(*dashboards.__path__).glob("*_panels.py"))
    ours = {name for name in asked if name.startswith("ray_difface_")}
    assert ours == told()
    assert {name for name in asked - ours if not re.search(rf"\b{name}\b", of_ray)} == set()


def test_the_dashboard_groups_by_labels_that_its_metrics_have():
    labels = {label for _, _, mine in METRICS.values() for label in mine}
    # of every metric of Ray, of its object store, of a histogram
    labels |= {"NodeAddress", "instance", "Location", "le"}
    grouped = {
        label for q in queries() for by in re.findall(r"by \(([^)]*)\)", q) for label in by.split(", ")
    }
    assert grouped - labels == set()
    assert set(re.findall(r'outcome="(\w+)"', "".join(queries()))) <= set(OUTCOMES)


def test_each_place_on_the_dashboard_has_one_panel():
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(places)) == len(places)
    assert max(x for x, _ in places) < 24


def test_the_sums_of_an_engine_are_told_by_counters():
    assert {METRICS[name][0] for name in ENGINE_SUMS.values()} == {Counter}
