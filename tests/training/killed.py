"""Trainings in processes of their own, one or two workers, that kill themselves at a chosen moment.

The processes come from one server that has torch loaded already, so that each costs no more than its training.
"""

import io
import json
import multiprocessing
import os
import signal
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from pipeline.training import loop, workers

CPU = torch.device("cpu")


def train(plan, workers_=1, rank=-1, moment=""):
    """Train with so many workers; the one of this rank dies at the moment. Returns the exit codes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pipeline.training.workers", "pipeline.metrics.fidelity"])
    meeting = Path(plan.output).with_suffix(".meeting")
    meeting.unlink(missing_ok=True)
    team = [
        context.Process(target=work, args=(plan, n, workers_, str(meeting), moment if n == rank else ""))
        for n in range(workers_)
    ]
    for process in team:
        process.start()
    for process in team:
        process.join(60)
        process.kill()
        process.join()
    return [process.exitcode for process in team]


def work(plan, rank, world, meeting, moment):
    """Train as one worker."""
    torch.set_num_threads(1)
    wrap = workers.SINGLE_PROCESS.wrap
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
        wrap = DistributedDataParallel
    if moment:
        MOMENTS[moment]()
    workers.train(plan, workers.WorkerContext(rank, world, CPU, wrap, report=lambda metrics: None))


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def in_a_step():
    seed = loop.Trainer._seed
    loop.Trainer._seed = lambda trainer: die() if trainer.step == 5 else seed(trainer)


def while_writing_the_checkpoint():
    save = torch.save

    def half(state, file):
        if state["step"] < 4:
            return save(state, file)
        whole = io.BytesIO()
        save(state, whole)
        file.write(whole.getvalue()[: len(whole.getvalue()) // 2])
        file.flush()
        die()

    torch.save = half


def before_the_checkpoint_has_its_name():
    replace = Path.replace

    def killing_replace(path, target):
        if path.suffix == ".partial" and torch.load(path)["step"] == 4:
            die()
        return replace(path, target)

    Path.replace = killing_replace


MOMENTS = {
    "in a step": in_a_step,
    "while writing the checkpoint": while_writing_the_checkpoint,
    "before the checkpoint has its name": before_the_checkpoint_has_its_name,
}


def curve(output):
    """All of metrics.jsonl but the speed."""
    rows = [json.loads(line) for line in (Path(output) / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "faces_per_second"} for row in rows]
