"""A published file, fetched by HTTP; a download that broke off is continued."""

import http.client
import random
import ssl
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from pipeline.io.published import WeightsError

# Seconds of silence of the server after which a request is given up.
TIMEOUT = 30.0
# Tries in a row that bring no new byte before a download is given up.
TRIES = 4
# Bytes read at a time.
PIECE = 1 << 20
# Seconds between progress lines, on a terminal and elsewhere.
REPORT_EVERY = (0.5, 10.0)

HTTP_PARTIAL, HTTP_RANGE_REFUSED = 206, 416
# time-out, too many requests: retried as every 5xx is
HTTP_RETRIED = (408, 429)

# Errors of a connection that fails half-way.
_BROKEN = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError)


def download(url: str, partial: Path) -> None:
    """Fetch a published file into `partial`, going on where an earlier try stopped.

    Continued only while the server still has the same file (If-Range). Raises WeightsError when the address does not
    answer, refuses, or breaks off TRIES times without a new byte.
    """
    report = _Progress(url.rsplit("/", 1)[-1])
    failures, why = 0, ""
    while failures < TRIES:
        before = partial.stat().st_size if partial.exists() else 0
        try:
            if _fetch_rest(url, partial, report):
                return
            why = "the connection broke off"
        except urllib.error.HTTPError as error:
            why = f"the server answered {error.code} {error.reason}"
            if error.code == HTTP_RANGE_REFUSED:
                if error.headers.get("Content-Range") == f"bytes */{before}":
                    return  # nothing is missing: an earlier process ended between the last byte and the final name
                forget(partial)
            elif error.code < 500 and error.code not in HTTP_RETRIED:
                break
        except _BROKEN as error:
            why = str(getattr(error, "reason", error)) or type(error).__name__
        grown = partial.exists() and partial.stat().st_size > before
        failures = 0 if grown else failures + 1
        time.sleep(random.uniform(0.5, 1.0) * 0.5 * 2**failures if failures < TRIES else 0)
    raise WeightsError(
        f"{url} could not be fetched: {why}; run again to go on where it stopped, or fetch it by other means and "
        "give its folder as --weights-dir"
    )


def _fetch_rest(url: str, partial: Path, report: "_Progress") -> bool:
    """One request for what is still missing; whether the file is complete now."""
    mark = _mark(partial)
    have = partial.stat().st_size if partial.exists() and mark.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "difface"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", mark.read_text())
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        if answer.status != HTTP_PARTIAL:
            have = 0  # the server starts over: it supports no ranges, or has another file by now
        total = _total_size(answer, have)
        validator = _validator(answer)
        if have == 0:
            forget(partial)
        if validator:
            mark.write_text(validator)
        with partial.open("ab" if have else "wb") as target:
            while piece := answer.read(PIECE):
                target.write(piece)
                have += len(piece)
                report(have, total)
    return total is None or have >= total


def _total_size(answer: Any, have: int) -> int | None:
    length = answer.headers.get("Content-Length")
    return have + int(length) if length is not None else None


def _validator(answer: Any) -> str | None:
    """What proves that a later answer is of the same file: a strong ETag, else the time of change."""
    tag: str | None = answer.headers.get("ETag")
    if tag and not tag.startswith("W/"):
        return tag
    changed: str | None = answer.headers.get("Last-Modified")
    return changed


def _mark(partial: Path) -> Path:
    """Where the validator of a partial file is kept."""
    return partial.with_name(f"{partial.name}.from")


def forget(partial: Path) -> None:
    """Remove a partial file and what belongs to it."""
    partial.unlink(missing_ok=True)
    _mark(partial).unlink(missing_ok=True)


class _Progress:
    """Progress on standard error: one line rewritten on a terminal, a line now and then elsewhere."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._terminal = sys.stderr.isatty()
        self._next = 0.0

    def __call__(self, have: int, total: int | None) -> None:
        finished = total is not None and have >= total
        if time.monotonic() < self._next and not finished:
            return
        self._next = time.monotonic() + REPORT_EVERY[0 if self._terminal else 1]
        done = f" of {total / 1e6:.1f} MB ({100 * have // max(total, 1)} %)" if total is not None else " MB"
        end = "\n" if finished or not self._terminal else ""
        start = "\r" if self._terminal else ""
        sys.stderr.write(f"{start}fetching {self._name}: {have / 1e6:.1f}{done}{end}")
        sys.stderr.flush()
