"""The browser of tests/browser.py."""

from browser import browser

__all__ = ["browser"]
