"""Engines for crops of several sides around the same networks.

A call of a network has faces of one side, so that each side has slots and calls of its own, and no face's bits depend
on faces of another side.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from pipeline.diffusion.engine import Engine
from pipeline.diffusion.estimator_engine import EstimatorEngine
from pipeline.diffusion.request import FaceJob, FaceResult

AnyEngine = Engine | EstimatorEngine


class SidedEngine:
    """Restores faces whose crops have one of `sides`, pixels; any thread submits them.

    make: side → an engine for it. That of the first side is made at once, each other one when its first face comes.
    """

    def __init__(self, make: Callable[[int], AnyEngine], sides: Sequence[int]) -> None:
        self._make, self._sides = make, sides
        self._lock = threading.Lock()
        self.first = make(sides[0])
        self._engines = {sides[0]: self.first}

    def submit(self, job: FaceJob) -> "Future[FaceResult]":
        """The face's result, later; see Engine.submit. Raises ValueError when the crop has none of the sides."""
        side = len(job.crop)
        with self._lock:
            if side in self._sides and side not in self._engines:
                self._engines[side] = self._make(side)
        return self._engines.get(side, self.first).submit(job)

    @property
    def batch(self) -> int:
        """Faces of a call of each engine at most; running out of memory makes it fewer."""
        return min(engine.batch for engine in self._made)

    @property
    def slots_agree(self) -> bool:
        """Whether a face has the same bits in every slot of its side."""
        return all(engine.slots_agree for engine in self._made if isinstance(engine, Engine))

    def close(self) -> None:
        """Finish what was submitted, then stop."""
        for engine in self._made:
            engine.close()

    @property
    def _made(self) -> list[AnyEngine]:
        with self._lock:
            return list(self._engines.values())
