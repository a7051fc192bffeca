"""A good run shows what the job says, and nothing of the libraries below it."""

import os
import re
import subprocess
import sys
from pathlib import Path

from photographs import portraits, write_folder

from jobs import restore as job

NUMBER = r"[0-9.,e+-]+"
# What jobs.restore writes, beside stdout's table and addresses
SAID = [
    r"3 images in 1 shards, 3 units",
    r"1 engine\(s\) on cpu in (bfloat16|float32), up to [0-9]+ readers",
    # what takes longer on a busy machine
    r"[a-z]+:? .*, [0-9:.]+ (s|min) elapsed",
    r"[0-3]/3 images\b.*\b(elapsed|to go).*",
]
PRINTED = [
    r"",
    rf"(restored|no_face|skipped|failed|images|faces) +{NUMBER}\b.*",
    rf"[a-z_]+ +{NUMBER}  ± {NUMBER} over {NUMBER} faces",
    rf"(fid|kid)_input +{NUMBER}",
    r"time +[0-9:.]+ (s|min)",
    r"exit code +0  every image accounted for",
    r"(records|report|contact sheet|review) +/.*",
    r"MLflow +MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false .*",
]


def strange(text: str, known: list[str]) -> list[str]:
    """The lines that are none of the known ones."""
    return [line for line in text.splitlines() if not any(re.fullmatch(k, line) for k in known)]


def test_a_run_in_a_batch_job_s_long_temporary_folder_prints_lines_of_its_own_alone(tmp_path):
    """With Python's own warnings switched on, and the metrics that load foreign networks."""
    source = write_folder(tmp_path / "in", portraits(3))
    temporary = tmp_path / "slurm.job.4711.node-with-a-long-name.cluster.example.org.scratch.local.tmp"
    temporary.mkdir()
    assert len(str(temporary)) > 87
    places = [
        "--input",
        str(source),
        "--output",
        str(tmp_path / "out"),
        "--unit-images",
        "1",
        "--device",
        "cpu",
    ]
    method = [
        "--preset",
        "small-srcnn",
        "--steps",
        "ddim50",
        "--start-step",
        "60",
        "--gate",
        "off",
        "--metrics",
        "features",
    ]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_", "PYTHONWARNINGS"))}
    done = subprocess.run(
        [sys.executable, "-W", "default", "-m", "jobs.restore", *places, *method],
        cwd=tmp_path,
        env=kept | {"PYTHONPATH": str(Path(job.__file__).parents[1]), "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert strange(done.stderr, SAID) == []
    assert strange(done.stdout, PRINTED) == []
    # nothing of Ray's is left in the folder that was too long for it
    assert not (temporary / "ray").exists()


def test_lines_of_others_would_be_seen():
    noise = "2026-11-27 07:04:07,043\tWARNING __init__.py:28 -- Progress bars disabled."
    assert strange(f"3 images in 1 shards, 3 units\n{noise}", SAID) == [noise]
