"""What an engine takes and gives: the job of one face, its result, and the request that carries both."""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.diffusion.constraints import Constraint
from pipeline.diffusion.noise import NoiseKey
from pipeline.diffusion.sampler import Solver
from pipeline.diffusion.treatment import Treatment, Treatments

# Takes counts by name, which add: faces `decided`, `steps_planned` of their chains, and `steps` taken. It neither waits
# nor raises, and any thread calls it.
Report = Callable[..., None]


def ignore(**counts: int) -> None:
    """The report of an engine without a listener."""


class EngineFailure(RuntimeError):
    """The engine has stopped, by no fault of the face; in another process the face may be restored."""


class NonFiniteFace(ArithmeticError):
    """A face with an estimate or a chain that is not finite; it fails alone."""


@dataclass(frozen=True)
class FaceJob:
    """One face to restore."""

    # [S, S, 3] uint8 RGB
    crop: NDArray[np.uint8]
    key: NoiseKey
    eta: float
    # or what chooses it by how far the estimator changes the face
    treatment: Treatment | Treatments
    solver: Solver = "ddim"
    # what is known of the clean face, and each step is held to
    constraint: Constraint | None = None
    # [S, S], True where the crop holds nothing: what an estimator that fills holes is to fill
    hole: NDArray[np.bool_] | None = None
    # [S, S], True where the crop shows the picture; None: everywhere
    inside: NDArray[np.bool_] | None = None
    # the crop's colours are not the face's: an estimator that gives colours is given its luma alone
    colourless: bool = False

    def treated(self, delta: float) -> Treatment:
        """The treatment of the face, given its δ."""
        return self.treatment if isinstance(self.treatment, Treatment) else self.treatment(delta)


@dataclass(frozen=True)
class FaceResult:
    """A restored face: two [S, S, 3] uint8 RGB images, how it was treated, and what its chain took.

    Summed over faces, `steps` over `capacity` is the share of the slots that were filled: 1 when every slot of every
    call had a face.
    """

    estimated: NDArray[np.uint8]
    restored: NDArray[np.uint8]
    treatment: Treatment
    # δ of treatment.py
    estimated_change: float
    # the timestep N at which its chain was entered; None without a chain
    start_step: int | None = None
    # network calls the face took part in
    steps: int = 0
    # its share of the slots in those calls
    capacity: float = 0.0
    # the same of the calls during which other faces were waiting
    steps_saturated: int = 0
    capacity_saturated: float = 0.0


@dataclass(frozen=True, eq=False)
class Request:
    """A submitted job and the future of its result. Settling it a second time, or after a cancel, does nothing."""

    job: FaceJob
    future: "Future[FaceResult]" = field(default_factory=Future)

    @classmethod
    def of(cls, job: FaceJob, side: int) -> "Request":
        """The request of a job. Raises ValueError when the crop is not [side, side, 3]."""
        if job.crop.shape != (side, side, 3):
            raise ValueError(f"a {side}x{side} RGB face was wanted, got an array of {job.crop.shape}")
        return cls(job)

    @property
    def cancelled(self) -> bool:
        """Whether the submitter no longer wants the result."""
        return self.future.cancelled()

    def settle(self, outcome: FaceResult | Exception) -> None:
        """Complete the future with a result, or with the error that the submitter is to see."""
        if self.future.done() or not self.future.set_running_or_notify_cancel():
            return
        if isinstance(outcome, Exception):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)
