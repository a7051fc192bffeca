"""Where a run is struck, as a table, and what strikes it. The product knows nothing of this.

A point is a call of one function in one kind of process. It is armed by a file of its name in the folder
CRASH_ARMED. The first process that comes by takes the file away, so each point strikes once, whichever of many
workers gets there and however often the run is begun again.
"""

import functools
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

ARMED = "CRASH_ARMED"
# either of them makes a file
PUT = "pipeline.io.store:write_bytes|create_bytes"
GET = "pipeline.io.store:read_bytes"
ALIGN = "pipeline.stages.align:ReadAndAlign"
READ, RESTORE = f"{ALIGN}.__call__", "pipeline.stages.restore:RestoreFaces.__call__"
PUBLISH, SUBMIT = "pipeline.stages.publish:Publish.__call__", "pipeline.diffusion.engine:Engine.submit"
TAKE = "pipeline.ledger.ledger:Ledger.add"
TRACK, FINISH = (
    "pipeline.tracking.tracker:RunTracker.log_shard",
    "pipeline.tracking.tracker:RunTracker.finish",
)
BEGIN, DELIVERED = "pipeline.tracking.sender:Sender._begin", "pipeline.tracking.delivery:Delivered.add"
CLOSE = "mlflow.tracking.client:MlflowClient.set_terminated"


@dataclass(frozen=True)
class Point:
    """One place at which a process is struck."""

    name: str
    process: Literal["driver", "worker"]
    # module:attribute, with | between attributes of which any will do
    function: str
    # half: the file's temporary neighbour is written and not yet renamed
    when: Literal["before", "half", "after"]
    # pattern of what the call is about: a URI, the name of a row's or marker's unit, a step
    about: str = "*"
    # which of a process's calls that match
    call: int = 1
    sends: signal.Signals = signal.SIGKILL
    # strikes every time
    always: bool = False


# Units hold one picture each: part P of shard S is picture 3S+P. The first eight have a face.
POINTS = (
    # ---- the driver, before the flow
    Point("claim-before", "driver", PUT, "before", "*/_ledger/run.json"),
    Point("claim-half", "driver", PUT, "half", "*/_ledger/run.json"),
    Point("claim-after", "driver", PUT, "after", "*/_ledger/run.json"),
    Point("plan-shards-between", "driver", PUT, "before", "*/_ledger/plan/images-00001.json"),
    Point("plan-shard-half", "driver", PUT, "half", "*/_ledger/plan/images-00002.json"),
    Point("plan-before", "driver", PUT, "before", "*/_ledger/plan.json"),
    Point("plan-half", "driver", PUT, "half", "*/_ledger/plan.json"),
    Point("plan-after", "driver", PUT, "after", "*/_ledger/plan.json"),
    Point("resume", "driver", GET, "before", "*/_ledger/done/*.json"),
    Point("resume-again", "driver", GET, "after", "*/_ledger/done/*.json", call=2),
    # ---- the driver, while units flow
    Point("marker-taken-before", "driver", TAKE, "before"),
    Point("settled-before-tracking", "driver", TRACK, "before", "2"),
    Point("marker-taken-after", "driver", TAKE, "after", call=2),
    # ---- what MLflow has
    Point("tracking-token-before", "driver", PUT, "before", "*/_ledger/tracking.json"),
    Point("tracking-token-after", "driver", PUT, "after", "*/_ledger/tracking.json"),
    Point("mlflow-run-made", "driver", BEGIN, "before"),
    Point("mlflow-shards-sent", "driver", DELIVERED, "before"),
    Point("tracking-half", "driver", PUT, "half", "*/_ledger/tracking.json", call=2),
    # ---- the driver, at the end
    Point("report-sheet-before", "driver", PUT, "before", "*/report/contact_sheet.png"),
    Point("report-page-half", "driver", PUT, "half", "*/report/index.html"),
    Point("report-page-after", "driver", PUT, "after", "*/report/index.html"),
    Point("mlflow-close-before", "driver", FINISH, "before"),
    Point("mlflow-closed-not-noted", "driver", CLOSE, "after"),
    Point("mlflow-close-after", "driver", FINISH, "after"),
    # ---- a retry's order
    Point("retry-order-before", "driver", PUT, "before", "*/_ledger/retries.json"),
    Point("retry-order-half", "driver", PUT, "half", "*/_ledger/retries.json"),
    Point("retry-order-after", "driver", PUT, "after", "*/_ledger/retries.json"),
    Point("retry-marker-taken", "driver", TAKE, "before", call=2),
    Point("retry-report-before", "driver", PUT, "before", "*/report/contact_sheet.png"),
    Point("retry-close-before", "driver", PUT, "before", "*/_ledger/retries.json"),
    Point("retry-close-half", "driver", PUT, "half", "*/_ledger/retries.json"),
    # ---- verdicts on faces, and their order
    Point("verdicts-half", "driver", PUT, "half", "*/_ledger/verdicts/images-00000-0001.json"),
    Point("verdicts-after", "driver", PUT, "after", "*/_ledger/verdicts/images-00001-0000.json"),
    # ---- workers; the run does not end
    Point("read-before", "worker", READ, "before", "images-00000-0001"),
    Point("read-after", "worker", READ, "after", "images-00000-0002"),
    Point("picture-before", "worker", PUT, "before", "*/images/a/p01.png"),
    Point("picture-half", "worker", PUT, "half", "*/images/a/p02.png"),
    Point("records-before", "worker", PUT, "before", "*/records/images-00001-0000.parquet"),
    Point("sample-before", "worker", PUT, "before", "*/report/samples/images-00001-0001.jpg"),
    Point("marker-before", "worker", PUT, "before", "*/_ledger/done/images-00001/0002.json"),
    Point("marker-half", "worker", PUT, "half", "*/_ledger/done/images-00002/0000.json"),
    Point("marker-after", "worker", PUT, "after", "*/_ledger/done/images-00002/0001.json"),
    Point("row-before", "worker", PUBLISH, "after", "images-00002-0002"),
    Point("picture-deadly", "worker", f"{ALIGN}._picture", "before", "a/p03.png", always=True),
    # ---- the engine's actor
    Point("engine-called", "worker", RESTORE, "before", "images-00001-0000"),
    Point("engine-holds-faces", "worker", SUBMIT, "after", call=2),
    Point("engine-done", "worker", RESTORE, "after", "images-00002-0001"),
    # ---- signals to the driver
    Point("sigterm-planning", "driver", PUT, "before", "*/_ledger/plan.json", sends=signal.SIGTERM),
    Point("sigint-resuming", "driver", GET, "before", "*/_ledger/done/*.json", sends=signal.SIGINT),
    Point("sigterm-flowing", "driver", TAKE, "before", sends=signal.SIGTERM),
    Point("sigint-flowing", "driver", TAKE, "before", sends=signal.SIGINT),
    Point("sigint-again", "driver", TAKE, "before", call=2, sends=signal.SIGINT),
    Point("sigterm-reporting", "driver", PUT, "before", "*/report/contact_sheet.png", sends=signal.SIGTERM),
)
BY_NAME = {point.name: point for point in POINTS}

_calls: Counter[str] = Counter()


def install() -> None:
    """Wrap the table's functions as their modules are imported; without CRASH_ARMED do nothing."""
    if os.environ.get(ARMED):
        sys.meta_path.insert(0, _Finder())


class _Finder:
    """Finds the modules of the table where Python would, and wraps their functions once they are loaded."""

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        points = [p for p in POINTS if p.function.partition(":")[0] == name]
        spec = PathFinder.find_spec(name, path, target) if points else None
        if spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def load_and_wrap(module: ModuleType) -> None:
            load(module)
            for point in points:
                for attribute in point.function.partition(":")[2].split("|"):
                    _wrap(module, attribute, point)

        spec.loader.exec_module = load_and_wrap  # type: ignore[method-assign]
        return spec


def _wrap(module: ModuleType, attribute: str, point: Point) -> None:
    *owners, last = attribute.split(".")
    owner: Any = module
    for name in owners:
        owner = getattr(owner, name)
    original: Callable[..., Any] = getattr(owner, last)

    @functools.wraps(original)
    def struck(*args: Any, **named: Any) -> Any:
        here = _comes_by(point, args)
        if here and point.when == "before":
            _strike(point)
        if here and point.when == "half" and _claim(point):
            os.fsync = lambda _: os.kill(os.getpid(), point.sends)
        result = original(*args, **named)
        if here and point.when == "after":
            _strike(point)
        return result

    setattr(owner, last, struck)


def _comes_by(point: Point, args: tuple[Any, ...]) -> bool:
    """Whether this is the call that the point names."""
    worker = Path(sys.argv[0]).name == "default_worker.py"
    if worker != (point.process == "worker") or not fnmatchcase(_about(args), point.about):
        return False
    if not Path(os.environ[ARMED], point.name).exists():
        return False
    _calls[point.name] += 1
    return _calls[point.name] >= point.call


def _about(args: tuple[Any, ...]) -> str:
    """What a call is about: the first URI, unit, picture or number among its arguments."""
    for value in args:
        if isinstance(value, dict):
            return str(value["unit"])
        if hasattr(value, "member"):
            return str(value.member)
        if isinstance(value, str) and value.startswith("{"):
            return str(json.loads(value)["unit"])
        if isinstance(value, (str, int)):
            return str(value)
    return ""


def _strike(point: Point) -> None:
    if _claim(point):
        os.kill(os.getpid(), point.sends)


def _claim(point: Point) -> bool:
    """Take the point's file away; of several processes one does."""
    if point.always:
        return True
    try:
        Path(os.environ[ARMED], point.name).unlink()
    except FileNotFoundError:
        return False
    return True
