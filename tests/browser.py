"""Debian's Chromium, driven by Selenium: one for each file of tests that asks for `browser`."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

# seconds until a condition is given up, on a machine that others use, too
PATIENCE = 60
PROGRAMS = ("chromium", "chromedriver")
WIDE = (1400, 1000)


@dataclass(frozen=True)
class Browser:
    """A running browser with one window."""

    driver: webdriver.Chrome
    # where it saves to
    downloads: Path

    def open(self, address: str) -> None:
        """The page as on a first visit: nothing is kept of earlier ones."""
        self.driver.get(address)
        self.driver.execute_script("localStorage.clear()")
        self.driver.refresh()

    def run(self, script: str, *arguments: Any) -> Any:
        """The value that a function's body in JavaScript returns."""
        return self.driver.execute_script(script, *arguments)

    def press(self, *keys: str) -> None:
        """Press keys, one after the other, wherever the focus is."""
        ActionChains(self.driver).send_keys(*keys).perform()

    def one(self, selector: str) -> WebElement:
        """The first element of a CSS selector."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        """All elements of a CSS selector."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def click(self, selector: str, within: WebElement | None = None) -> None:
        """Click the first element of a CSS selector, in the middle of the window."""
        found = (within or self.driver).find_element(By.CSS_SELECTOR, selector)
        self.run("arguments[0].scrollIntoView({block: 'center'})", found)
        found.click()

    def wait(self, holds: Callable[[], Any]) -> Any:
        """What `holds` returns, as soon as that is true."""
        return WebDriverWait(self.driver, PATIENCE, poll_frequency=0.02).until(lambda _: holds())

    def requests(self) -> list[str]:
        """Addresses of all requests since the last time."""
        messages = [json.loads(line["message"])["message"] for line in self.driver.get_log("performance")]
        sent = [m for m in messages if m["method"] == "Network.requestWillBeSent"]
        return [m["params"]["request"]["url"] for m in sent]

    def errors(self) -> list[str]:
        """What the console has received since the last time."""
        return [line["message"] for line in self.driver.get_log("browser")]

    @contextmanager
    def sized(self, width: int, height: int, scale: float) -> Iterator[None]:
        """A window of so many CSS pixels, each as many of the screen as `scale` says, as the zoom has it."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        try:
            yield
        finally:
            self.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

    @contextmanager
    def prepared(self, script: str) -> Iterator[None]:
        """Pages that are opened in the block run this script before their own."""
        made = self.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": script})
        try:
            yield
        finally:
            self.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", made)


@contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """A browser until the end of the block; its profile and its downloads lie in the folder."""
    paths = [shutil.which(name) for name in PROGRAMS]
    if None in paths:
        pytest.fail(
            "the tests of pages want chromium and chromedriver; run 'apt-get install chromium chromium-driver'",
            pytrace=False,
        )
    options = webdriver.ChromeOptions()
    options.binary_location = str(paths[0])
    width, height = WIDE
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        f"--user-data-dir={folder / 'profile'}",
        f"--window-size={width},{height}",
    ):
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"download.default_directory": str(folder)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, Service(str(paths[1])))
    try:
        yield Browser(driver, folder)
    finally:
        driver.quit()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for a file of tests."""
    with chromium(tmp_path_factory.mktemp("browser")) as running:
        yield running
