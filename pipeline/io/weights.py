"""Where a weights file comes from: the package, a folder or bucket, the cache, or its published address.

The driver resolves every file before any actor starts; an actor resolves it again and finds it in the package, the
folder or its machine's cache.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.io import store
from pipeline.io.digests import PIECE, digest_of, expected_digest, file_sha256, record, recorded
from pipeline.io.download import download
from pipeline.io.published import (
    DETECTOR_WEIGHTS,
    MASK_WEIGHTS,
    METRIC_WEIGHTS,
    UPSCALER_WEIGHTS,
    Published,
    WeightsError,
    find_upscaler,
)
from pipeline.io.weights_cache import Resolved, cache_dir, cache_path, cached, discard

__all__ = [
    "DETECTOR_WEIGHTS", "MASK_WEIGHTS", "METRIC_WEIGHTS", "PACKAGED", "UPSCALER_WEIGHTS", "Copy", "Published",
    "Resolved", "WeightsError", "copies", "digest_of", "discard", "find_upscaler", "mirror", "recorded",
    "resolve", "resolve_mask", "resolve_metric",
]  # fmt: skip

PACKAGED = Path(__file__).parent.parent / "presets" / "weights"


@dataclass(frozen=True)
class Copy:
    """A weights file that is there, whether or not it is the one wanted."""

    place: Literal["path", "package", "weights-dir", "cache"]
    file: store.Entry


def resolve(
    file: str, url: str | None = None, sha256: str | None = None, weights_dir: str | None = None
) -> Resolved:
    """The weights file of this name, on this machine, with its digest.

    file: a name, or a path that is taken as it is where it exists. Looked for in this order: that path, the package,
    `weights_dir` (a folder or a remote prefix), the cache, the published address. Raises WeightsError when it is
    nowhere or its digest is not `sha256`.
    """
    name = Path(file).name
    wanted = sha256.lower() if sha256 else None
    found = next(copies(file, None, weights_dir), None)
    if found is not None:
        with _explained(name, found.file.uri):
            return _from_copy(found, name, wanted)
    if url is not None:
        return _downloaded(name, url, wanted)
    given = [str(Path(file).expanduser())] if name != file else []
    places = [*given, "the package", *([weights_dir] if weights_dir else []), str(cache_dir())]
    raise WeightsError(
        f"weights file {name} is in none of {', '.join(places)}, and it has no published address; "
        "put it into a folder and give that as --weights-dir"
    )


def resolve_metric(name: str, weights_dir: str | None) -> Resolved:
    """The weights file of a metric (METRIC_WEIGHTS). Raises WeightsError."""
    published = METRIC_WEIGHTS[name]
    return resolve(published.file, published.url, published.sha256, weights_dir)


def resolve_mask(choice: str, weights_dir: str | None = None) -> Resolved:
    """The weights file of the network that finds masks (MASK_WEIGHTS). Raises WeightsError."""
    published = MASK_WEIGHTS[choice]
    return resolve(published.file, published.url, published.sha256, weights_dir)


def copies(file: str, url: str | None = None, weights_dir: str | None = None) -> Iterator[Copy]:
    """The files of this name that are there, in the order in which `resolve` looks; nothing is fetched or read.

    The cache of the published address is looked into where `url` is given. Raises WeightsError when `weights_dir` is
    no folder or does not answer.
    """
    name = Path(file).name
    if name != file and (path := Path(file).expanduser()).is_file():
        yield Copy("path", store.stat(str(path.absolute())))
    if (path := PACKAGED / name).is_file():
        yield Copy("package", store.stat(str(path)))
    if weights_dir is not None and (found := _in_weights_dir(name, weights_dir)) is not None:
        yield Copy("weights-dir", found)
    for path in (cache_dir() / name, *([cache_path(url, name)] if url else [])):
        if path.is_file():
            yield Copy("cache", store.stat(str(path.absolute())))


def mirror(found: Resolved, folder: str, source: str | None, licence: str) -> bool:
    """Copy a weights file into a folder or prefix, whole or not at all, and record it there; whether it was missing.

    A file that is there is read and compared. Raises WeightsError when another one has the name, store.StoreError.
    """
    uri = store.join(folder, found.path.name)
    there = digest_of(uri) if store.exists(uri) else None
    if there not in (None, found.sha256) and recorded(uri) != found.sha256:
        raise WeightsError(
            f"{uri} is another file than {found.path}: its sha256 is {there} and not {found.sha256}; "
            "mirror to another place, or delete it there first"
        )
    if there != found.sha256:
        store.write_file(uri, found.path)
    if recorded(uri) != found.sha256:
        record(uri, found.sha256, source, licence)
    return there != found.sha256


def _in_weights_dir(name: str, weights_dir: str) -> store.Entry | None:
    """The file in the user's folder; None when it is not there."""
    if not store.is_remote(weights_dir):
        folder = Path(weights_dir.removeprefix("file://")).expanduser()
        if not folder.is_dir():
            raise WeightsError(
                f"--weights-dir {weights_dir} is not a folder; give the folder that holds {name}"
            )
        path = (folder / name).absolute()
        return store.stat(str(path)) if path.is_file() else None
    uri = store.join(weights_dir, name)
    with _explained(name, weights_dir):
        return store.stat(uri) if store.exists(uri) else None


@contextmanager
def _explained(name: str, place: str) -> Iterator[None]:
    """Turn an error of the storage into a WeightsError."""
    try:
        yield
    except store.StoreError as error:
        raise WeightsError(f"weights file {name} could not be read from {place}: {error}") from error


def _from_copy(found: Copy, name: str, wanted: str | None) -> Resolved:
    """The copy on this machine, with the digest that is wanted of it."""
    uri = found.file.uri
    if not store.is_remote(uri):
        digest, expected = file_sha256(Path(uri)), expected_digest(wanted, uri)
        if not expected.allows(digest):
            raise expected.refusal(uri, digest)
        return Resolved(Path(uri), digest)

    def fetch(partial: Path) -> None:
        with store.open_read(uri) as source, partial.open("wb") as target:
            shutil.copyfileobj(source, target, PIECE)

    # The version is part of the address: a replaced object is another file.
    path = cache_path(f"{uri}@{found.file.version}", name)
    return cached(path, fetch, expected_digest(wanted, uri, str(path)), uri)


def _downloaded(name: str, url: str, wanted: str | None) -> Resolved:
    if not url.startswith(("https://", "http://")):
        raise WeightsError(
            f"weights file {name}: its address must start with https:// or http://, got {url}; "
            "correct the preset or put the file into --weights-dir"
        )
    path = cache_path(url, name)
    with _explained(name, url):
        return cached(path, lambda partial: download(url, partial), expected_digest(wanted, str(path)), url)
