"""Whether a run is to begin nothing more."""

from pipeline.io import store


def is_stopping(uri: str) -> bool:
    """Whether the driver's stop object is there; False where the store does not answer, which other requests report."""
    try:
        return store.exists(uri)
    except store.StoreError:
        return False
