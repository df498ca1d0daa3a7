"""Records that cannot be read: named in the daemon's log, moved to `damaged/` in the store, never deleted.

Everything else of a store must work beside one broken file. Whoever reads a record at the daemon's
start asks `load_object` for it, and has what that refuses set aside.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from dockpy import files
from dockpy.errors import InvalidParameter

log = logging.getLogger(__name__)


class Empty(InvalidParameter):
    """Nothing was ever written here, or nothing that was synced."""


STALE = 300.0  # seconds after which nobody still writes a temporary file

# Of this process or this moment, not of the file.
_PASSING = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.EAGAIN))


def load_bytes(path: str) -> bytes:
    """What stands in a record; FileNotFoundError, or InvalidParameter why it cannot be read."""
    try:
        return files.read_bytes(path)
    except FileNotFoundError:
        raise
    except ValueError as error:
        raise InvalidParameter(str(error)) from None
    except OSError as error:
        if error.errno in _PASSING:
            raise
        raise InvalidParameter(str(error.strerror)) from None


def load_object(path: str) -> dict[str, Any]:
    """The JSON object in a record; errors as those of `load_bytes`."""
    data = load_bytes(path)
    if not data.strip(b"\0"):
        raise Empty("it is empty")
    try:
        raw = json.loads(data, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:  # RecursionError: a row of brackets
        raise InvalidParameter(f"it is not JSON: {error}") from None
    if not isinstance(raw, dict):
        raise InvalidParameter("it holds no JSON object")
    return raw


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number")  # NaN and Infinity, which Python would take


@dataclass(frozen=True)
class Finding:
    """Something that `system check` has found. Without `repair` only a person can do what `remedy` says."""

    kind: str  # record, blob, image, layer, container, log or leftover
    subject: str
    problem: str
    remedy: str
    repair: Callable[[], object] | None = None


def is_left_over(path: str) -> bool:
    """Whether a temporary file's writer, whose pid is in its name, is gone, or has taken minutes.

    `….PID.RANDOM.tmp` (files.write_temporary), where the random part may be digits, too, or `PID.…`.
    """
    words = os.path.basename(path).split(".")
    pids = [word for word in (words[-3:-2] if words[-1] == "tmp" else words) if word.isdecimal()]
    try:
        old = time.time() - os.lstat(path).st_ctime > STALE
    except FileNotFoundError:
        old, pids = False, []
    return old or bool(pids and not os.path.exists(f"/proc/{pids[0]}"))


class Shelf:
    """The folder of what was set aside."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def set_aside(self, path: str, name: str, reason: str) -> str:
        """Moves `path` there, under `name` or with a number behind it; "" when it cannot be moved."""
        try:
            os.makedirs(self.folder, 0o700, exist_ok=True)
            target = self._free(name)
            shutil.move(path, target)  # the images may be on another disk
        except OSError as error:
            log.error("%s is damaged (%s) and cannot be set aside: %s", path, reason, error)
            return ""
        log.error("%s is damaged (%s): set aside as %s", path, reason, target)
        return target

    def holds(self, name: str) -> bool:
        """Whether something was set aside under this name."""
        return os.path.lexists(f"{self.folder}/{name}")

    def _free(self, name: str) -> str:
        target, number = f"{self.folder}/{name}", 0
        while os.path.lexists(target):
            number += 1
            target = f"{self.folder}/{name}.{number}"
        return target
