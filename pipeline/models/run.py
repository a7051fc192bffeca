"""One call of `jobs.models`: an operation on the files of the chosen models, printed or as JSON."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from pipeline.console.options import UsageError
from pipeline.io import store
from pipeline.models.catalogue import files_of, find_model, known_models
from pipeline.models.operations import OPERATIONS, Status, initial_status
from pipeline.models.options import ModelsConfig

DONE, FAILED = 0, 1
COLUMNS = ("model", "side", "use", "file", "size", "found", "licence")


def run(config: ModelsConfig) -> int:
    """Carry out the operation for every file and print the result. Returns the exit code."""
    models = [find_model(name) for name in config.models or known_models()]
    if config.weights_dir:
        store.check_readable(store.absolute(config.weights_dir))
    if config.to:
        store.check_writable(store.absolute(config.to).rstrip("/"))
    results: list[Status] = []
    for model, file in files_of(models, once=config.operation != "list"):
        for status in OPERATIONS[config.operation](initial_status(model, file), file, config):
            results.append(status)
            if config.json != "-" and config.operation != "list":
                print("\n".join(describe(status)), flush=True)
    if config.json != "-" and config.operation == "list":
        print("\n".join(table(results)))
    code = DONE if all(status.good for status in results) else FAILED
    if config.to:
        mirror_presets(config)
    write_json(config, results, code)
    return code


def mirror_presets(config: ModelsConfig) -> None:
    """Copy preset files of the user's own beside their weights. Raises UsageError for a name that is taken."""
    to = store.absolute(config.to or "")
    for name in config.models:
        if name in known_models():
            continue
        path = Path(name).expanduser()
        uri, data = store.join(to, path.name), path.read_bytes()
        if store.exists(uri) and store.read_bytes(uri) != data:
            raise UsageError(
                f"{uri} is another preset than {path}; mirror to another place, or delete it there first"
            )
        store.write_bytes(uri, data)


def write_json(config: ModelsConfig, results: Sequence[Status], code: int) -> None:
    """Write or print the JSON output that --json asks for."""
    values = {"exit_code": code, "files": [asdict(status) for status in results]}
    if config.json == "-":
        print(json.dumps(values))
    elif config.json:
        store.write_bytes(config.json, json.dumps(values, indent=1).encode())


def table(results: Sequence[Status]) -> Iterator[str]:
    """One line per file; a model's name only in its first line."""
    rows = [[name.upper() for name in COLUMNS]]
    for before, status in zip([None, *results], results, strict=False):
        head = [status.model, f"{status.side or '-'}", status.use]
        if before is not None and before.model == status.model:
            head = [""] * len(head)
        rows.append([*head, status.file, megabytes(status.size), status.found, status.licence])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def describe(status: Status) -> Iterator[str]:
    """The result for one file, in lines."""
    yield f"{status.file} ({status.model}): {status.state if status.good else f'error: {status.state}'}"
    if status.sha256:
        yield f"  {status.found}, {megabytes(status.size)}, {status.uri}"
        yield f"  sha256 {status.sha256}"
        yield f"  licence: {status.licence}"


def megabytes(size: int | None) -> str:
    """A file size as text; less than 0.1 MB in kB."""
    if size is None:
        return "-"
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"
