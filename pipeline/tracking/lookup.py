"""Outputs of runs, found in MLflow."""

from pipeline import Refusal
from pipeline.io.errors import reason_of, redact
from pipeline.tracking.address import database_path
from pipeline.tracking.client import Client, load


class NotFound(Refusal, ValueError):
    """A store whose runs can not be searched; the command exits with code 2."""


def find_outputs(uri: str, run: str) -> list[str]:
    """The outputs of the runs of this id or name, as their parameters name them: newest run first, each once.

    Raises NotFound when the store does not answer, or is not there.
    """
    path = database_path(uri)
    if path is not None and not path.exists():
        raise NotFound(f"{path}: an MLflow database was wanted, there is none; name one with --mlflow-uri")
    load()
    client = Client(uri)
    try:
        found = client.search(run)
    except Exception as error:  # whatever server, network or database do
        raise NotFound(f"MLflow at {redact(uri)} does not say where {run} is ({reason_of(error)})") from error
    return list(dict.fromkeys(one.params["output"] for one in found if "output" in one.params))
