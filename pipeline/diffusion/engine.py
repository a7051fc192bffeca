"""Continuous batching of the reverse chain: faces enter, step through and leave a fixed number of slots one by one.

The engine is the front of its parts: `scheduler.py` says which face goes to which worker, `worker.py` moves the faces
in the slots of one thread, `estimation.py` and `slots.py` are the calls of the two networks, `pool.py` runs the workers
within the memory there is. A face's bits depend on the face, its settings and the environment alone; docs/engine.md
says what makes it so, and what it costs.
"""

import logging
from collections.abc import Callable
from concurrent.futures import Future

import torch
from torch import Tensor

from pipeline.diffusion.call_shapes import CallShapes, ShapesCache, find_call_shapes, slots_agree
from pipeline.diffusion.difface import NoisePredictor
from pipeline.diffusion.estimation import BatchEstimator, ChainEntry
from pipeline.diffusion.graphed_slots import make_slots
from pipeline.diffusion.pool import WorkerPool
from pipeline.diffusion.request import FaceJob, FaceResult, Report, Request, ignore
from pipeline.diffusion.schedule import Schedule
from pipeline.diffusion.scheduler import Scheduler
from pipeline.diffusion.worker import StepTables, Worker

log = logging.getLogger(__name__)


class Engine:
    """Restores faces that any thread submits; threads of its own run the networks.

    estimator: [B, 3, S, S] float32 in [0, 1] → the same. prior: see NoisePredictor. batch: faces of one call of the
    prior. slots: faces in chains at once; 0 takes a full batch for every worker. On a CPU there is a worker for each of
    `threads` cores, on a GPU one for each full batch of slots. estimator_batch: faces of one call of the estimator.
    unknown: channels behind the face's three that the estimator is given; see BatchEstimator.
    report: is given what is decided of faces and the steps they take, from the engine's own threads.
    cache: of call shapes, on a CPU; None finds them anew.
    """

    def __init__(
        self,
        estimator: Callable[[Tensor], Tensor],
        prior: NoisePredictor,
        schedule: Schedule,
        side: int,
        batch: int,
        slots: int = 0,
        device: torch.device | str = "cpu",
        threads: int = 1,
        estimator_batch: int = 1,
        unknown: int = 0,
        report: Report = ignore,
        cache: ShapesCache | None = None,
    ) -> None:
        self._side, self.prior = side, prior
        # whether a face has the same bits in every slot
        self.slots_agree = True
        device = torch.device(device)
        on_cpu = device.type == "cpu"
        batches = BatchEstimator(estimator, side, device, unknown)
        shapes = estimator_shapes = CallShapes()
        if on_cpu:
            shapes, estimator_shapes = _call_shapes(
                batches, prior, int(schedule.t[0]), estimator_batch, batch, threads, cache
            )
        entry = ChainEntry(batches, estimator_batch, schedule, estimator_shapes)
        tables = StepTables(schedule)
        self._scheduler = Scheduler()

        def make_worker(count: int, most: int) -> Worker:
            worker_slots = make_slots(prior, side, count, most, device, shapes)
            return Worker(worker_slots, entry, tables, self._scheduler, report)

        self._pool = WorkerPool(make_worker, batch, shapes.partial, device, self._scheduler)
        slots = slots or batch * (threads if on_cpu else 1)
        # on a GPU every call has all the slots of its worker
        workers = min(threads, slots) if on_cpu else max(slots // batch, 1)
        self._pool.start(workers, -(-slots // workers) if on_cpu else min(slots, batch))
        if not on_cpu:
            self.slots_agree = self._test_slots(int(schedule.t[0]), device)

    @property
    def slots(self) -> int:
        """Faces in chains at most; running out of memory makes it fewer."""
        return self._scheduler.slot_count

    @property
    def batch(self) -> int:
        """Faces of a call of the prior at most; running out of memory makes it fewer."""
        return self._pool.batch

    def _test_slots(self, timestep: int, device: torch.device) -> bool:
        """Test, on a GPU, whether a face has the same bits in every slot, and say so where it has not."""
        batch = self.batch
        t = torch.full((batch,), timestep, device=device)
        agree = slots_agree(lambda x: self.prior(x.to(device), t), batch, (3, self._side, self._side))
        if not agree:
            log.warning(
                "calls of %d faces give a face other last bits in another slot: results may differ by rounding "
                "between runs",
                batch,
            )
        return agree

    def submit(self, job: FaceJob) -> "Future[FaceResult]":
        """The face's result, later. Its exception is NonFiniteFace, or what the networks raised.

        Cancelling the future frees the face's slot at the next step. Raises ValueError when the crop has another side,
        RuntimeError when the engine is closed.
        """
        request = Request.of(job, self._side)
        self._scheduler.submit(request)
        return request.future

    def close(self) -> None:
        """Finish what was submitted, then stop."""
        self._scheduler.close()
        self._pool.join()


def _call_shapes(
    estimator: BatchEstimator,
    prior: NoisePredictor,
    timestep: int,
    estimator_batch: int,
    batch: int,
    threads: int,
    cache: ShapesCache | None,
) -> tuple[CallShapes, CallShapes]:
    """The call shapes of the prior and of the estimator on this CPU."""
    most, side = max(batch, estimator_batch), estimator.side
    x = torch.randn(most, estimator.channels, side, side, generator=torch.Generator().manual_seed(0))
    faces, t = x[:, :3].contiguous(), torch.full((most,), timestep)

    def of(network: str, call: Callable[[int], Tensor], faces_of_call: int) -> CallShapes:
        def find() -> CallShapes:
            return find_call_shapes(call, faces_of_call, threads)

        if cache is None:
            return find()
        return cache.get(find, network=network, side=side, batch=faces_of_call, threads=threads)

    return (
        of("prior", lambda n: prior(faces[:n], t[:n]), batch),
        of("estimator", lambda n: estimator.network(x[:n]), estimator_batch),
    )
