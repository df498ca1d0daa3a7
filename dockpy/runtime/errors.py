"""A container or exec that did not start: docker's and runc's sentence, and the exit code docker
gives.

127: the command was not found; 126: it cannot be invoked; 128: everything else.
"""

from __future__ import annotations

import json
import os

from dockpy.errors import DockpyError

CREATE = "failed to create shim task: OCI runtime create failed: unable to start container process"
EXEC = "OCI runtime exec failed: exec failed: unable to start container process"

# As docker's daemon: it reads the code from the runtime's sentence, so ours must say what it
# looks for.
_NOT_FOUND = ("executable file not found", "no such file or directory")
_NOT_INVOKED = ("permission denied", "is a directory", "exec format error", "not a directory")


# What docker's daemon finds out itself, before its runtime is asked: said without the runtime's prefix.
BEFORE_RUNC = ("unable to find ", "Unable to find ", "uids and gids must be in range ")


class StartFailed(DockpyError):
    """`message` is for the user, `code` is the container's (or exec's) exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class SetupError(Exception):
    """Inside the child: a sentence for the user in place of the bare errno."""


def strerror(error: OSError) -> str:
    """Go's spelling of an errno, which is what docker's users and its daemon look for."""
    return os.strerror(error.errno or 0).lower()


def sentence(stage: str, error: BaseException) -> str:
    if isinstance(error, SetupError):
        return str(error)
    if isinstance(error, OSError):
        name = f" {error.filename}" if isinstance(error.filename, str) else ""
        return f"{stage}{name}: {strerror(error)}"
    return f"{stage}: {type(error).__name__}: {error}"


def describe(stage: str, error: BaseException) -> bytes:
    """What a child sends when it fails: `{"stage","errno","message"}`."""
    number = (error.errno or 0) if isinstance(error, OSError) else 0
    message = sentence(stage, error)[:4096]
    return json.dumps({"stage": stage, "errno": number, "message": message}).encode()


def start_failed(prefix: str, detail: str) -> StartFailed:
    if detail.startswith(BEFORE_RUNC):
        return StartFailed(detail, code_of(detail))
    return StartFailed(f"{prefix}: {detail}: unknown", code_of(detail))


def code_of(detail: str) -> int:
    lowered = detail.lower()
    if any(words in lowered for words in _NOT_FOUND):
        return 127
    if any(words in lowered for words in _NOT_INVOKED):
        return 126
    return 128
