"""A long operation's lines on a terminal: one for each layer, rewritten in place, as docker's client draws them."""

from __future__ import annotations

import time

from dockpy.client.output import write_all
from dockpy.client.units import size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_BAR = 50
_WIDE = 110  # columns from which on there is room for the bar


class LiveLines:
    """`columns` is the terminal's width."""

    def __init__(self, fd: int, columns: int) -> None:
        self._fd = fd
        self._columns = columns
        self._rows: dict[str, int] = {}
        self._began: dict[str, float] = {}

    def show(self, line: Mapping[str, object]) -> None:
        status, identity = str(line.get("status") or ""), str(line.get("id") or "")
        detail = line.get("progressDetail")
        if not identity or not isinstance(detail, dict):
            self._rows.clear()  # what comes now stands below all that was
            prefix = f"{identity}: " if identity else ""
            self._write(f"{prefix}{status}\n")
            return
        text = ""
        if identity not in self._rows:
            self._rows[identity] = len(self._rows)
            text = "\n"
        up = len(self._rows) - self._rows[identity]
        tail = self._progress(identity, status, detail)
        self._write(f"{text}\x1b[{up}A\x1b[2K\r{identity}: {status} {tail}\r\x1b[{up}B")

    def _progress(self, identity: str, status: str, detail: Mapping[str, object]) -> str:
        current, total = _number(detail.get("current")), _number(detail.get("total"))
        if current <= 0 and total <= 0:
            return ""
        if total <= 0:
            return f"{size(current):>8}"
        half = min(current * _BAR // total, _BAR)
        text = f"[{'=' * half}>{' ' * (_BAR - half)}] " if self._columns > _WIDE else ""
        text += f"{size(current):>8}/{size(total)}" if current <= total else f"{size(current):>8}"
        key = f"{identity} {status}"
        began = self._began.setdefault(key, time.monotonic())
        passed = time.monotonic() - began
        if half < _BAR and current > 0 and passed >= 1:
            left = int(passed / current * (total - current))
            if left:
                text += f" {duration(left)}"
        return text

    def _write(self, text: str) -> None:
        write_all(self._fd, text.encode("utf-8", "replace"))


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def duration(seconds: int) -> str:
    """As Go says it: 1h2m3s."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
