"""One start of a training command: export, dry run or training."""

from collections.abc import Callable

from pipeline.console.commands import OK
from pipeline.networks import presets
from pipeline.training.continuation import check_continues
from pipeline.training.description import describe
from pipeline.training.export import export
from pipeline.training.options import TrainingOptions
from pipeline.training.plan import make_plan
from pipeline.training.ray_train import fit
from pipeline.training.task import Task

CONTINUES = "interrupted; the same command continues from the last checkpoint"


def run(options: TrainingOptions, make_task: Callable[[presets.Preset], Task]) -> int:
    """Export, describe or train, by the options. Returns the exit code."""
    preset = presets.find_preset(options.preset)
    task = make_task(preset)
    if options.export or options.export_preset:
        return export(options, task, preset)
    plan = make_plan(options, task, preset.side)
    check_continues(options, plan)
    if options.dry_run:
        print(describe(plan, options.workers))
        return OK
    return fit(options, plan)
