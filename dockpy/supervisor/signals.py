"""Signals by docker's spellings: 15, TERM, SIGTERM, rtmin+3; and how a container is stopped."""

from __future__ import annotations

import re
import signal

from dockpy.api.container import Config
from dockpy.errors import InvalidParameter

STOP_TIMEOUT = 10  # seconds

SIGNALS = {
    name[3:]: int(value)
    for name, value in vars(signal).items()
    if name.startswith("SIG") and name[3] != "_"
}
SIGNALS.update(STKFLT=16, CLD=17, POLL=29, UNUSED=31)


def signal_number(text: str) -> int:
    if re.fullmatch("[0-9]{1,3}", text):
        number = int(text)
        if 1 <= number <= 64:
            return number
        raise InvalidParameter(f"Invalid signal: {text}")
    name = text.upper()
    name = name[3:] if name.startswith("SIG") else name
    match = re.fullmatch(r"(RTMIN\+|RTMAX-)([0-9]{1,2})", name)
    if match is not None:
        number = 34 + int(match[2]) if match[1] == "RTMIN+" else 64 - int(match[2])
        if 34 <= number <= 64:
            return number
    if name in SIGNALS:
        return SIGNALS[name]
    raise InvalidParameter(f"Invalid signal: {text}")


def stop_signal(config: Config) -> int:
    return signal_number(config.stop_signal or "SIGTERM")


def stop_timeout(config: Config) -> int:
    """Seconds until SIGKILL; negative: never."""
    return STOP_TIMEOUT if config.stop_timeout is None else config.stop_timeout
