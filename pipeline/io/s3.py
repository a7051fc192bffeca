"""Objects of an S3 bucket: requests that are retried after passing errors, and answers that are whole.

The one place of retries: botocore's own and s3fs's are switched off (`OPTIONS`, `s3.retries`). The coroutines run on
fsspec's event loop; `s3` is its S3FileSystem. Errors that last are raised as s3fs translates them, with the server's
answer behind them.
"""

import asyncio
import itertools
import os
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

from pipeline.io.listing import files_listed

# Seconds before the second try at most; they double from try to try. Half of each wait is drawn at random.
FIRST_WAIT, LONGEST_WAIT = 0.2, 20.0
# Seconds after the first try in which retries begin, however many they are; only AWS_MAX_ATTEMPTS bounds their number.
RETRY_TIMEOUT = 180.0
# Seconds to connect, and of silence of a server that was connected.
CONNECT, SILENCE = 10.0, 30.0
# A request may take CONNECT + SILENCE, and a second for so many bytes: a server may stop taking a body, too.
SLOWEST_BYTES = 256 << 10
# One request carries so much of a body; larger objects are read by ranges, and from twice that on written in parts.
PART_BYTES = 16 << 20
# Largest object that is made under the condition that there is none. It is one request: of several conditional
# completions of multipart uploads some servers (SeaweedFS) let every one win.
LARGEST_CLAIM = 32 << 20
PARTS_AT_ONCE = 4
# Of one process; its threads share them.
CONNECTIONS = 64
# Tries of what a person waits for before a run begins, and of calling off an upload that failed.
CHECK_ATTEMPTS, ABORT_ATTEMPTS = 5, 3

# botocore's configuration
OPTIONS = {
    "retries": {"mode": "standard", "total_max_attempts": 1},
    "connect_timeout": CONNECT,
    "read_timeout": SILENCE,
    "max_pool_connections": CONNECTIONS,
}
# The same for a server that refuses the checksums which botocore adds unasked.
WITHOUT_CHECKSUMS = OPTIONS | {
    "request_checksum_calculation": "when_required",
    "response_checksum_validation": "when_required",
}

# Error codes of servers whose disk is full or quota used up.
FULL_CODES = frozenset(
    {"QuotaExceeded", "QuotaExceededException", "InsufficientStorage", "XMinioStorageFull"}
)
# HTTP statuses that do not pass: not implemented, no space.
LASTING_STATUSES = frozenset({501, 507})
# Error codes of a request that may be repeated as it is, beside 408, 429 and every 5xx but those.
PASSING_CODES = frozenset(
    {
        *(
            "SlowDown",
            "Throttling",
            "ThrottlingException",
            "RequestLimitExceeded",
            "TooManyRequestsException",
        ),
        # the body did not arrive as it was sent
        *("RequestTimeout", "IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch"),
        # conditional puts that crossed each other: nobody has won yet
        *("ConditionalRequestConflict", "OperationAborted"),
    }
)
# Errors of botocore, aiobotocore, aiohttp and urllib3 on the way to the server and back; they share no ancestor.
PASSING_ERRORS = frozenset(
    {
        *("ConnectionError", "HTTPClientError", "ClientConnectionError", "ClientPayloadError"),
        *("IncompleteRead", "IncompleteReadError", "FlexibleChecksumError", "ResponseParserError"),
    }
)

# Requests of this process that were retried, by S3's name of the error or Python's; it only grows.
retries: Counter[str] = Counter()

T = TypeVar("T")
# Bucket and Key
Place = dict[str, Any]


class Changed(OSError):
    """An object was replaced between two requests of one reading."""


def response(error: BaseException) -> dict[str, Any]:
    """The S3 answer behind an error, or {}: s3fs translates botocore's error and keeps it as the cause."""
    found = getattr(error.__cause__ or error, "response", None)
    return found if isinstance(found, dict) else {}


def code(error: BaseException) -> str:
    """S3's name of the error, or ""."""
    return str(response(error).get("Error", {}).get("Code", ""))


def status(error: BaseException) -> int:
    """The HTTP status behind the error, or 0."""
    return int(response(error).get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def full(error: BaseException) -> bool:
    """Whether the server has no space for what was written."""
    return code(error) in FULL_CODES or status(error) == 507


def refuses_checksums(error: BaseException) -> bool:
    """Whether the server may have turned the request away for its `x-amz-checksum-*` or their transfer encoding."""
    text = f"{response(error).get('Error', {}).get('Message', '')} {code(error)}".lower()
    named = any(word in text for word in ("checksum", "trailer", "aws-chunked", "content-sha256"))
    return status(error) == 501 or (named and status(error) in (400, 411))


def passing(error: BaseException) -> bool:
    """Whether the same request may succeed a little later."""
    if response(error):
        number = status(error)
        if number in LASTING_STATUSES or full(error):
            return False
        return code(error) in PASSING_CODES or number in (408, 429) or number >= 500
    names = {kind.__name__ for kind in type(error).__mro__}
    return isinstance(error, TimeoutError) or bool(names & PASSING_ERRORS)


def most_attempts() -> int:
    """Tries of one request, the first included, where the user set AWS_MAX_ATTEMPTS; else 0: only time bounds them."""
    value = os.environ.get("AWS_MAX_ATTEMPTS", "")
    return max(int(value), 1) if value.isdecimal() else 0


def wait_after(attempt: int) -> float:
    """Seconds until the next try, after the first (0), the second (1), ..."""
    # the exponent is bounded: the power of a large one is no float
    return min(FIRST_WAIT * 2.0 ** min(attempt, 60), LONGEST_WAIT) * random.uniform(0.5, 1)


async def ask(s3: Any, method: str, size: int = 0, attempts: int = 0, **request: Any) -> dict[str, Any]:
    """The answer to a request of botocore's client, its Body read whole; retried after passing errors.

    The last try begins when RETRY_TIMEOUT has ended, whatever their number.
    size: bytes of the request's or the answer's body, which may take their time.
    attempts: most tries, instead of `most_attempts`.
    """
    attempts = attempts or most_attempts()
    seconds = CONNECT + SILENCE + size / SLOWEST_BYTES
    last_begin = time.monotonic() + RETRY_TIMEOUT
    for attempt in itertools.count():
        try:
            async with asyncio.timeout(seconds):
                return await _ask_once(s3, method, request)
        except Exception as error:
            left = last_begin - time.monotonic()
            if attempt + 1 == attempts or left <= 0 or not passing(error):
                raise
            retries[code(error) or type(error).__name__] += 1
        await asyncio.sleep(min(wait_after(attempt), left))
    raise AssertionError("unreachable")


async def _ask_once(s3: Any, method: str, request: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = await s3._call_s3(method, **request)
    if (body := answer.get("Body")) is not None:
        try:
            answer["Body"] = await body.read()
        finally:
            body.close()
        if len(answer["Body"]) != _announced(answer, request):
            raise ConnectionError(f"{len(answer['Body'])} bytes came of {_announced(answer, request)}")
    return answer


def _announced(answer: dict[str, Any], request: dict[str, Any]) -> int:
    """Bytes of a body, by the answer's headers and the range that was wanted."""
    if "ContentRange" not in answer:
        return int(answer["ContentLength"])
    first, last, total = _content_range(answer)
    wanted_first, wanted_last = map(int, request["Range"].removeprefix("bytes=").split("-"))
    if (first, last) != (wanted_first, min(wanted_last, total - 1)):
        raise ConnectionError(f"{request['Range']} was wanted, {answer['ContentRange']} came")
    return last - first + 1


def _content_range(answer: dict[str, Any]) -> tuple[int, int, int]:
    """First and last byte of a partial answer, and the bytes of the whole object."""
    span, _, total = answer["ContentRange"].removeprefix("bytes ").partition("/")
    first, _, last = span.partition("-")
    return int(first), int(last), int(total)


async def read_range(s3: Any, place: Place, begin: int, end: int, version: str = "") -> bytes:
    """Bytes [begin, end) of an object; fewer only where it ends before.

    version: the ETag that it must have; where none is given all bytes are of one version all the same.
    Raises Changed when it has another one.
    """
    first, total, version = await _piece(s3, place, begin, min(begin + PART_BYTES, end), version)
    begin, end = begin + PART_BYTES, min(end, total)
    if begin >= end:
        return first

    async def piece(number: int) -> bytes:
        start = begin + number * PART_BYTES
        return (await _piece(s3, place, start, min(start + PART_BYTES, end), version))[0]

    return b"".join([first, *await _concurrently(piece, -(-(end - begin) // PART_BYTES))])


async def _piece(s3: Any, place: Place, begin: int, end: int, version: str) -> tuple[bytes, int, str]:
    """Bytes [begin, end) by one request, the size of the whole object, and its ETag."""
    try:
        answer = await ask(s3, "get_object", size=end - begin, Range=f"bytes={begin}-{end - 1}", **place)
    except OSError as error:
        if code(error) == "InvalidRange":
            return b"", 0, version
        raise
    found = str(answer.get("ETag", "")).strip('"')
    if version and found != version:
        raise Changed(f"version {version} was wanted, {found} is there")
    body: bytes = answer["Body"]
    # a server without support for ranges gives everything
    if "ContentRange" not in answer:
        return body[begin:end], len(body), found
    return body, _content_range(answer)[2], found


async def put(s3: Any, place: Place, data: bytes) -> None:
    """Make or replace an object, whole or not at all."""
    if len(data) < 2 * PART_BYTES:
        await ask(s3, "put_object", size=len(data), Body=data, **place)
        return
    try:
        await _put_parts(s3, place, data)
    except FileNotFoundError as error:
        # the answer to its completion was lost, or it was aborted elsewhere: written again it is there for certain
        if code(error) != "NoSuchUpload":
            raise
        await _put_parts(s3, place, data)


async def put_if(s3: Any, place: Place, data: bytes, version: str, attempts: int = 0) -> None:
    """Replace the object of this ETag, or with an empty one make it where there is none, by one put.

    Raises OSError with status 412 or 404, or FileExistsError, where another is there; which of them depends on the
    server. One that does not know If-Match gets the put without it.
    """
    condition: dict[str, Any] = {"IfMatch": f'"{version}"'} if version else {"IfNoneMatch": "*"}
    try:
        await ask(s3, "put_object", size=len(data), attempts=attempts, Body=data, **place, **condition)
    except OSError as error:
        if not version or status(error) != 501:
            raise
        await ask(s3, "put_object", size=len(data), Body=data, **place)


async def _put_parts(s3: Any, place: Place, data: bytes) -> None:
    upload = {**place, "UploadId": (await ask(s3, "create_multipart_upload", **place))["UploadId"]}

    async def part(number: int) -> dict[str, Any]:
        body = data[number * PART_BYTES : (number + 1) * PART_BYTES]
        answer = await ask(s3, "upload_part", size=len(body), PartNumber=number + 1, Body=body, **upload)
        return {"PartNumber": number + 1, "ETag": answer["ETag"]}

    try:
        parts = await _concurrently(part, -(-len(data) // PART_BYTES))
        await ask(s3, "complete_multipart_upload", MultipartUpload={"Parts": parts}, **upload)
    except BaseException:
        # parts that nobody completes or aborts are paid for until a rule of the bucket removes them
        with suppress(Exception):
            await ask(s3, "abort_multipart_upload", attempts=ABORT_ATTEMPTS, **upload)
        raise


async def _concurrently(job: Callable[[int], Awaitable[T]], count: int) -> list[T]:
    """The results of job(0) to job(count - 1), a few at once; the first error ends the others."""
    limit = asyncio.Semaphore(PARTS_AT_ONCE)

    async def one(number: int) -> T:
        async with limit:
            return await job(number)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(number)) for number in range(count)]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors.exceptions[0].__cause__
    return [task.result() for task in tasks]


async def head(s3: Any, place: Place, attempts: int = 0) -> dict[str, Any] | None:
    """Size and ETag of an object; None where there is none, or no such bucket: the answer does not distinguish them."""
    try:
        return await ask(s3, "head_object", attempts=attempts, **place)
    except FileNotFoundError:
        return None


async def first_below(s3: Any, bucket: str, prefix: str, attempts: int = 0) -> str | None:
    """The first key that begins with the prefix. Raises FileNotFoundError, code NoSuchBucket, without the bucket."""
    page = await ask(s3, "list_objects_v2", attempts=attempts, Bucket=bucket, Prefix=prefix, MaxKeys=1)
    contents = page.get("Contents", [])
    return str(contents[0]["Key"]) if contents else None


async def list_below(s3: Any, bucket: str, prefix: str) -> list[dict[str, Any]]:
    """Key, Size and ETag of every object whose key begins with the prefix; one request for each thousand."""
    found: list[dict[str, Any]] = []
    more: dict[str, Any] = {}
    while True:
        page = await ask(s3, "list_objects_v2", Bucket=bucket, Prefix=prefix, **more)
        found += page.get("Contents", [])
        files_listed["objects"] += len(page.get("Contents", []))
        if not page.get("IsTruncated"):
            return found
        more = {"ContinuationToken": page["NextContinuationToken"]}
