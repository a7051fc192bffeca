"""The pipeline under load: `make load` prints a line of JSON for each measurement of docs/load.md.

Each runs in a process of its own, with a Ray of its own.
"""

import subprocess
import sys
import tempfile

SLOW = ("--units", "40", "--cost", "0.2", "--slow", "20")
MEASUREMENTS = {
    "one node": ("load.nodes", "--nodes", "1", "--units", "40", "--images", "16"),
    "four nodes": ("load.nodes", "--nodes", "4", "--units", "160", "--images", "16"),
    "a slow shard": ("load.nodes", "--nodes", "1", "--images", "16", *SLOW),
    "payload of 512 px": ("load.nodes", "--nodes", "1", "--units", "20", "--side", "512", "--store", "8192"),
    "a million images": ("load.books", "--shards", "10000", "--unit-images", "100"),
}


def main() -> int:
    """All of them, one after the other; 1 when one failed."""
    failed = False
    for name, (module, *options) in MEASUREMENTS.items():
        print(f"{name}:", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            place = [f"{folder}/run"] if module == "load.books" else []
            done = subprocess.run(
                [sys.executable, "-m", module, *place, *options],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
            )  # fmt: skip
        told = [line for line in done.stdout.splitlines() if line.startswith("{")]
        print("\n".join(told or done.stdout.splitlines()[-20:]), flush=True)
        failed |= done.returncode != 0
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
