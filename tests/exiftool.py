"""What exiftool, a program that is not ours, reads in a file."""

import json
import subprocess
from pathlib import Path
from typing import Any


def read(path: Path, data: bytes) -> dict[str, Any]:
    """Every tag by `Group:Name`, structures as such, of these bytes, which are written there; none may be damaged."""
    path.write_bytes(data)
    command = ["exiftool", "-json", "-G1", "-struct", "-a", "-warning", "-error", "-all", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    [found] = json.loads(done.stdout)
    wrong = {name: text for name, text in found.items() if name.endswith(("Warning", "Error"))}
    assert not wrong, wrong
    return dict(found)
