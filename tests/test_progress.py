"""What a person sees while a run works."""

import io
import time

import pytest

from pipeline.progress import Progress, duration


def test_a_line_says_how_far_how_fast_and_how_long_still():
    out = io.StringIO()
    with Progress(total=100, before=20, out=out, interval=0.01) as progress:
        time.sleep(0.05)
        progress.add(images=30, faces=41, failed=2)
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("20/100 images (20%), 0 faces") and lines[0].endswith("unknown to go")
    assert lines[-1].startswith("50/100 images (50%), 41 faces, 2 failed, ") and "images/s" in lines[-1]


def test_a_job_names_what_its_third_number_counts():
    out = io.StringIO()
    with Progress(total=2, before=0, out=out, bad="different") as progress:
        progress.add(images=2, faces=3, failed=1)
    assert "3 faces, 1 different, " in out.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"), [(45, "45 s"), (725, "12:05 min"), (12_000, "3:20 h"), (362_880, "4.2 days")]
)
def test_durations_are_for_people(seconds, text):
    assert duration(seconds) == text
