"""Carry out the steps of cluster/Dockerfile without a container engine: `python tools/try_image.py [--full]`.

COPY and WORKDIR go to a scratch folder; each RUN is run there by sh, with these commands replaced, because they would
change this machine: apt-get only simulates; pip is that of a fresh virtual environment, and without --full it resolves
all packages against constraints.txt and installs none; useradd, install and rm are shown only. Not tried: the base
image, and wheels of an index that can not be reached from here. Exits with 1 at the first step that fails.
"""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHOWN_ONLY = ("useradd", "install", "rm")


def steps(text: str) -> list[tuple[str, str]]:
    """Each instruction of a Dockerfile with its arguments, continued lines joined."""
    kept = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    joined = kept.replace("\\\n", " ")
    return [
        (word.upper(), rest.strip())
        for word, _, rest in (x.partition(" ") for x in joined.splitlines())
        if word
    ]


def make_stand_ins(folder: Path, python: Path, full: bool) -> None:
    """The commands that a step finds before the system's own."""
    folder.mkdir()
    for name in SHOWN_ONLY:
        write_program(folder / name, f'echo "  (not here) {name} $*"')
    write_program(
        folder / "apt-get", '[ "$1" = update ] || exec /usr/bin/apt-get --simulate -qq "$@" >/dev/null'
    )
    dry = "" if full else "--dry-run -qq"
    write_program(folder / "pip", f'command=$1; shift; exec {python} -m pip "$command" {dry} "$@"')
    write_program(
        folder / "difface", f'exec {python.parent}/difface "$@"' if full else 'echo "  (not here) difface $*"'
    )


def write_program(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def carry_out(dockerfile: Path, scratch: Path, arguments: dict[str, str], full: bool) -> None:
    """Every step in order. Raises subprocess.CalledProcessError where one fails."""
    venv.create(scratch / "venv", with_pip=True)
    make_stand_ins(scratch / "bin", scratch / "venv" / "bin" / "python", full)
    values = {"PATH": f"{scratch}/bin:{os.environ['PATH']}"}
    place = scratch / "root"
    place.mkdir()
    for instruction, rest in steps(dockerfile.read_text()):
        print(f"{instruction} {re.sub(r' +', ' ', rest)}", flush=True)
        if instruction in ("ARG", "ENV"):
            name, _, value = rest.partition("=")
            values[name] = arguments.get(name, value)
        elif instruction == "WORKDIR":
            place = scratch / "root" / rest.lstrip("/")
            place.mkdir(parents=True, exist_ok=True)
        elif instruction == "COPY":
            *sources, target = shlex.split(rest)
            for source in sources:
                copy(
                    ROOT / source, place / target if len(sources) == 1 and target != "./" else place / source
                )
        elif instruction == "RUN":
            subprocess.run(["sh", "-euc", rest], cwd=place, env=os.environ | values, check=True)


def copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--file", default="cluster/Dockerfile", help="the Dockerfile")
    parser.add_argument(
        "--build-arg", action="append", default=[], metavar="NAME=VALUE", help="as of docker build"
    )
    parser.add_argument("--full", action="store_true", help="install the packages too, and run the command")
    options = parser.parse_args()
    arguments = dict(a.split("=", 1) for a in options.build_arg)
    with tempfile.TemporaryDirectory(prefix="difface-image-") as scratch:
        try:
            carry_out(ROOT / options.file, Path(scratch), arguments, options.full)
        except subprocess.CalledProcessError as error:
            print(f"error: the step ended with {error.returncode}", file=sys.stderr)
            return 1
    print("every step went through")
    return 0


if __name__ == "__main__":
    sys.exit(main())
