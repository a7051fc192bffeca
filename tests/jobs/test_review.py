"""jobs.review: the page of a run in a browser, what a person says on it, and the run that carries it out."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from browser import Browser, browser
from photographs import encoded, portrait, read_folder, write_folder
from PIL import ImageFilter
from selenium.webdriver.common.keys import Keys

from jobs import restore as restore_job
from jobs import review, verify

__all__ = ["browser"]

pytestmark = pytest.mark.usefixtures("without_ray")

ROOT = Path(__file__).parents[2]
# the portraits of the tests are of the public domain
PICTURES = {
    f"{name}.png": encoded(portrait(220, 240).filter(ImageFilter.GaussianBlur(blur)), "PNG")
    for name, blur in (("archive 001", 1.5), ("archive 002", 2), ("archive 003", 2.5), ("archive 004", 3))
}
# where to put the pictures of docs/review.md
KEPT = os.environ.get("REVIEW_PICTURES")


def keep(browser: Browser, name: str) -> None:
    """Put the page as it is now into the folder of the documentation's pictures, where one is given."""
    if KEPT:
        browser.wait(lambda: browser.run("return document.querySelector('.face .after').naturalWidth"))
        browser.driver.save_screenshot(str(ROOT / KEPT / f"{name}.png"))


def finished(restore, folder: Path, *options: str) -> tuple[Path, Path]:
    photos = write_folder(folder / "photos", PICTURES)
    assert restore(photos, folder / "restored", "--unit-images", "2", *options) == 0
    return photos, folder / "restored"


@contextmanager
def served(output: Path) -> Iterator[str]:
    """The address at which `jobs.review --serve` shows an output's page, in a process of its own."""
    command = [sys.executable, "-m", "jobs.review", "--output", str(output), "--serve", "127.0.0.1:0"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            line = next(line for line in process.stderr if "the review page is at" in line)
            yield line.partition(" is at ")[2].partition(";")[0]
        finally:
            process.send_signal(signal.SIGINT)
            process.stderr.read()
    assert process.returncode == 0


def test_a_person_reviews_a_run_in_a_browser_and_a_second_run_obeys(restore, tmp_path, browser: Browser):
    photos, output = write_folder(tmp_path / "photos", PICTURES), tmp_path / "restored"
    places = ["--input", str(photos), "--output", str(output), "--mlflow-uri", restore.mlflow_uri]
    command = [*places, "--unit-images", "2", "--samples", "2"]
    assert restore_job.main(command) == 0
    before = read_folder(output)
    browser.driver.get("about:blank")
    browser.requests()
    with served(output) as address:
        browser.open(address)
        pictures = browser.run("return [...document.querySelectorAll('.face')].map(f => f.dataset.picture)")
        first, second = pictures[:2]
        keep(browser, "review")
        browser.press("d")
        keep(browser, "redo")
        browser.press(Keys.ESCAPE, "r", "a", "s")
        browser.one("#name-field").send_keys("Ada\n")
        saved = output / "review/verdicts.json"
        browser.wait(saved.exists)
        assert browser.errors() == []
        own = (address.partition("?")[0], "data:", "blob:")
        assert [a for a in browser.requests() if not a.startswith(own)] == []
    given = {v["picture"]: (v["verdict"], v["who"]) for v in json.loads(saved.read_text())["verdicts"]}
    assert given == {first: ("reject", "Ada"), second: ("accept", "Ada")}
    assert restore_job.main([*command, "--verdicts", str(saved)]) == 0
    after = read_folder(output)
    assert after[f"images/{first}"] == PICTURES[first] != before[f"images/{first}"]
    others = [name for name in PICTURES if name != first]
    assert all(after[f"images/{name}"] == before[f"images/{name}"] for name in others)
    assert verify.main(["--output", str(output), "--sample", "2"]) == 0
    # the page of the run knows what was carried out
    browser.open((output / "review/index.html").as_uri())
    counted = (
        "return [...document.querySelectorAll('[data-status]')].map(t => [t.dataset.status, t.innerText])"
    )
    numbers = {name: int(text.split()[0]) for name, text in browser.run(counted)}
    assert numbers == {"all": 4, "open": 2, "accept": 1, "reject": 1, "redo": 0}


def test_an_output_without_tiles_gets_them_and_a_page_and_stays_intact(restore, tmp_path, capsys):
    photos, output = finished(restore, tmp_path, "--review", "off")
    assert not (output / "review").exists()
    (photos / "archive 002.png").unlink()
    assert review.main(["--output", str(output)]) == 0
    shown = capsys.readouterr()
    assert "faces    3" in shown.out and "1 faces are not shown: their pictures" in shown.err
    assert len(read_folder(output / "review/made")) == 3
    page = (output / "review/index.html").read_text()
    assert "archive 001.png" in page and "archive 002.png" not in page and "data:image/jpeg;base64," in page
    assert verify.main(["--output", str(output)]) == 0
    # with what a run writes itself the page is of the same faces
    photos, other = finished(restore, tmp_path / "other")
    assert review.main(["--output", str(other)]) == 0
    tiles, made = read_folder(other / "review/tiles"), read_folder(output / "review/made")
    assert {name: tiles[name] for name in made} == made and len(tiles) == 4


def test_a_page_in_a_bucket_is_read_by_whoever_has_its_signed_address(
    restore, s3, tmp_path, capsys, browser: Browser
):
    photos = write_folder(tmp_path / "photos", PICTURES)
    output = f"{s3.uri}/reviewed"
    assert restore(photos, output) == 0
    capsys.readouterr()
    assert review.main(["--output", output, "--sign", "1"]) == 0
    [address] = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("page")]
    assert "X-Amz-Expires=3600" in address
    with urllib.request.urlopen(address) as answer:
        assert b"archive 001.png" in answer.read()
    browser.driver.get(address)
    assert (
        browser.wait(lambda: browser.run("return document.querySelector('.face .before').naturalWidth")) > 0
    )
    assert browser.errors() == []


def test_what_can_not_be_reviewed_is_refused_in_a_sentence(tmp_path, capsys):
    assert review.main(["--output", str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err
    for options, sentence in (
        (["--serve", "8080"], "--serve must be HOST:PORT, as 127.0.0.1:8080, got '8080'"),
        (["--sign", "1"], f"--sign is for an output on S3, got {tmp_path}"),
        (["--sign", "999"], "--sign must be above 0 and at most 168 hours, got 999"),
    ):
        with pytest.raises(SystemExit):
            review.main(["--output", str(tmp_path), *options])
        assert sentence in capsys.readouterr().err
