"""Write the floor table of docs/architecture.md: `python tools/floor_table.py`, or `make docs`.

The floors are import-linter's contracts in pyproject.toml; what a room holds is the docstring of its `__init__.py`.
"""

import ast
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- floors: written by make docs -->", "<!-- end of floors -->"


def floors() -> list[list[str]]:
    """The folders of each floor, the highest floor first: jobs/, then those of pipeline/."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (c["layers"] for c in contracts if c.get("containers") == ["pipeline"])
    return [["jobs"], *([f"pipeline/{room.strip()}" for room in layer.split("|")] for layer in layers)]


def caption(folder: str) -> str:
    """The one line that a folder's `__init__.py` says of it. Raises ValueError where there is none."""
    text = ast.get_docstring(ast.parse((ROOT / folder / "__init__.py").read_text())) or ""
    if not text or "\n" in text:
        raise ValueError(
            f"{folder}/__init__.py wants a docstring of one line that says what the folder holds"
        )
    return text


def table() -> str:
    """A Markdown table: floor, folder, what it holds."""
    numbered = zip(range(len(floors()), 0, -1), floors(), strict=True)
    rows = [f"| {number} | `{room}/` | {caption(room)} |" for number, rooms in numbered for room in rooms]
    return "\n".join(["| floor | folder | holds |", "|---|---|---|", *rows])


def with_table(text: str) -> str:
    """The document with the present table between its two markers."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    DOCUMENT.write_text(with_table(DOCUMENT.read_text()))
