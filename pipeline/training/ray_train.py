"""Training on the workers of Ray Train."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipeline import Refusal
from pipeline.console.commands import OK
from pipeline.console.options import UsageError
from pipeline.io import store
from pipeline.restoration.cluster import hearing, join
from pipeline.tracking.address import ui_command
from pipeline.training.checkpoint import WEIGHTS
from pipeline.training.options import TrainingOptions
from pipeline.training.plan import TrainingPlan, mlflow_uri
from pipeline.training.workers import train_under_ray


def fit(options: TrainingOptions, plan: TrainingPlan) -> int:
    """Train on Ray's workers. Returns the exit code."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.exceptions import WorkerGroupError

    join(options.ray_address, log_to_driver=True)
    trainer = TorchTrainer(
        train_under_ray,
        train_loop_config={"plan": plan},
        scaling_config=ScalingConfig(
            num_workers=options.workers,
            use_gpu=takes_gpus(options),
            resources_per_worker={"CPU": options.cpus_per_worker}
            | ({"GPU": 1} if takes_gpus(options) else {}),
        ),
        run_config=RunConfig(
            name=time.strftime("%Y%m%d-%H%M%S"),
            storage_path=store.join(plan.output, "_ray"),
            failure_config=FailureConfig(max_failures=options.max_failures),
        ),
    )
    try:
        with interruptible(), hearing("RayTrainWorker"):
            trainer.fit()
    except WorkerGroupError as error:
        raise known_cause(error) from error
    print(f"trained to step {plan.loop.steps:,}: averaged weights in {store.join(plan.output, WEIGHTS)}")
    if plan.open_tracker:
        print(f"curves:  {ui_command(mlflow_uri(options, plan.output))}")
    return OK


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C and SIGTERM stop the workers and raise KeyboardInterrupt.

    Ray's own handler exits with code 0, as if the training were finished.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    except SystemExit as error:
        raise KeyboardInterrupt from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def takes_gpus(options: TrainingOptions) -> bool:
    """Whether workers run on GPUs. Raises UsageError when they are requested and not available."""
    import ray

    gpus = ray.cluster_resources().get("GPU", 0)
    if options.device == "gpu" and gpus < options.workers:
        raise UsageError(
            f"--device gpu needs {options.workers} GPUs, the cluster has {gpus:.0f}; lower --workers"
        )
    return options.device == "gpu" or (options.device == "auto" and gpus >= options.workers)


def known_cause(error: Any) -> BaseException:
    """The first worker's Refusal, else the error itself."""
    for failure in error.worker_failures.values():
        cause: BaseException | None = failure
        while cause is not None:
            if isinstance(cause, Refusal):
                return cause
            cause = cause.__cause__ or getattr(cause, "_base_exc", None)
    return error  # type: ignore[no-any-return]  # an untyped exception of Ray's
