"""Calls in a process of their own: what kills that process is an exception here."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from multiprocessing import get_context
from typing import TypeVar

R = TypeVar("R")


class Died(RuntimeError):
    """The process did not survive the call."""


def call_apart(task: Callable[[], R]) -> R:
    """The task's result, or its exception; both and the task are pickled.

    One process serves all calls until it dies. Raises Died then.
    """
    try:
        return _process().submit(task).result()
    except BrokenProcessPool:
        _process.cache_clear()
        raise Died(
            "the process that worked on it was killed, by the system or by a fault in a library"
        ) from None


@lru_cache(maxsize=1)
def _process() -> ProcessPoolExecutor:
    # not forked: libraries that hold threads and locks would be copied in the midst of their work
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))
