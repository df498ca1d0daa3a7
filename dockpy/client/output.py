"""Writing to the person: whole strings to descriptors 1 and 2, tables. sys.stdout stays unused (it
buffers).
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def write_all(fd: int, data: bytes) -> None:
    """All of `data`, also where somebody made the descriptor non-blocking."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            import select

            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            poll.poll()


def out(text: str) -> None:
    if text:
        write_all(1, text.encode("utf-8", "surrogateescape"))


def err(text: str) -> None:
    try:
        write_all(2, text.encode("utf-8", "surrogateescape"))
    except OSError:
        pass  # nobody is there to be told


def columns(rows: Sequence[Sequence[str]], gap: int = 3, least: int = 0) -> str:
    """Aligned columns as Go's tabwriter makes them: the last cell of a row is not padded."""
    if not rows:
        return ""
    widths = [0] * max(len(row) for row in rows)
    for row in rows:
        for at, cell in enumerate(row[:-1]):
            widths[at] = max(widths[at], len(cell) + gap, least)
    return "".join(
        "".join(f"{cell:<{widths[at]}}" for at, cell in enumerate(row[:-1])) + row[-1] + "\n"
        for row in rows
    )
