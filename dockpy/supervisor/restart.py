"""Restart policies: docker's rules and its back-off, for a daemon that may die at any moment.

A container that waits for its next start has the state `restarting`, and in it the moment, on the
kernel's monotonic clock, so the next daemon goes on waiting where this one stopped. Of the policy's own
memory a power cut must not take two facts, whether the container was ever started and whether a user
has stopped it: they are in `restart.json` (Folders.write_wish).

  exit or failed start -- policy says so? --> restarting -- back-off --> start
                       \\-- no, or stopped by a user --> exited
  a daemon's start (not its revival, see `is_start`) --> what `at_start` says
"""

from __future__ import annotations

import errno
import logging
import os
import time

import trio

from dockpy import files
from dockpy.api.container import RestartPolicy
from dockpy.errors import DockpyError, InvalidParameter
from dockpy.supervisor.records import Record, State, changed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dockpy.supervisor.container import Container
    from dockpy.supervisor.containers import Containers

log = logging.getLogger(__name__)

FIRST = 0.1  # seconds of back-off
LONGEST = 60.0
RESET_AFTER = 10.0  # seconds of running


def check(policy: RestartPolicy) -> None:
    """InvalidParameter with docker's sentence."""
    if policy.name not in ("", "no", "always", "on-failure", "unless-stopped"):
        raise InvalidParameter(
            f"invalid restart policy: unknown policy '{policy.name}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )
    if policy.maximum_retry_count and policy.name != "on-failure":
        text = "invalid restart policy: maximum retry count can only be used with 'on-failure'"
        raise InvalidParameter(
            text + (" and cannot be negative" if policy.maximum_retry_count < 0 else "")
        )
    if policy.maximum_retry_count < 0:
        raise InvalidParameter("invalid restart policy: maximum retry count cannot be negative")


def none(record: Record) -> bool:
    return record.host_config.restart_policy.name in ("", "no")


def again(policy: RestartPolicy, state: State, code: int) -> bool:
    """Whether it is started again after an end with `code`."""
    if state.stopped or policy.name in ("", "no"):
        return False
    if policy.name == "on-failure":
        most = policy.maximum_retry_count
        return code != 0 and (most == 0 or state.restarts < most)
    return True


def back_off(last: float, ran: float) -> float:
    """Seconds until the next start, after a back-off of `last` (0: none yet) and a run of `ran`."""
    if ran >= RESET_AFTER or last == 0:
        return FIRST
    return min(last * 2, LONGEST)


def waiting(state: State, ran: float, boot: str) -> State:
    delay = back_off(state.delay, ran)
    return changed(
        state,
        status="restarting",
        restarts=state.restarts + 1,
        delay=delay,
        restart_at=time.monotonic() + delay,
        boot=boot,
    )


def ran_for(state: State, boot: str) -> float:
    """Seconds, on the clock that nobody sets."""
    if state.boot != boot or not state.pid_start:
        return RESET_AFTER
    return time.clock_gettime(time.CLOCK_BOOTTIME) - state.pid_start / os.sysconf("SC_CLK_TCK")


def schedule(containers: Containers, container: Container) -> None:
    """Waits and starts, in the background; `cancel` ends the waiting."""
    cancel(container)
    container.back_off = trio.CancelScope()
    containers.aside(_wait, containers, container, container.back_off)


def cancel(container: Container) -> None:
    scope, container.back_off = container.back_off, None
    if scope is not None:
        scope.cancel()


async def _wait(containers: Containers, container: Container, scope: trio.CancelScope) -> None:
    with scope:
        await trio.sleep(max(container.state.restart_at - time.monotonic(), 0))
    if container.back_off is not scope:
        return  # a user has decided otherwise
    container.back_off = None
    try:
        await containers.then.start(containers, container)
    except (DockpyError, OSError) as error:
        log.warning("container %s could not be started again: %s", container.id[:12], error)


def give_up(containers: Containers, container: Container) -> None:
    """A user ends the waiting: with the code of the last run, as docker."""
    cancel(container)
    if not container.state.restarting:
        return
    container.state = changed(container.state, status="exited", stopped=True)
    containers.save_state(container)
    containers.release(container)


# ------------------------------------------------------------------------------ a daemon's start


def is_start(session: str, boot: str) -> bool:
    """Whether this daemon is the first since the machine's start or since somebody stopped the one
    before; false for one that follows a killed or an idle one. `session` is the path of the note. False as
    well where there is none and none can be written: what a user has stopped then stays so.
    """
    try:
        fresh = files.read_bytes(session, 100).decode("ascii", "replace") != boot
    except (OSError, ValueError):
        fresh = True
    if fresh:
        try:
            _note(session, boot.encode())
        except OSError as error:
            log.error("the note of this session could not be written: %s", error)
            fresh = False  # each daemon of this session would be the first
    return fresh


def end_session(session: str) -> None:
    """A user stops the daemon. The note stays, so that there is room for the next on a disk that is full by then."""
    try:
        files.write_over(session, b"stopped")
    except OSError:
        files.unlink_if_exists(session)


def _note(session: str, text: bytes) -> None:
    try:
        files.write_atomic(session, text, durable=False)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        files.write_over(session, text)


def at_start(record: Record, state: State) -> bool:
    """Whether the start of a daemon is that of a container that does not run."""
    policy = record.host_config.restart_policy
    if not state.begun or policy.name in ("", "no"):
        return False
    if policy.name == "always":
        return True
    if state.stopped:
        return False
    return policy.name == "unless-stopped" or again(policy, state, state.exit_code)


def resume(containers: Containers, container: Container, *, start: bool) -> None:
    """Once for each container that a new daemon has found. `start`: see `is_start`."""
    state = container.state
    if state.running:
        return
    if state.restarting:
        if state.boot != containers.host.boot:
            container.state = changed(state, restart_at=0.0, restarts=0, delay=0.0)
        if container.back_off is None:
            schedule(containers, container)
    elif start and at_start(container.record, state):
        container.state = changed(
            state,
            status="restarting",
            restart_at=0.0,
            restarts=0,
            delay=0.0,
            stopped=False,
            boot=containers.host.boot,
        )
        schedule(containers, container)
