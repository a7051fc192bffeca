"""Jobs print names of files, and lines with letters beyond ASCII, wherever they run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from finished_run import finish_run, picture

ROOT = Path(__file__).parents[2]
# a container, cron or a service manager may give any of these
PLACES = {
    "ASCII": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "strict ASCII": {"PYTHONIOENCODING": "ascii:strict"},
    "Latin-1": {"PYTHONIOENCODING": "latin-1"},
}


@pytest.fixture(scope="module")
def output(tmp_path_factory) -> Path:
    """A run whose failed pictures, and whose own folder, have names that few expect."""
    place = tmp_path_factory.mktemp("names")
    (place / "in").mkdir()
    for name in (b"a\nb.png", b"caf\xe9.png", "漢 “x”,y.png".encode(), b"-r %s <b>.png"):
        (place / "in" / os.fsdecode(name)).write_bytes(picture(90))
    return finish_run(place / "in", place / "out 漢", lambda *_: None)


def run(*command: str, place: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "PYTHON"))}
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment | PLACES[place], capture_output=True, timeout=120,
        encoding="utf-8", errors="surrogateescape", check=False,
    )  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_the_status_is_printed_with_every_name_in_any_encoding(output, place):
    shown = run("-m", "jobs.status", "--output", str(output), place=place)
    assert (shown.returncode, shown.stderr) == (0, "")
    errors = shown.stdout.partition("last errors:")[2].strip().splitlines()
    assert len(errors) == 4 and {line.count("face failed") for line in errors} == {1}
    for name in ("a\\nb.png", "caf\\udce9.png", ",y.png", "-r %s <b>.png"):
        assert sum(name in line for line in errors) == 1


@pytest.mark.parametrize("command", [("-m", "jobs.cli", "--help"), ("-m", "jobs.status", "--help")])
def test_help_is_printed_in_ascii(command):
    shown = run(*command, place="strict ASCII")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "\\xb7" in shown.stdout


def test_a_refusal_that_names_a_path_is_one_sentence_in_ascii(tmp_path):
    missing = tmp_path / "漢\n\udce9"
    shown = run("-m", "jobs.status", "--output", str(missing), place="strict ASCII")
    assert shown.returncode == 2
    assert shown.stderr.startswith("error: ") and "\\u6f22" in shown.stderr
