"""The console command in front of the jobs."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from jobs import cli


def test_help_names_every_job_and_exits_zero(capsys):
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(job in shown for job in cli.JOBS)


def test_no_job_at_all_shows_the_help_and_exits_two(capsys):
    assert cli.main([]) == 2
    assert "usage: difface JOB" in capsys.readouterr().out


def test_an_unknown_job_is_answered_with_the_nearest_one(capsys):
    assert cli.main(["restor", "--input", "x"]) == 2
    assert capsys.readouterr().err == "difface: unknown job 'restor'; did you mean 'restore'?\n"


def test_a_job_gets_the_arguments_after_its_name_and_its_code_is_returned(monkeypatch):
    seen = []
    module = SimpleNamespace(main=lambda argv: seen.append(argv) or 3)
    monkeypatch.setitem(sys.modules, "jobs.restore", module)
    assert cli.main(["restore", "--input", "a b", "--dry-run"]) == 3
    assert seen == [["--input", "a b", "--dry-run"]]


@pytest.mark.parametrize("flag", ["-V", "--version"])
def test_version_is_that_of_the_installed_distribution(flag, capsys):
    assert cli.main([flag]) == 0
    assert capsys.readouterr().out == f"difface {cli.version()}\n"


def test_asking_for_help_loads_no_heavy_library():
    code = (
        "import sys; from jobs import cli; cli.main(['--help']); "
        "sys.exit(bool({'torch', 'ray', 'mlflow'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
