"""What can be done with a weights file: locate, fetch, mirror, check. Each operation yields the file's status."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.io import store, weights
from pipeline.io.weights import Copy, Resolved, WeightsError
from pipeline.models.catalogue import Model, WeightsFile
from pipeline.models.options import ModelsConfig
from pipeline.networks.archive import read_archive
from pipeline.networks.checkpoint import CheckpointError, read_state
from pipeline.networks.presets import load_network
from pipeline.networks.spandrel_models import load_upscaler
from pipeline.networks.tiling import MARGIN, TILE

FAILURES = (WeightsError, CheckpointError, store.StoreError)


@dataclass(frozen=True)
class Status:
    """The status of one file, or of one copy of it. The field names are those of the JSON output."""

    model: str
    side: int | None
    use: str
    file: str
    licence: str
    # bytes, where the file was found
    size: int | None = None
    # where it was found: "package", "weights-dir", "cache", "path", or "missing"
    found: str = "missing"
    uri: str | None = None
    sha256: str | None = None
    # result of the operation, in words
    state: str = ""
    good: bool = True


def initial_status(model: Model, file: WeightsFile) -> Status:
    """The status of a file that was not searched yet."""
    return Status(model.name, model.side, model.use, Path(file.file).name, file.licence)


def _with_copy(status: Status, copy: Copy) -> Status:
    return replace(status, found=copy.place, uri=copy.file.uri, size=copy.file.size)


def locate(status: Status, file: WeightsFile, config: ModelsConfig) -> Iterator[Status]:
    """Where the file would be loaded from."""
    found = next(weights.copies(file.file, file.url, config.weights_dir), None)
    yield _with_copy(status, found) if found else status


def fetch(status: Status, file: WeightsFile, config: ModelsConfig) -> Iterator[Status]:
    """Download the file unless it is on this machine, and check that it fits its network."""
    try:
        yield _obtain(status, file, config)[0]
    except FAILURES as error:
        yield replace(status, state=str(error), good=False)


def mirror(status: Status, file: WeightsFile, config: ModelsConfig) -> Iterator[Status]:
    """Copy the file to the mirror, fetching it first where needed."""
    to = store.absolute(config.to or "")
    try:
        status, found = _obtain(status, file, config)
        copied = weights.mirror(found, to, file.url, file.licence)
        yield replace(status, state=f"copied to {to}" if copied else f"already in {to}, verified")
    except FAILURES as error:
        yield replace(status, state=str(error), good=False)


def check(status: Status, file: WeightsFile, config: ModelsConfig) -> Iterator[Status]:
    """Compare every copy of the file with its digest. A missing file is an error only where its model was named."""
    copies = list(weights.copies(file.file, file.url, config.weights_dir))
    if not copies:
        yield replace(status, state="not on this machine", good=not config.models)
    for one in (_with_copy(status, copy) for copy in copies):
        try:
            yield _compare_digest(one, file)
        except FAILURES as error:
            yield replace(one, state=str(error), good=False)


OPERATIONS: Mapping[str, Callable[[Status, WeightsFile, ModelsConfig], Iterator[Status]]] = {
    "list": locate,
    "fetch": fetch,
    "mirror": mirror,
    "check": check,
}


def _obtain(status: Status, file: WeightsFile, config: ModelsConfig) -> tuple[Status, Resolved]:
    """The file's status once it is on this machine, and its local copy. Raises one of FAILURES."""
    found = weights.resolve(file.file, file.url, file.sha256, config.weights_dir)
    check_fits(file, found)
    status = _with_copy(status, next(weights.copies(file.file, file.url, config.weights_dir)))
    state = "available, fits its network" if file.network or file.upscales else "available"
    return replace(status, sha256=found.sha256, state=state), found


def check_fits(file: WeightsFile, found: Resolved) -> None:
    """Raise CheckpointError when the file does not fit its network. A download that is no weights file is deleted."""
    try:
        if file.network is not None:
            load_network(file.network, found.path)
        elif file.upscales:
            load_upscaler(read_state(found.path), TILE + 2 * MARGIN, str(found.path))
        elif file.sha256 is None:
            read_archive(found.path)
    except CheckpointError as error:
        # the cause may also be a wrong preset or a missing package: then the file is kept
        if not _is_weights(found.path) and weights.discard(found):
            raise CheckpointError(f"{error}; it was removed from the cache") from error
        raise


def _is_weights(path: Path) -> bool:
    """Whether a file holds weights, of whatever network."""
    try:
        read_archive(path)
    except CheckpointError:
        return False
    return True


def _compare_digest(status: Status, file: WeightsFile) -> Status:
    """The status of a copy after hashing it: against its model's digest, else against the recorded one."""
    uri = str(status.uri)
    digest, recorded = weights.digest_of(uri), weights.recorded(uri)
    expected, source = (file.sha256.lower(), "model") if file.sha256 else (recorded, "record")
    if expected is None:
        state = "no digest is known to compare with"
    elif expected == digest:
        state = f"matches the digest of its {source}"
    else:
        state = f"damaged or another file: its {source} has sha256 {expected}; delete it and fetch or mirror it again"
    return replace(status, sha256=digest, state=state, good=expected in (None, digest))
