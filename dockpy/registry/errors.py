"""What registries answer when they refuse: the specification's `errors[].code/message`, in docker's words.

`refusal` is the only way from a response to an error. `temporary` says whether asking again may help,
`retry_after` when the registry wants it.
"""

from __future__ import annotations

import email.utils
import json
import time
from collections.abc import Mapping

from dockpy.errors import DockpyError, Forbidden, NotFound, Unauthorized

BODY_LIMIT = 64 << 10
_MESSAGE_LIMIT = 600
_TEMPORARY = frozenset((408, 425, 429, 500, 502, 503, 504))

REASONS = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    413: "Request Entity Too Large",
    416: "Requested Range Not Satisfiable",
    429: "Too Many Requests",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


class RegistryError(DockpyError):
    """The registry does not do what was asked. `code` is the specification's, "" where it gave none."""

    def __init__(
        self, message: str, *, status: int = 0, code: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.retry_after = retry_after  # seconds

    @property
    def temporary(self) -> bool:
        return self.status in _TEMPORARY


class NotThere(RegistryError, NotFound):
    """It has no such repository, manifest or blob, or says so."""


class NeedsLogin(RegistryError, Unauthorized):
    """Credentials are missing or wrong."""


class Denied(RegistryError, Forbidden):
    """These credentials may not do that."""


class Untrue(RegistryError):
    """It sent something else than it had promised: a digest, a size or a media type that is not so."""


class Cut(RegistryError):
    """A blob's transfer ended early, or was never begun: it can be resumed."""

    @property
    def temporary(self) -> bool:
        return True


_KINDS: Mapping[str, type[RegistryError]] = {
    "MANIFEST_UNKNOWN": NotThere,
    "NAME_UNKNOWN": NotThere,
    "BLOB_UNKNOWN": NotThere,
    "UNAUTHORIZED": NeedsLogin,
    "DENIED": Denied,
}
_BY_STATUS: Mapping[int, type[RegistryError]] = {401: NeedsLogin, 403: Denied, 404: NotThere}


def refusal(status: int, headers: Mapping[str, str], body: bytes, where: str) -> RegistryError:
    """The error in a response. `where` names what was asked, for a registry that says nothing."""
    retry_after = _retry_after(headers.get("retry-after", ""))
    found = _first(body)
    if found is None:
        kind = _BY_STATUS.get(status, RegistryError)
        reason = REASONS.get(status, "")
        text = f"{where}: received unexpected HTTP status: {status} {reason}".rstrip()
        return kind(text, status=status, retry_after=retry_after)
    code, message = found
    kind = _KINDS.get(code) or _BY_STATUS.get(status, RegistryError)
    words = code.lower().replace("_", " ")
    return kind(
        f"{words}: {message}" if words else message,
        status=status,
        code=code,
        retry_after=retry_after,
    )


def _first(body: bytes) -> tuple[str, str] | None:
    """(code, message) of the first error in a body; of a token endpoint's too."""
    try:
        raw = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(raw, dict):
        return None
    errors = raw.get("errors")
    if isinstance(errors, list) and errors and isinstance(errors[0], dict):
        code, message = errors[0].get("code"), errors[0].get("message")
    else:
        code, message = raw.get("code", ""), raw.get("details") or raw.get("message")
        message = message or raw.get("error_description") or raw.get("error")
    code = code if isinstance(code, str) else ""
    if not isinstance(message, str) or not message:
        message = {"UNAUTHORIZED": "authentication required"}.get(code, code.lower())
    return (plain(code)[:60], plain(message)) if message else None


def plain(text: str) -> str:
    """A registry's words without what a terminal would obey, and not too many of them."""
    kept = "".join(character if character.isprintable() else " " for character in text)
    return kept if len(kept) <= _MESSAGE_LIMIT else kept[:_MESSAGE_LIMIT] + "…"


def _retry_after(text: str) -> float | None:
    if not text:
        return None
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return max(moment.timestamp() - time.time(), 0.0)
