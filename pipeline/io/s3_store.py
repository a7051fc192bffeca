"""Files of S3 buckets, by URI: the requests of pipeline/io/s3.py on fsspec's event loop.

Called through pipeline/io/store.py, which explains the errors. Credentials and endpoints come the standard AWS way
(AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, AWS_PROFILE, ...). Safe to use from threads and in forked or spawned workers:
fsspec keeps one client per process.
"""

import mimetypes
import secrets
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any, BinaryIO, TypeVar, cast

import fsspec
from fsspec.asyn import sync

from pipeline.io import s3
from pipeline.io.errors import redact
from pipeline.io.listing import PROBE, Entry, entries_below
from pipeline.io.ranges import RangeReader
from pipeline.io.store_errors import StoreError, exactly, explained
from pipeline.io.uris import join, name_of, split

_PRECONDITION_FAILED = 412
_NO_CONDITIONS = (
    "its server ignores If-None-Match (conditional writes), so that two runs at once could not be kept apart; use a "
    "server that honours it, as AWS S3, Cloudflare R2 and recent versions of MinIO, Ceph and SeaweedFS do, or a folder"
)
# Set in a process whose server has turned a request away for its checksums and taken it without.
refuses_checksums = threading.Event()

T = TypeVar("T")


# ---- requests


def _filesystem(uri: str, options: dict[str, Any] | None = None) -> Any:
    """s3fs's file system; the same object for every call in this process with the same options."""
    if options is None:
        options = s3.WITHOUT_CHECKSUMS if refuses_checksums.is_set() else s3.OPTIONS
    # a listing must show what other workers wrote a moment ago
    filesystem = fsspec.filesystem(split(uri)[0], config_kwargs=options, use_listings_cache=False)
    # of a whole call, around botocore's of a request
    filesystem.retries = 1
    return filesystem


def _ask(uri: str, action: Callable[..., Coroutine[Any, Any, T]], *args: Any, **options: Any) -> T:
    """The result of a coroutine of pipeline/io/s3.py.

    Once more, without the checksums that botocore adds unasked, where a server may have refused it for them.
    """
    with_checksums = not refuses_checksums.is_set()
    filesystem = _filesystem(uri)
    try:
        return cast(T, sync(filesystem.loop, action, filesystem, *args, **options))
    except OSError as error:
        if not with_checksums or not s3.refuses_checksums(error):
            raise
    filesystem = _filesystem(uri, s3.WITHOUT_CHECKSUMS)
    result = cast(T, sync(filesystem.loop, action, filesystem, *args, **options))
    refuses_checksums.set()
    return result


def _place(uri: str) -> s3.Place:
    """Bucket and Key of an object. Raises StoreError for credentials in the address: what we show and record has it."""
    protocol, bucket, key = split(uri)
    arn = bucket.startswith("arn:")
    if "@" in bucket or (":" in bucket and "@" in key and not arn):
        raise StoreError(
            f"{protocol}://***: an address without credentials was wanted; "
            "give them as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if arn:  # of an access point, which has slashes of its own
        bucket, key = _filesystem(uri)._find_bucket_key(join(bucket, key))
    return {"Bucket": bucket, "Key": key}


def _folder(key: str) -> str:
    """What the keys of everything below a folder begin with."""
    return f"{key.rstrip('/')}/" if key else ""


def _head(uri: str) -> dict[str, Any] | None:
    """Size and ETag of an object; None where there is none."""
    place = _place(uri)
    return _ask(uri, s3.head, place) if place["Key"] else None


def _first_below(uri: str, attempts: int = 0) -> str | None:
    """The first key below a folder."""
    place = _place(uri)
    return _ask(uri, s3.first_below, place["Bucket"], _folder(place["Key"]), attempts)


def signed_address(uri: str, seconds: int) -> str:
    """The address of an object with a signature of our credentials that is valid for so long."""

    # the object has no type of its own, and a browser would save a page without one
    kind = mimetypes.guess_type(uri)[0] or "application/octet-stream"
    wanted = _place(uri) | {"ResponseContentType": kind}

    async def sign(filesystem: Any) -> str:
        await filesystem.set_session()
        client = await filesystem.get_s3(wanted["Bucket"])
        address: str = await client.generate_presigned_url("get_object", Params=wanted, ExpiresIn=seconds)
        return address

    # botocore's own choice for addresses is the version before, which newer regions refuse
    filesystem = _filesystem(uri, s3.OPTIONS | {"signature_version": "s3v4"})
    return cast(str, sync(filesystem.loop, sign, filesystem))


# ---- files


def exists(uri: str) -> bool:
    """Whether an object is there, or one below it."""
    return _head(uri) is not None or _first_below(uri) is not None


def stat(uri: str) -> Entry:
    """Size and ETag of an object."""
    found = _head(uri)
    if found is None:
        # also finds out whether there is a bucket, which the answer above leaves open
        raise FileNotFoundError(uri) if _first_below(uri) is None else IsADirectoryError(uri)
    return Entry(uri, name_of(uri), int(found["ContentLength"]), str(found.get("ETag", "")).strip('"'))


def list_files(uri: str) -> Iterator[Entry]:
    """The objects below a prefix, without hidden ones; an object gives itself."""
    place = _place(uri)
    root = _folder(place["Key"])
    # every key below is the listed prefix and its path, letter by letter: two slashes are not one
    folder = join(uri.removesuffix(place["Key"]), root)
    objects = _ask(uri, s3.list_below, place["Bucket"], root)
    infos = {o["Key"]: {"type": "file", "size": o["Size"], "ETag": o["ETag"]} for o in objects}
    if not infos and root:
        yield stat(uri)
        return
    yield from entries_below(folder, root, infos)


def open_read(uri: str) -> BinaryIO:
    """The object, seekable and buffered in blocks; one version of it. Reading raises StoreError."""
    found = stat(uri)

    def fetch(begin: int, end: int) -> bytes:
        with explained("read", uri):
            data = _ask(uri, s3.read_range, _place(uri), begin, end, found.version)
        return exactly(uri, data, begin, end - begin)

    return cast(BinaryIO, RangeReader(fetch, found.size))


def read_bytes(uri: str) -> bytes:
    """The whole content of an object."""
    return _ask(uri, s3.read_range, _place(uri), 0, sys.maxsize)


def read_range(uri: str, offset: int, length: int) -> bytes:
    """Bytes [offset, offset + length) of an object; fewer only where it ends before."""
    return _ask(uri, s3.read_range, _place(uri), offset, offset + length)


def write_bytes(uri: str, data: bytes) -> None:
    """Make or replace an object, whole or not at all."""
    _ask(uri, s3.put, _place(uri), data)


def create_bytes(uri: str, data: bytes) -> bool:
    """Make an object that must not exist yet; whether we made it."""
    return swap_bytes(uri, data, "")


def version_of(uri: str) -> str:
    """The ETag of an object; empty where there is none."""
    found = _head(uri)
    return "" if found is None else str(found.get("ETag", "")).strip('"')


def swap_bytes(uri: str, data: bytes, version: str, attempts: int = 0) -> bool:
    """Replace the object of this ETag, or with an empty one make it where there is none; whether that was so."""
    try:
        _ask(uri, s3.put_if, _place(uri), data, version, attempts)
    except FileExistsError:
        return False
    except OSError as error:
        # s3fs reports a lost race as EINVAL; the status behind it is the server's. What is gone is another version.
        gone = bool(version) and isinstance(error, FileNotFoundError) and s3.code(error) != "NoSuchBucket"
        if gone or s3.status(error) == _PRECONDITION_FAILED:
            return False
        raise
    return True


def delete(uri: str) -> None:
    """Remove an object; one that is not there is no error, and needs no right to delete."""
    try:
        _ask(uri, s3.ask, "delete_object", **_place(uri))
    except PermissionError:
        if _head(uri) is not None:
            raise


# ---- checks before a run


def check_readable(uri: str) -> None:
    """Return when an object can be read, or one below the prefix."""
    below = _first_below(uri, s3.CHECK_ATTEMPTS)
    # to list and to read are two rights; of an archived object this asks for no more than the right
    key = _place(uri)["Key"] if below is None else below
    if not key or _ask(uri, s3.head, _place(uri) | {"Key": key}, s3.CHECK_ATTEMPTS) is None:
        raise FileNotFoundError(uri)


def check_writable(uri: str) -> None:
    """Return when objects can be made below a prefix; leaves nothing behind where we may delete."""
    probe = join(uri, PROBE)
    _ask(uri, s3.ask, "put_object", attempts=s3.CHECK_ATTEMPTS, Body=b"", **_place(probe))
    _delete_probe(probe)


def check_claims(uri: str) -> None:
    """Return when objects can be made below a prefix, and the server honours conditions on a put."""
    # a start that checks at the same moment may delete the first from under us; the second is ours alone
    probes = (PROBE, f"{PROBE}-{secrets.token_hex(8)}")
    if all(_made_again(join(uri, probe)) for probe in probes):
        raise StoreError(f"could not use {redact(uri)}: {_NO_CONDITIONS}")


def _made_again(probe: str) -> bool:
    """Whether an object that is there can be made under the condition that it is not; it is deleted again."""
    _ask(probe, s3.ask, "put_object", attempts=s3.CHECK_ATTEMPTS, Body=b"", **_place(probe))
    try:
        return swap_bytes(probe, b"", "", s3.CHECK_ATTEMPTS)
    except OSError as error:
        if s3.status(error) == 501:
            return True
        raise
    finally:
        _delete_probe(probe)


def _delete_probe(probe: str) -> None:
    # rights that let us write but not delete are enough for everything we do
    with suppress(PermissionError):
        _ask(probe, s3.ask, "delete_object", attempts=s3.CHECK_ATTEMPTS, **_place(probe))
