"""What a caught exception leaves in the records: one line, and a traceback that is the same in every run.

Both depend on the error and the program alone: no object addresses, no folders of a machine, no credentials.
"""

import re
import sysconfig
import traceback
from pathlib import PurePath

from pipeline.delivery import redact

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
        said = f"{type(one).__name__}: {message(one)}".rstrip(": ")
        parts.append("\n".join([*frames[-MOST_FRAMES:], said]))
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
