"""What runs on this machine, read from /proc."""

from contextlib import suppress
from pathlib import Path


def parents() -> dict[int, int]:
    """Parent of every running process; a zombie runs no more."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # ended in the meantime
                # pid (name) state parent ...; the name may hold spaces and brackets
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                if state != "Z":
                    found[int(entry.name)] = int(parent)
    return found


def descendants(ancestor: int) -> set[int]:
    """Processes that this one started, and those that they did."""
    found, tree = {ancestor}, parents()
    while more := {pid for pid, parent in tree.items() if parent in found} - found:
        found |= more
    return found - {ancestor}


def names(processes: set[int]) -> dict[int, bytes]:
    """Command lines of those that still run; Ray names a worker's process by what it does."""
    found = {}
    for pid in processes & parents().keys():
        with suppress(OSError):
            found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes()
    return found


def with_environment(variable: str) -> dict[int, bytes]:
    """Command lines of the processes whose environment began with NAME=value, whoever their parent is by now."""
    found = {}
    for pid in parents():
        with suppress(OSError):  # ended in the meantime, or somebody else's
            if variable.encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found |= names({pid})
    return found
