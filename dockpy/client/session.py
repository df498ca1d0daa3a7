"""One attached container or exec: streams, signals, window size and the answer, until its end. Used
by run, start, attach, exec.
"""

from __future__ import annotations

from dockpy.client import terminal
from dockpy.client.connection import Connection, quote, target
from dockpy.client.errors import CommandError
from dockpy.client.hijack import Attachment, Waiter
from dockpy.client.signals import ENDING, SIGINT, SIGTERM, SIGWINCH, Signals, proxied
from dockpy.errors import DockpyError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

RESIZE_TRIES = 10
RESIZE_PAUSE = 0.01
MOST_FAREWELLS = 3  # docker goes then, whatever its container makes of the signals


class Session:
    """Attach first, then say that the answer is awaited, then start: so no byte and no exit is
    lost.
    """

    def __init__(
        self,
        connection: Connection,
        attachment: Attachment,
        waiter: Waiter | None,
        *,
        resize_path: str,
        kill_path: str = "",
        raw: bool = False,
        follow_size: bool = False,
    ) -> None:
        self._connection = connection
        self._waiter = waiter
        self._resize_path = resize_path
        self._kill_path = kill_path
        self._raw = raw
        self._follow_size = follow_size
        self._size: tuple[int, int] | None = None
        self._farewells = 0
        try:
            self._streams = attachment.finish()
            if waiter is not None:
                waiter.begun()
        finally:
            attachment.release()

    @property
    def detached(self) -> bool:
        return self._streams.detached

    @property
    def lost_output(self) -> bool:
        return self._streams.lost

    @property
    def exit_code(self) -> int | None:
        """Where the stream itself has told it."""
        return self._streams.exit_code

    def run(self, start: Callable[[], None], known_size: tuple[int, int] | None = None) -> None:
        """`start` is called once signals are caught; returns when all is delivered, or at the
        detach keys.
        """
        numbers = proxied() if self._kill_path else list(ENDING) if self._raw else []
        if self._follow_size:
            numbers.append(SIGWINCH)
        signals = Signals(numbers) if numbers else None
        try:
            self._size = known_size
            start()
            if self._follow_size and known_size != terminal.size(1):
                self._resize(RESIZE_TRIES)
            if self._raw:
                with terminal.Raw(0):
                    self._streams.run(self._waiter, signals, self._on_signal)
            else:
                self._streams.run(self._waiter, signals, self._on_signal)
        finally:
            if signals is not None:
                signals.close()

    def _on_signal(self, number: int) -> None:
        if number == SIGWINCH:
            self._resize(1)
            return
        if not self._kill_path:
            # Ours alone: but the terminal is to be as it was, first.
            raise CommandError("", 128 + number)
        if number in (SIGINT, SIGTERM):
            self._farewells += 1
            if self._farewells == MOST_FAREWELLS:
                raise CommandError("\ngot 3 SIGTERM/SIGINTs, forcefully exiting")
        try:
            self._connection.request("POST", self._kill_path, {"signal": number})
        except (DockpyError, OSError):
            pass  # the container has ended: its exit code is on the way

    def _resize(self, tries: int) -> None:
        size = terminal.size(1)
        if size is None or size == self._size:
            return
        for attempt in range(tries):
            try:
                self._connection.request("POST", self._resize_path, {"h": size[0], "w": size[1]})
                self._size = size
                return
            except (DockpyError, OSError):
                if attempt + 1 < tries:
                    import time

                    time.sleep(RESIZE_PAUSE)


def attach(
    connection: Connection,
    container: str,
    *,
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
    keys: str,
    detach: bytes,
) -> Attachment:
    query: dict[str, object] = {"stream": 1, "stdin": stdin, "stdout": stdout, "stderr": stderr}
    if connection.endpoint.own or keys != terminal.DEFAULT_DETACH_KEYS:
        query["detachKeys"] = keys
    return Attachment(
        connection,
        f"/containers/{quote(container)}/attach",
        query,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        tty=tty,
        keys=detach,
    )


def of_container(
    connection: Connection,
    container: str,
    attachment: Attachment,
    waiter: Waiter | None,
    *,
    tty: bool,
    stdin: bool,
    sig_proxy: bool,
) -> Session:
    path = f"/containers/{quote(container)}"
    return Session(
        connection,
        attachment,
        waiter,
        resize_path=f"{path}/resize",
        kill_path=f"{path}/kill" if sig_proxy else "",
        raw=tty and stdin and terminal.is_terminal(0),
        follow_size=tty and terminal.is_terminal(1),
    )


def start(connection: Connection, container: str, keys: str = "") -> None:
    connection.request(
        "POST", target(f"/containers/{quote(container)}/start", {"detachKeys": keys})
    )
