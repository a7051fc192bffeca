"""One input walked in a process of its own: `python -m hostile.measured FOLDER [refused]` prints what it took as JSON.

The input lies in FOLDER/in. `megabytes` is by how much it raised the peak of the process's memory.
"""

import json
import re
import sys
import time
from pathlib import Path

from hostile import corpus
from hostile.stages import run_stages

from pipeline.stages import read
from pipeline.stages.plan import InputError


def peak_megabytes() -> float:
    """The most memory that this program has had; `getrusage` would count the one that started it."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


def main(folder: Path, refused: bool) -> None:
    read.MOST_UNIT_BYTES = 100 << 20
    (folder / "warm").mkdir()
    (folder / "warm" / "a.jpg").write_bytes(corpus.JPEG)
    run_stages(folder / "warm", folder / "warm out")  # loads what every input needs
    before, began = peak_megabytes(), time.monotonic()
    try:
        run_stages(folder / "in", folder / "out")
        assert not refused
    except InputError:
        assert refused
    print(json.dumps({"megabytes": peak_megabytes() - before, "seconds": time.monotonic() - began}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] == ["refused"])
