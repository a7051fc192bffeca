"""What a caught exception leaves in the records: one line, and a traceback that is the same in every run.

Both depend on the error and the program alone: no object addresses, no folders of a machine, no credentials.
"""

import re
import sysconfig
import traceback
from pathlib import PurePath

# Innermost frames of each exception that are kept, exceptions of a chain, characters of a message.
MOST_FRAMES, MOST_CHAINED, MOST_CHARACTERS = 12, 4, 2000

_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{4,}")
_OURS = PurePath(__file__).parents[2]
_STANDARD = PurePath(sysconfig.get_path("stdlib"))
_INSTALLED = {"site-packages", "dist-packages"}


def message(error: BaseException) -> str:
    """What the error says, in one line."""
    line = " ".join(str(error).splitlines())
    return redact(_ADDRESS.sub("0x…", line))[:MOST_CHARACTERS]


def outline(error: BaseException) -> str:
    """Where the error came from: a line `file:line in function` per frame, then its type and message.

    The errors behind it follow, each after "caused by".
    """
    parts: list[str] = []
    one: BaseException | None = error
    while one is not None and len(parts) < MOST_CHAINED:
        frames = [
            f"{_below_package(frame.f_code.co_filename)}:{line} in {frame.f_code.co_qualname}"
            for frame, line in traceback.walk_tb(one.__traceback__)
        ]
        last = f"{type(one).__name__}: {message(one)}".rstrip(": ")
        parts.append("\n".join([*frames[-MOST_FRAMES:], last]))
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    return "\ncaused by\n".join(parts)


def _below_package(file: str) -> str:
    """The file as seen from the folder that its package lies in."""
    path = PurePath(file)
    for folder in (_OURS, _STANDARD):
        if path.is_relative_to(folder) and not _INSTALLED & set(path.relative_to(folder).parts):
            return path.relative_to(folder).as_posix()
    places = [i for i, part in enumerate(path.parts) if part in _INSTALLED]
    if places:
        return PurePath(*path.parts[places[-1] + 1 :]).as_posix()
    return path.name if path.is_absolute() else file


_USER_INFO = re.compile(r"(://)(?:[^/\s@:]*:(?!\d+(?:/|$))\S*@|[^/\s]*@)")


_SECRET_NAMES = "token|passw|secret|signature|credential|key|sig"


_SECRET_QUERY = re.compile(rf"([?&;][^=&;\s]*(?:{_SECRET_NAMES})[^=&;\s]*=)[^&;\s]+", re.IGNORECASE)


# Part of an error's message → the reason shown
REASONS = (
    ("Connection refused", "connection refused"),
    ("timed out", "no answer in time"),
    ("Name or service not known", "unknown host name"),
    ("Failed to resolve", "unknown host name"),
    ("error code 401", "it refuses the credentials"),
    ("error code 403", "it refuses the credentials"),
)


def redact(text: str) -> str:
    """The text with the credentials of its URIs (user:password@, tokens in the query) replaced by ***."""
    return _SECRET_QUERY.sub(r"\1***", _USER_INFO.sub(r"\1***@", text))


def reason_of(error: Exception) -> str:
    """The reason in an error's message, without credentials."""
    text = str(error).strip() or type(error).__name__
    known = next((reason for sign, reason in REASONS if sign in text), None)
    return known or redact(text.splitlines()[0])[:200].rstrip(".")
