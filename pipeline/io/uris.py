"""URIs: a local path, `file://` with one, or `protocol://host/path`. Nothing is opened here."""

import posixpath
import re
from pathlib import Path

# of a URI; a name may hold the same signs further on
_PROTOCOL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def is_remote(uri: str) -> bool:
    """Whether the URI names something that is not a local file."""
    found = _PROTOCOL.match(uri)
    return found is not None and found[1] != "file"


def is_s3(uri: str) -> bool:
    """Whether the URI names an object of an S3 bucket, or a prefix of it."""
    return uri.startswith(("s3://", "s3a://"))


def local_path(uri: str) -> Path:
    """The path of a local URI."""
    return Path(uri.removeprefix("file://"))


def split(uri: str) -> tuple[str, str, str]:
    """Protocol, host or bucket, and path of a remote URI without the slash between; the path is taken as it is."""
    protocol, _, rest = uri.partition("://")
    host, _, path = rest.partition("/")
    return protocol, host, path


def join(uri: str, *parts: str) -> str:
    """The URI of what lies at `parts` below `uri`, whatever the parts look like: nothing in them is a root."""
    for part in parts:
        uri = f"{uri}{part}" if not uri or uri.endswith("/") else f"{uri}/{part}"
    return uri


def absolute(uri: str) -> str:
    """A local path made absolute, for processes in other folders; other URIs as they are."""
    return uri if is_remote(uri) else str(local_path(uri).expanduser().absolute())


def name_of(uri: str) -> str:
    """The last part of the URI."""
    return posixpath.basename(uri.rstrip("/"))
