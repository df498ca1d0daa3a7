"""Who may use a registry server: a file of `user:bcrypt` lines, and Basic credentials against it.

A wrong name costs what a wrong password does (a hash of nobody's is verified), so times tell no names.
docker sends its credentials with every request: what was right once is remembered as a keyed digest, for
as long as the file says so. The file is read again when it has changed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import logging
import os
import re
from collections.abc import Mapping

import trio

from dockpy.errors import InvalidParameter, Unavailable
from dockpy.files import read_bytes
from dockpy.registry.crypt import Bcrypt
from dockpy.registry.refusals import Refusal

log = logging.getLogger(__name__)

_BCRYPT = re.compile(r"\$2[aby]\$(0[4-9]|1[0-9]|2[0-9]|3[01])\$[./A-Za-z0-9]{53}")
_REMEMBERED = 256
_WORKERS = 2  # who tries passwords must not take all of the machine
_LONGEST = 1024  # characters of name and password together


def parse_htpasswd(text: str, path: str) -> dict[str, str]:
    """Hashes by user; InvalidParameter with the line that is not one."""
    users: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        user, _, hashed = line.partition(":")
        if not user or not _BCRYPT.fullmatch(hashed):
            raise InvalidParameter(
                f"{path}, line {number}: not USER:BCRYPT; only bcrypt is taken (htpasswd -B)"
            )
        users[user] = hashed
    if not users:
        raise InvalidParameter(f"{path} names no user")
    return users


def basic_credentials(header: str) -> tuple[str, str] | None:
    """(user, password) of an Authorization header; None when it holds none."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic" or len(encoded) > 2 * _LONGEST:
        return None
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode("utf-8", "surrogateescape")
    except (binascii.Error, ValueError):
        return None
    user, colon, password = text.partition(":")
    return (user, password) if colon else None


class Accounts:
    """Reads `path` at once: Unavailable or InvalidParameter where it cannot serve."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._bcrypt = Bcrypt()
        self._workers = trio.CapacityLimiter(_WORKERS)
        self._key = os.urandom(32)
        self._right: dict[bytes, str] = {}  # digest of credentials → the hash they fitted
        self._stamp = self._status()
        self._users: Mapping[str, str] = self._read()

    def _status(self) -> tuple[int, int, int]:
        try:
            status = os.stat(self._path)
        except OSError as error:
            reason = (error.strerror or "").lower()
            raise Unavailable(f"--htpasswd {self._path}: {reason}") from None
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _read(self) -> dict[str, str]:
        try:
            data = read_bytes(self._path, 1 << 20)
        except ValueError as error:
            raise Unavailable(str(error)) from None
        except IsADirectoryError:
            raise Unavailable(
                f"--htpasswd {self._path} is a folder: give the file that 'htpasswd -B' has written"
            ) from None
        except OSError as error:
            reason = (error.strerror or "").lower()
            raise Unavailable(f"--htpasswd {self._path} cannot be read: {reason}") from None
        users = parse_htpasswd(data.decode("utf-8", "surrogateescape"), self._path)
        self._nobodies = [self._bcrypt.nobodys(hashed) for hashed in users.values()]
        return users

    def _refresh(self) -> None:
        """A file that has become unreadable or wrong is told once; the accounts stay as they were."""
        try:
            stamp = self._status()
            if stamp == self._stamp:
                return
            self._stamp = stamp
            self._users = self._read()
        except (Unavailable, InvalidParameter) as error:
            log.error("%s", error)

    def _nobody(self, user: str) -> str:
        """A hash for a name that is not in the file: always the same, and as costly as one that is."""
        mark = hmac.new(self._key, user.encode("utf-8", "surrogateescape"), hashlib.sha256)
        return self._nobodies[int.from_bytes(mark.digest()[:8], "big") % len(self._nobodies)]

    async def check(self, authorization: str) -> None:
        """Refusal UNAUTHORIZED unless the header names a user with the right password."""
        self._refresh()
        credentials = basic_credentials(authorization)
        if credentials is None:
            raise _unauthorized("authentication required")
        user, password = credentials
        text = f"{user}\0{password}".encode("utf-8", "surrogateescape")
        mark = hmac.new(self._key, text, hashlib.sha256).digest()
        hashed = self._users.get(user) or self._nobody(user)
        if hmac.compare_digest(self._right.get(mark, "").encode(), hashed.encode()):
            return
        right = await trio.to_thread.run_sync(
            self._bcrypt.verify, password, hashed, limiter=self._workers
        )
        if not right or user not in self._users:
            raise _unauthorized("wrong user or password")
        while len(self._right) >= _REMEMBERED:
            del self._right[next(iter(self._right))]
        self._right[mark] = hashed


def _unauthorized(message: str) -> Refusal:
    challenge = ("WWW-Authenticate", 'Basic realm="dockpy registry", charset="UTF-8"')
    return Refusal("UNAUTHORIZED", message, headers=[challenge])
