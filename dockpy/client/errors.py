"""How a command ends other than well, as docker says it. No imports but the project's own errors."""

from __future__ import annotations

from dockpy.errors import DockpyError


class ApiError(DockpyError):
    """The daemon refused; `message` is its own sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"Error response from daemon: {message}")
        self.status = status
        self.message = message


class NoName(ApiError):
    """An empty word where a container is named, which no request could carry."""

    def __init__(self) -> None:
        super().__init__(400, "value is empty")
        self.args = ("invalid container name or ID: value is empty",)


class NoDaemon(DockpyError):
    """Nothing answers at the socket."""


class Disconnected(DockpyError):
    """The daemon went away in the middle of an answer."""


class CommandError(DockpyError):
    """The command ends here with `code`, after its message (none when empty)."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code
