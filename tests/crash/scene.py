"""A small archive whose run is struck, the command that restores it, and what an undisturbed run leaves behind."""

import json
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crash.compare import left_behind
from crash.hooks.crash_points import ARMED, BY_NAME
from crash.starter import Starter
from photographs import OUTCOMES, encoded, mixed, portraits, read_folder, write_folder
from PIL import Image
from processes import with_environment

# Pictures in their own units, three to a shard: the numbers of three add up differently in another order.
UNITS = ("--unit-images", "1", "--shard-images", "3", "--max-error-rate", "0.5")
QUICK = ("--preset", "small-srcnn", "--steps", "ddim50", "--start-step", "60", "--gate", "off")
RETRY = ("--retry", "failed")
FACES = 8
KILLED = -signal.SIGKILL


def write_archive(folder: Path) -> Path:
    """Faces first, then pictures that have none or can not be read, enough for every start to find some undone."""
    faces = {f"a/{name}": content for name, content in portraits(FACES).items()}
    others = {f"b/{n}": content for n, content in mixed().items() if OUTCOMES[n][0] != "restored"}
    plain = {f"c/{i}.png": encoded(Image.new("RGB", (32, 32), (i, i, i)), "PNG") for i in range(9)}
    return write_folder(folder, faces | others | plain)


@dataclass
class Scene:
    """One archive and its starts; every output has an MLflow run of its name in one database."""

    folder: Path
    starter: Starter
    source: str = ""
    mlflow_uri: str = ""
    # what undisturbed runs left, by the options of their last start
    calm: dict[tuple[str, ...], dict[str, Any]] = field(default_factory=dict)

    def undisturbed(self, *options: str) -> dict[str, Any]:
        """What a run leaves that nobody disturbs; with options, after a second start with them."""
        if options not in self.calm:
            if options:
                self.undisturbed()
            assert self.start("calm", *options) == 0, self.log("calm").read_text()
            self.calm[options] = self.left("calm")
        return self.calm[options]

    def start(self, name: str, *options: str, struck: tuple[str, ...] = ()) -> int:
        """Exit code of one start on the output `name`, with these points armed and no other."""
        for left in self.armed():
            (self.starter.armed / left).unlink()
        for point in struck:
            (self.starter.armed / BY_NAME[point].name).touch()
        with self.log(name).open("a") as log:
            log.write(f"\n==== {options} {struck}\n")
        return self.starter.run(self.arguments(name, *options), self.log(name))

    def arguments(self, name: str, *options: str) -> list[str]:
        """The job's command line, without the program."""
        places = ["--input", self.source, "--output", str(self.output(name)), "--mlflow-uri", self.mlflow_uri]
        return [*places, "--run-name", name, *QUICK, *UNITS, *options]

    def output(self, name: str) -> Path:
        return self.folder / name / "out"

    def log(self, name: str) -> Path:
        """Everything that the starts of an output said."""
        self.output(name).parent.mkdir(exist_ok=True)
        return self.folder / name / "log"

    def armed(self) -> set[str]:
        """Points that have not struck yet."""
        return {file.name for file in self.starter.armed.iterdir()}

    def workers(self) -> set[int]:
        """Processes of Ray that a start of ours began and that still run."""
        family = with_environment(f"{ARMED}={self.starter.armed}")
        # but for two agents, which Ray ends a minute later and which do no work
        return {pid for pid, name in family.items() if b"ray" in name and b"Agent" not in name}

    def left(self, name: str) -> dict[str, Any]:
        return left_behind(self.output(name), self.mlflow_uri, name)


def differences(was: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """What differs: name → what is there, and what was wanted."""
    names = sorted(was.keys() | wanted.keys())
    return {n: (was.get(n), wanted.get(n)) for n in names if was.get(n) != wanted.get(n)}


def assert_all_accounted(output: Path, source: Path) -> None:
    """Every image of the input is in one marker, with one outcome."""
    files = sorted((output / "_ledger" / "done").glob("*/*.json"))
    marks = [json.loads(file.read_bytes()) for file in files]
    assert sum(m["images"] for m in marks) == len(read_folder(source))
    assert all(m["images"] == sum(m["outcomes"].values()) for m in marks)


def wait_for(what: Callable[[], object], seconds: float = 200.0) -> None:
    give_up = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < give_up, "waited in vain"
        time.sleep(0.02)
