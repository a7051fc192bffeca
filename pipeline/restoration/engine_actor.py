"""The actor around an engine: where the engine has stopped for good, its process ends, and Ray starts it again."""

import logging
import os
from collections.abc import Callable
from typing import Any

import ray

from pipeline.diffusion.request import EngineFailure
from pipeline.io.errors import message
from pipeline.records.rows import Row

log = logging.getLogger(__name__)

# The exit code of a process whose engine has stopped.
ENGINE_LOST = 70


class EngineActor:
    """A stage with an engine, made by `make(settings)`.

    A lost GPU fails every later call of its process, so that no face may be recorded as failed by it: the process ends,
    its units begin again in a new one. Where that one fails before its first unit, too, the units are undelivered.
    """

    def __init__(self, make: Callable[[Any], Callable[[Row], Row]], settings: Any) -> None:
        self._stage, self._done = make(settings), 0

    def __call__(self, row: Row) -> Row:
        try:
            done = self._stage(row)
        except EngineFailure as failure:
            if self._done or not was_restarted():
                log.error("%s; its process is started again", message(failure))
                os._exit(ENGINE_LOST)
            return {"unit": row["unit"], "undelivered": message(failure)}
        self._done += 1
        return done


def was_restarted() -> bool:
    """Whether this actor's process follows one that died."""
    return bool(ray.is_initialized() and ray.get_runtime_context().was_current_actor_reconstructed)
