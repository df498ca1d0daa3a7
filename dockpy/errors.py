"""What can go wrong, by the name a user would give it. The HTTP status of each is the daemon's business.

Every message is one sentence that a user can act on; rooms raise, the edge (client or daemon) tells.
"""

from __future__ import annotations


class DockpyError(Exception):
    """Something that can be told to the user in one sentence."""


class InvalidParameter(DockpyError):
    """The request cannot be meant as it was said."""


class Unauthorized(DockpyError):
    """Credentials are missing or wrong."""


class Forbidden(DockpyError):
    """Understood, and not allowed."""


class NotFound(DockpyError):
    """The thing that was named does not exist."""


class Conflict(DockpyError):
    """The present state of the thing forbids what was asked."""


class NotModified(DockpyError):
    """What was asked is already so."""


class NotServed(DockpyError):
    """A docker feature that this build does not serve; the message says what to do instead."""


class Unavailable(DockpyError):
    """Right in itself, and impossible on this host or at this moment; the message says why."""


def sentence(error: DockpyError | OSError) -> str:
    """As docker says it; of the kernel's, the path and what it thinks of it."""
    if not isinstance(error, OSError):
        return str(error)
    reason = (error.strerror or str(error)).lower()
    return f"{error.filename}: {reason}" if error.filename else reason
