"""What kills a process of its own is one failed call."""

import math
import os
from functools import partial

import pytest

from pipeline.stages.isolate import Died, call_apart


def test_a_call_that_kills_its_process_fails_alone():
    first = call_apart(os.getpid)
    assert first != os.getpid() and call_apart(os.getpid) == first
    with pytest.raises(Died, match="was killed"):
        call_apart(partial(os._exit, 9))
    assert call_apart(os.getpid) not in (first, os.getpid())


def test_results_and_exceptions_are_those_of_the_call():
    assert call_apart(partial(math.sqrt, 4.0)) == 2.0
    with pytest.raises(ValueError, match=r"domain|nonnegative"):
        call_apart(partial(math.sqrt, -1.0))
