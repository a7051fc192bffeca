"""Every weights file that the program ships, fetches or loads has its terms in docs/weights.md."""

import re
from pathlib import Path

import pytest

from pipeline.io.weights import PACKAGED
from pipeline.metrics.landmarks import DLIB_FILE
from pipeline.models.catalogue import find_model, known_models

DOCUMENT = Path(__file__).parents[2] / "docs" / "weights.md"
# inside packages that this one depends on
CARRIED = {"centerface.onnx", "alex.pth", "default_1.pt", DLIB_FILE}
KINDS = {"free", "restricted", "data restricted"}


def terms() -> dict[str, list[str]]:
    """File → the other cells of its row: what it is for, its own terms, training data, kind."""
    section = DOCUMENT.read_text().partition("\n## Terms\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    return {file: cells for name, *cells in rows for file in re.findall(r"`([^`]+\.\w+)`", name)}


def published() -> set[str]:
    files = {Path(file.file).name for name in known_models() for file in find_model(name).files}
    return files | {file.name for file in PACKAGED.iterdir()} | CARRIED


def test_the_terms_of_every_file_are_there_and_of_no_other():
    assert terms().keys() == published()


@pytest.mark.parametrize("file", sorted(published() - {"srcnn_restoration512_L1.pth"}))
def test_each_row_has_its_terms_its_data_and_a_kind(file):
    use, own, data, kind = terms()[file]
    assert use and own and data and kind in KINDS


def test_what_the_program_says_of_a_file_is_of_the_kind_that_the_document_says():
    restricting = re.compile("non-commercial|only|research|academic|states? no licence|not stated")
    said = {Path(f.file).name: f.licence for name in known_models() for f in find_model(name).files}
    kinds = {file: cells[-1] for file, cells in terms().items() if file in said and cells[-1] in KINDS}
    assert {file: bool(restricting.search(said[file])) for file in kinds} == {
        file: kind != "free" for file, kind in kinds.items()
    }
