"""What goes wrong with a file, as one sentence that says what to do and holds no credentials."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline import Refusal
from pipeline.io import s3
from pipeline.io.errors import redact
from pipeline.io.uris import is_remote, split


class StoreError(Refusal):
    """A file could not be listed, read or written; one sentence, never with credentials."""


class NameRefused(StoreError):
    """A file could not be made because the store takes no such name; others can be."""


class StoreFull(StoreError):
    """The disk is full or a quota is used up; the same command goes on once there is space."""


@contextmanager
def explained(action: str, uri: str) -> Iterator[None]:
    """Turn what goes wrong in the block into a StoreError of one sentence.

    A remote error is not kept as the cause: its text and attributes may hold parts of the signed request.
    """
    try:
        yield
    except StoreError:
        raise
    except (OSError, ValueError, ImportError) as error:
        kind = StoreError
        if _is_full(error):
            kind = StoreFull
        elif action == "write" and _is_about_the_name(error):
            kind = NameRefused
        raise kind(sentence(action, uri, error)) from (None if is_remote(uri) else error)
    except Exception as error:
        # botocore's own errors share no ancestor with Python's; everything else is a mistake of ours
        if not type(error).__module__.startswith(("botocore", "aiobotocore", "aiohttp")):
            raise
        raise StoreError(sentence(action, uri, error)) from None


def exactly(uri: str, data: bytes, offset: int, length: int) -> bytes:
    """The bytes that were read at `offset`. Raises StoreError where they are not `length`."""
    if len(data) != length:
        raise StoreError(
            f"{redact(uri)}: {length} bytes at {offset} wanted, only {len(data)} are there; "
            "the file is shorter than when it was listed, list it again"
        )
    return data


def sentence(action: str, uri: str, error: BaseException) -> str:
    """What could not be done, why, and the next step."""
    return f"could not {action} {redact(uri)}: {_reason(uri, error)}"


# Too long, bytes that the file system does not take, or a file where a folder is wanted and the other way round.
_OF_NAMES = frozenset({errno.ENAMETOOLONG, errno.EILSEQ, errno.EISDIR, errno.ENOTDIR, errno.EEXIST})

_NO_CREDENTIALS = (
    "no complete credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
)
_NOT_IMPLEMENTED = (
    "the server does not implement what was asked for, with checksums and without; use another server, or set "
    "AWS_REQUEST_CHECKSUM_CALCULATION=when_required where a proxy before it is what refuses them"
)
_NO_ANSWER = "the server does not answer; check AWS_ENDPOINT_URL and the network"
_TOO_MANY_REQUESTS = "the server turns us away for too many requests; use fewer readers"

# By S3's name of the error, or its HTTP status. NoSuchBucket, whose sentence names the bucket, is not among them.
_BY_CODE = {
    "InvalidAccessKeyId": "the server does not know the access key; check AWS_ACCESS_KEY_ID or AWS_PROFILE",
    "SignatureDoesNotMatch": "the secret key does not fit the access key; check AWS_SECRET_ACCESS_KEY",
    "ExpiredToken": "the session has expired; renew the credentials",
    **dict.fromkeys(("NotImplemented", "501"), _NOT_IMPLEMENTED),
    **dict.fromkeys(("SlowDown", "503", "429"), _TOO_MANY_REQUESTS),
}
# By the class of errors that share no ancestor.
_BY_NAME = {
    "NoCredentialsError": _NO_CREDENTIALS,
    "PartialCredentialsError": _NO_CREDENTIALS,
    "ProfileNotFound": "AWS_PROFILE names a profile that is not configured; correct it",
    "EndpointConnectionError": _NO_ANSWER,
    "ConnectTimeoutError": _NO_ANSWER,
    "ReadTimeoutError": _NO_ANSWER,
    "AioReadTimeoutError": _NO_ANSWER,
    "Changed": "it was replaced while it was being read; leave it alone during a run",
}
_BY_KIND: tuple[tuple[type[BaseException], str], ...] = (
    (FileNotFoundError, "there is nothing of that name; correct the address"),
    (PermissionError, "the rights or credentials we have do not allow it; ask for the right or use others"),
    (NotADirectoryError, "a file stands where a folder was wanted; choose another place"),
    (IsADirectoryError, "it is not a file; give the address of one file"),
    (TimeoutError, _NO_ANSWER),
)


def _is_full(error: BaseException) -> bool:
    if s3.response(error):
        return s3.full(error)
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _is_about_the_name(error: BaseException) -> bool:
    if isinstance(error, UnicodeEncodeError) or s3.code(error) == "KeyTooLongError":
        return True
    return isinstance(error, OSError) and error.errno in _OF_NAMES and not s3.code(error)


def _reason(uri: str, error: BaseException) -> str:
    """What happened and what to do about it."""
    if _is_full(error):
        what = "the quota is used up" if getattr(error, "errno", 0) == errno.EDQUOT else "the disk is full"
        return f"{what}; free space and start the same command again"
    if s3.code(error) == "NoSuchBucket":
        return f"the bucket {split(uri)[1]!r} does not exist; create it or correct the address"
    if known := _BY_CODE.get(s3.code(error)) or _BY_NAME.get(type(error).__name__):
        return known
    if known := next((text for kind, text in _BY_KIND if isinstance(error, kind)), None):
        return known
    if isinstance(error, OSError) and error.errno and not is_remote(uri):
        return f"{os.strerror(error.errno)}; put that right and try again"
    return f"{type(error).__name__}: {_without_secrets(str(error))}"


# of a signed request, in a header or an address
_SIGNED = re.compile(
    r"(?i)\b(credential|signature|x-amz-security-token|authorization)([\"']?\s*[=:]\s*)[^\s,&]+"
)


def _without_secrets(text: str) -> str:
    """One line of `text`, without any credential of this process."""
    line = _SIGNED.sub(r"\1\2***", redact(" ".join(text.split())))
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID"):
        if value := os.environ.get(name):
            line = line.replace(value, "***")
    return line
