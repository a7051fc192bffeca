"""The check of a GPU runs on a CPU in its small form: every part, both files, and a line for what does not run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "tools" / "gpu_check.py"
# What a GPU machine need not have; spandrel's recordings are then skipped.
ABSENT = ("ray", "mlflow", "s3fs", "spandrel", "pytest", "psutil", "pyarrow", "cv2", "PIL", "skimage")
PARTS = ["device", "forms", "golden", "kernels", "bits", "memory", "timing", "portrait", "profile"]


def check(folder, seconds):
    """A run on a machine without the packages in ABSENT."""
    hide = folder / "hide"
    hide.mkdir()
    for name in ABSENT:
        (hide / f"{name}.py").write_text(f"raise ImportError('{name} is not installed')\n")
    command = [
        sys.executable,
        str(SCRIPT),
        "--small",
        "--device",
        "cpu",
        "--seconds",
        str(seconds),
        "--out",
        "out",
    ]
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(hide)},
        capture_output=True,
        text=True,
        check=False,
    )
    report, table = json.loads((folder / "out/check.json").read_text()), (folder / "out/check.md").read_text()
    return done, report, table


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return check(tmp_path_factory.mktemp("gpu"), 600)


def test_every_part_runs_and_finds_the_engine_right(found):
    done, report, _ = found
    assert done.returncode == 0, done.stdout + done.stderr
    assert report["complete"] and not report["failed"]
    assert list(dict.fromkeys(row["part"] for row in report["rows"])) == PARTS
    passed = [row for row in report["rows"] if row["passed"]]
    assert {row["part"] for row in passed} == {"golden", "kernels", "bits", "memory"}
    assert not [row for row in report["rows"] if row["passed"] is False]


def test_timings_are_numbers_with_a_unit(found):
    _, report, _ = found
    timed = [row for row in report["rows"] if row["part"] in ("timing", "portrait", "profile")]
    assert len(timed) > 15
    assert all(row["value"] > 0 and row["unit"] in ("ms a face and call", "faces/s") for row in timed)


def test_the_table_has_a_line_for_every_row(found):
    _, report, table = found
    lines = table.splitlines()
    assert lines[0] == "| part | what | result | unit | passed |"
    assert len(lines) == 2 + len(report["rows"])
    assert "| forms | CUDA graphs, compiled networks | skipped: they are CUDA's |" in table


def test_without_time_each_part_says_what_it_skipped(tmp_path):
    done, report, _ = check(tmp_path, 0)
    assert done.returncode == 0, done.stderr
    assert report["complete"]
    said = {row["part"]: row["value"] for row in report["rows"] if row["what"] == "skipped"}
    assert list(said) == PARTS
    assert all("s are left" in reason for reason in said.values())
