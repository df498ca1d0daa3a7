"""What the results of health checks mean, and when the next one is due: docker's rules, as values.

Pure, but for `save` and `load`: what is known of a container's health is in `health.json`, unsynced, as
after a power cut nothing runs. Who probes is supervisor.monitor.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace

from dockpy import files
from dockpy.api.container import Healthcheck
from dockpy.damaged import Empty, load_object
from dockpy.errors import InvalidParameter

log = logging.getLogger(__name__)

NANO = 1_000_000_000
INTERVAL = TIMEOUT = 30.0  # seconds
START_INTERVAL = 5.0
RETRIES = 3
KEPT = 5  # results
LONGEST = 4096  # bytes of output
LEAST = 1_000_000  # ns that any of the times may be

STARTING, HEALTHY, UNHEALTHY = "starting", "healthy", "unhealthy"


@dataclass(frozen=True)
class Result:
    start: str
    end: str
    code: int
    output: str

    def to_json(self) -> dict[str, object]:
        return {
            "Start": self.start,
            "End": self.end,
            "ExitCode": self.code,
            "Output": self.output,
        }


@dataclass(frozen=True)
class Health:
    status: str = STARTING
    streak: int = 0
    log: tuple[Result, ...] = ()
    due: float = 0.0  # of the next probe: seconds on the monotonic clock of `boot`
    boot: str = ""
    probing: str = ""  # the exec that is under way

    def to_json(self) -> dict[str, object]:
        """As inspect shows it."""
        return {
            "Status": self.status,
            "FailingStreak": self.streak,
            "Log": [result.to_json() for result in self.log],
        }


def check(config: Healthcheck | None) -> None:
    """InvalidParameter with docker's sentence."""
    if config is None:
        return
    for name, value in (
        ("Interval", config.interval),
        ("Timeout", config.timeout),
        ("StartPeriod", config.start_period),
        ("StartInterval", config.start_interval),
    ):
        if value and value < LEAST:
            raise InvalidParameter(f"{name} in Healthcheck cannot be less than 1ms")
    if config.retries < 0:
        raise InvalidParameter("Retries in Healthcheck cannot be negative")


def command(config: Healthcheck | None, shell: tuple[str, ...]) -> tuple[str, ...] | None:
    """What a probe runs; None when there is no check."""
    test = (config.test if config is not None else None) or ()
    if test[:1] == ("CMD",) and len(test) > 1:
        return test[1:]
    if test[:1] == ("CMD-SHELL",) and len(test) > 1:
        return (*(shell or ("/bin/sh", "-c")), *test[1:])
    return None


def interval(config: Healthcheck, status: str, ran: float) -> float:
    """Seconds until the next probe of a container that has run for `ran`."""
    if status == STARTING and ran < config.start_period / NANO:
        return config.start_interval / NANO or START_INTERVAL
    return config.interval / NANO or INTERVAL


def after(health: Health, config: Healthcheck, result: Result, ran: float) -> Health:
    """What is known after a probe that began when the container had run for `ran` seconds."""
    health = replace(health, log=(*health.log, result)[-KEPT:])
    if result.code == 0:
        return replace(health, status=HEALTHY, streak=0)
    if health.status == STARTING and ran < config.start_period / NANO:
        return health
    streak = health.streak + 1
    if streak >= (config.retries or RETRIES):
        return replace(health, status=UNHEALTHY, streak=streak)
    return replace(health, streak=streak)


def _path(bundle: str) -> str:
    return f"{bundle}/health.json"


def save(bundle: str, health: Health) -> None:
    raw = {**health.__dict__, "log": [result.__dict__ for result in health.log]}
    try:
        files.write_atomic(_path(bundle), json.dumps(raw).encode(), durable=False)
    except FileNotFoundError:
        pass  # the container has been removed
    except OSError as error:
        log.error("%s could not be written: %s", _path(bundle), error)


def load(bundle: str) -> Health | None:
    """InvalidParameter when the file is damaged."""
    try:
        raw = load_object(_path(bundle))
    except (FileNotFoundError, Empty):  # it is not synced
        return None
    try:
        return Health(
            str(raw["status"]),
            int(raw["streak"]),
            tuple(
                Result(str(one["start"]), str(one["end"]), int(one["code"]), str(one["output"]))
                for one in raw["log"]
            ),
            float(raw["due"]),
            str(raw["boot"]),
            str(raw["probing"]),
        )
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise InvalidParameter(f"a field lacks or is of another type: {error}") from None
