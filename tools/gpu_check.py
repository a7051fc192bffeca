"""The engine on a GPU, right and how fast: `python tools/gpu_check.py --seconds 300 --out build/gpu`, or `make gpu`.

Needs torch with Triton, numpy and safetensors, nothing else; spandrel too for the recordings with SwinIR. Writes
check.json and check.md after every line, so that a run which is stopped leaves what it has. A part for which no time is
left is skipped, and a line says so. Exits with 1 where a check does not pass.
"""

import argparse
import json
import logging
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

import torch  # noqa: E402
from gpu_checks import bits, device, digests, forms, golden, kernels, memory  # noqa: E402
from gpu_setting import OutOfTime, Row, Setting  # noqa: E402
from gpu_timings import portrait, profile, timing  # noqa: E402

# In the order of what is most needed; the seconds that a part takes at least on a GPU.
PARTS: tuple[tuple[Callable[[Setting], Iterator[Row]], float], ...] = (
    (device, 0),
    (forms, 40),
    (golden, 15),
    (kernels, 10),
    (bits, 10),
    (memory, 15),
    (timing, 10),
    (portrait, 10),
    (profile, 10),
)


class Report:
    """The lines so far, on the terminal and in two files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: list[dict[str, Any]] = []
        self.began = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def failed(self) -> bool:
        return any(line["passed"] is False for line in self.lines)

    def add(self, part: str, row: Row) -> None:
        self.lines.append({"part": part, **asdict(row)})
        mark = {None: " ", True: "+", False: "-"}[row.passed]
        print(
            f"{mark} {time.monotonic() - self.began:6.1f} s  {part}: {row.what}: {shown(row.value)} {row.unit}",
            flush=True,
        )
        self.write(complete=False)

    def write(self, complete: bool) -> None:
        seconds = round(time.monotonic() - self.began, 1)
        content = {"complete": complete, "failed": self.failed, "seconds": seconds, "rows": self.lines}
        write(self.folder / "check.json", json.dumps(content, indent=1) + "\n")
        write(self.folder / "check.md", self.table())

    def table(self) -> str:
        """All lines as a Markdown table."""
        marks = {None: "", True: "yes", False: "**no**"}
        rows = [
            f"| {r['part']} | {r['what']} | {shown(r['value'])} | {r['unit']} | {marks[r['passed']]} |"
            for r in self.lines
        ]
        return "\n".join(["| part | what | result | unit | passed |", "|---|---|---|---|---|", *rows]) + "\n"


def shown(value: float | str) -> str:
    return value.replace("|", "/") if isinstance(value, str) else f"{value:.4g}"


def write(path: Path, text: str) -> None:
    """Whole or not at all."""
    half = path.with_suffix(".partial")
    half.write_text(text, encoding="utf-8")
    half.replace(path)


def check(setting: Setting, report: Report, chosen: Sequence[str]) -> None:
    """The chosen parts in turn; a part that fails does not keep the next from running."""
    for part, seconds in PARTS:
        name = part.__name__
        if name not in chosen:
            continue
        try:
            setting.allow(f"the part {name}", 0.1 if setting.small else seconds)
            for row in part(setting):
                report.add(name, row)
        except OutOfTime as error:
            report.add(name, Row("skipped", str(error)))
        except Exception as error:
            traceback.print_exc()
            report.add(name, Row("error", f"{type(error).__name__}: {error}"[:400], passed=False))
    report.write(complete=True)


def main() -> int:
    names = [part.__name__ for part, _ in PARTS]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=300, help="time that the check may take (300)")
    parser.add_argument("--small", action="store_true", help="tiny networks: whether every part works")
    parser.add_argument(
        "--out", type=Path, default=Path("build/gpu"), help="folder of the report (build/gpu)"
    )
    parser.add_argument("--device", default="cuda", help="cuda or cpu (cuda)")
    parser.add_argument("--parts", nargs="+", choices=names, help="these parts only")
    parser.add_argument(
        "--digests", action="store_true", help="print the bits of calls as JSON, and nothing else"
    )
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    place = torch.device(options.device)
    if place.type == "cuda" and not torch.cuda.is_available():
        print(
            "error: this machine has no CUDA device; --small --device cpu tries the check itself",
            file=sys.stderr,
        )
        return 2
    if place.type == "cuda":
        torch.cuda.set_device(place)
    else:
        torch.set_num_threads(1)
    setting = Setting(place, options.small, time.monotonic() + options.seconds, options.out)
    if options.digests:
        print(json.dumps(digests(setting)))
        return 0
    report = Report(options.out)
    check(setting, report, options.parts or names)
    print(f"{options.out / 'check.md'}: {'FAILED' if report.failed else 'passed'}")
    return int(report.failed)


if __name__ == "__main__":
    sys.exit(main())
