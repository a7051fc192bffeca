"""What tests do with a review page in a browser (tests/browser.py), and see on it."""

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import review_pages
from browser import Browser
from selenium.webdriver.remote.webelement import WebElement


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of eight faces; in its order they are 7, 6, 5, 3, 2, 1, 0, 4, without 3 where that is not open."""
    return review_pages.write_output(tmp_path_factory.mktemp("few"), review_pages.few_faces())


@pytest.fixture
def at_peace(browser: Browser) -> Iterator[None]:
    """After every test: the console is empty, and nothing was asked for but what lies beside a page."""
    browser.driver.get("about:blank")
    browser.requests()
    browser.errors()
    yield
    assert browser.errors() == []
    foreign = [a for a in browser.requests() if not is_own(a)]
    assert foreign == []


def is_own(address: str) -> bool:
    """Whether an address is data, a file of a page's own folder, or on its server."""
    parts = urlsplit(address)
    if parts.scheme == "file":
        return parts.path.endswith("/review/index.html") or "/review/tiles/" in parts.path
    return parts.scheme in {"data", "blob"} or parts.hostname == "127.0.0.1" or address == "about:blank"


def names(browser: Browser) -> list[int]:
    """Numbers of the faces on the page, as tests/review_pages.py counts them."""
    return browser.run(
        "return [...document.querySelectorAll('.face')].map(f =>"
        " 2 * Number(f.dataset.picture.match(/\\d+/)[0]) + Number(f.dataset.face))"
    )


def counts(browser: Browser) -> dict[str, int]:
    """The numbers at the top, by verdict."""
    return browser.run(
        "return Object.fromEntries([...document.querySelectorAll('[data-status]')].map(t =>"
        " [t.dataset.status, Number(t.querySelector('b').textContent)]))"
    )


def current(browser: Browser) -> WebElement:
    """The face that keys act on."""
    return browser.one(".face[aria-current]")


def said(browser: Browser) -> str:
    """The line of messages."""
    return browser.one("#said").text


def show(browser: Browser, status: str) -> None:
    """Filter by verdict."""
    browser.click(f"[data-status={status}]")


def state(browser: Browser, number: int) -> str | None:
    """Verdict of a face on the page."""
    picture, face = divmod(number, 2)
    return browser.one(f".face[data-picture*='page {picture:02d}'][data-face='{face}']").get_attribute(
        "data-state"
    )


def downloaded(browser: Browser) -> str:
    """Save by the key, without a name where one is asked for; the text of the file that came down."""
    browser.press("s")
    if browser.one("#name").is_displayed():
        browser.click("#name-none")
    browser.wait(lambda: browser.one("#saved").is_displayed())
    return taken(browser)


def taken(browser: Browser) -> str:
    """The text of the file that came down, which is away afterwards."""
    path = browser.downloads / "verdicts.json"
    browser.wait(path.exists)
    text = path.read_text()
    path.unlink()
    return text


def saved_file(text: str) -> dict[tuple[str, int], dict]:
    """The verdicts of a file by picture and face."""
    file = json.loads(text)
    assert (file["format"], file["run"], file["digest"]) == (
        "difface verdicts 1",
        review_pages.RUN,
        review_pages.DIGEST,
    )
    return {(one["picture"], one["face"]): one for one in file["verdicts"]}
