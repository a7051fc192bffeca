"""Whether a run is to begin nothing more."""

from pipeline.io import store


def is_stopping(uri: str) -> bool:
    """Whether the driver's stop object is there. A store that can not be asked says no: who needs it will say so."""
    try:
        return store.exists(uri)
    except store.StoreError:
        return False
