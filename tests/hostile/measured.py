"""Inputs walked in a process of its own: `python -m hostile.measured FOLDER` prints what each took, a line of JSON.

The inputs lie in FOLDER/0/in, FOLDER/1/in, and so on. `megabytes` is by how much one raised the peak of memory.
"""

import json
import re
import sys
import time
from pathlib import Path

from hostile import corpus
from hostile.stages import run_stages

from pipeline.io import readers
from pipeline.io.shards import InputError


def memory(what: str) -> float:
    """Megabytes of this program now (VmRSS) or at most since the last `forget_peak` (VmHWM)."""
    told = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert told
    return int(told[1]) / 1024


def forget_peak() -> None:
    """Let the peak be what is used now."""
    Path("/proc/self/clear_refs").write_text("5")


def main(place: Path) -> None:
    readers.MOST_UNIT_BYTES = 100 << 20
    (place / "warm").mkdir()
    (place / "warm" / "a.jpg").write_bytes(corpus.JPEG)
    run_stages(place / "warm", place / "warm out")  # loads what every input needs
    for number in range(len(list(place.glob("[0-9]*")))):
        folder, refused = place / str(number), False
        forget_peak()
        before, began = memory("VmRSS"), time.monotonic()
        try:
            run_stages(folder / "in", folder / "out")
        except InputError:
            refused = True
        took = {"megabytes": memory("VmHWM") - before, "seconds": time.monotonic() - began}
        print(json.dumps(took | {"refused": refused}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
