"""Where a job is tracked: the address of its MLflow server or database, and how people open it."""

import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from pipeline.console.options import option
from pipeline.io import store
from pipeline.io.errors import redact

# The address that switches tracking off.
NO_TRACKING = "none"
SQLITE = "sqlite:///"
# In the address of a database these end the path, or begin an escape.
RESERVED = re.compile("[%?#]")


def mlflow_option(store_beside: str = "the output", further: str = "", group: str | None = None) -> Any:
    """The option --mlflow-uri of a job. store_beside: where the default store lies; further: more about it."""
    return option(
        None,
        help=f"MLflow server or database (default: MLFLOW_TRACKING_URI, else a SQLite file beside {store_beside}"
        f"{further}); `none` disables tracking",
        group=group,
    )


def settle_uri(given: str | None, output_uri: str) -> str:
    """Where a job is tracked: at the given address, else at that of MLFLOW_TRACKING_URI, else in the default store."""
    return given or os.environ.get("MLFLOW_TRACKING_URI") or default_uri(output_uri)


def default_uri(output_uri: str) -> str:
    """The SQLite store used when none is named.

    Beside a local output, so that all outputs of one folder are compared in one place (inside the output
    where the folder around it cannot be written); in the working folder for a remote output.
    """
    if store.is_remote(output_uri):
        return f"{SQLITE}mlflow.db"
    output = Path(output_uri.removeprefix("file://")).resolve()
    existing = next(p for p in output.parents if p.exists())
    folder = output.parent if os.access(existing, os.W_OK) else output
    return database_uri(folder / "mlflow.db")


def database_uri(path: Path) -> str:
    """The address of a SQLite store."""
    return SQLITE + RESERVED.sub(lambda letter: f"%{ord(letter[0]):02X}", str(path))


def database_path(uri: str) -> Path | None:
    """The file of a SQLite store as its address gives it; None for other stores, and for those in memory."""
    path = uri.removeprefix(SQLITE).partition("?")[0]
    if not uri.startswith(SQLITE) or not path or path.startswith((":memory:", "file:")):
        return None
    return Path(unquote(path))


def absolute_uri(uri: str) -> str:
    """The address with a SQLite store's path made absolute, for processes in other folders."""
    path = database_path(uri)
    if path is None or path.is_absolute():
        return uri
    _, mark, options = uri.partition("?")
    return database_uri(path.absolute()) + mark + options


def ui_command(uri: str) -> str:
    """The command line that opens the MLflow UI on this store, without credentials."""
    if uri == NO_TRACKING:
        return "not tracked"
    if uri.startswith(("http://", "https://")):
        return f"python -m webbrowser {shlex.quote(redact(uri))}"
    program = Path(sys.executable).with_name("mlflow")
    # Without job execution and with one worker the UI needs 0.5 GiB, not 2.3.
    begin, ui = "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false", "ui --workers 1 --backend-store-uri"
    path = database_path(uri)
    if path is not None and "?" not in uri and RESERVED.search(str(path.parent)):  # see client.openable
        there = f"cd {shlex.quote(str(path.parent))} && {begin} {shlex.quote(str(program))}"
        return f"({there} {ui} {shlex.quote(database_uri(Path(path.name)))})"
    if program.is_relative_to(Path.cwd()):
        program = program.relative_to(Path.cwd())
    return f"{begin} {shlex.quote(str(program))} {ui} {shlex.quote(redact(uri))}"
