"""The browser of tests/browser.py, and the page of tests/reviewing.py."""

from browser import browser
from reviewing import at_peace, page

__all__ = ["at_peace", "browser", "page"]
