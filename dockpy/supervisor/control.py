"""Verbs on a container that runs or has run: kill, stop, restart, resize, rename."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import trio

from dockpy.errors import Conflict, DockpyError, InvalidParameter, NotModified
from dockpy.supervisor import pause, served
from dockpy.supervisor import restart as restart_policy
from dockpy.supervisor.container import Container
from dockpy.supervisor.containers import Containers
from dockpy.supervisor.records import changed
from dockpy.supervisor.shims import Lost, Shim
from dockpy.supervisor.signals import STOP_TIMEOUT, signal_number, stop_signal, stop_timeout
from dockpy.supervisor.start import start

SIGKILL = 9


def running_shim(container: Container) -> Shim:
    if container.state.restarting:
        raise Conflict(
            f"Container {container.id} is restarting, wait until the container is running"
        )
    if not container.state.running or container.shim is None:
        raise Conflict(f"container {container.id} is not running")
    return container.shim


async def kill(containers: Containers, container: Container, signal: str) -> None:
    number = signal_number(signal) if signal else SIGKILL
    if container.state.restarting and await _end_waiting(containers, container):
        return
    if not container.state.running or container.shim is None:
        raise Conflict(f"container {container.id} is not running")
    own = container.record.config.stop_signal
    # docker: whoever sends that does not want it back
    final = number == SIGKILL or not own or number == signal_number(own)
    if final:
        _stopped(containers, container)
    await _signal(container, number)
    containers.publish(container, "kill", signal=str(number))
    if final and container.state.paused:
        await pause.wake(containers, container)  # only then it meets the signal


async def _end_waiting(containers: Containers, container: Container) -> bool:
    """Whether a restarting container was still that; a start that is under way is awaited first."""
    async with container.lock:
        if not container.state.restarting:
            return False
        restart_policy.give_up(containers, container)
        return True


def _stopped(containers: Containers, container: Container) -> None:
    """On disk before the signal is sent: a daemon that dies now must not start it again."""
    container.state = changed(container.state, stopped=True)
    if not restart_policy.none(container.record):
        containers.save_state(container)


async def _signal(container: Container, number: int) -> None:
    shim = running_shim(container)
    everyone = number == SIGKILL and container.record.host_config.pid_mode == "host"
    try:
        await shim.ask(lambda link: link.kill(number, everyone=everyone))
    except Lost:
        # It ended in this very moment; the exit path has the rest, in a moment.
        gone = container.exits.add()
        with trio.move_on_after(STOP_TIMEOUT if container.state.running else 0):
            await gone.wait()
        if container.state.running:
            raise


async def stop(
    containers: Containers, container: Container, timeout: int | None, signal: str
) -> None:
    """The stop signal, then SIGKILL after `timeout` seconds (negative: never)."""
    if container.state.restarting and await _end_waiting(containers, container):
        containers.publish(container, "stop")
        return
    if not container.state.running:
        raise NotModified(f"container {container.name} is not running")
    config = container.record.config
    number = signal_number(signal) if signal else stop_signal(config)
    if timeout is None:
        timeout = stop_timeout(config)
    gone = container.exits.add()
    _stopped(containers, container)
    try:
        await _signal(container, number)
    except Conflict:
        pass  # over by itself
    containers.publish(container, "kill", signal=str(number))
    if container.state.paused:
        await pause.wake(containers, container)  # only then it meets the signal
    with trio.move_on_after(timeout if timeout >= 0 else float("inf")):
        await gone.wait()
    if container.state.running and not gone.ready.is_set():
        gone = container.exits.add()
        await _signal(container, SIGKILL)
        containers.publish(container, "kill", signal=str(SIGKILL))
        if not await pause.killed(containers, container, gone, STOP_TIMEOUT):
            raise DockpyError(
                f"cannot stop container: {container.name}: it is still there after SIGKILL"
            )
    containers.publish(container, "stop")


async def restart(
    containers: Containers, container: Container, timeout: int | None, signal: str
) -> None:
    served.check_lease(container.id, container.record.host_config, attached=False)
    container.being_restarted = True
    try:
        # Somebody else may do either meanwhile: what counts is that it was stopped and runs.
        with suppress(NotModified):
            if container.state.live:
                await stop(containers, container, timeout, signal)
        with suppress(NotModified):
            await start(containers, container)
    finally:
        container.being_restarted = False
    containers.publish(container, "restart")


async def resize(containers: Containers, container: Container, height: int, width: int) -> None:
    shim = running_shim(container)
    await shim.ask(lambda link: link.resize(height, width))
    containers.publish(container, "resize", height=str(height), width=str(width))


async def rename(containers: Containers, container: Container, name: str) -> None:
    name = name[1:] if name.startswith("/") else name
    if not name:
        raise InvalidParameter("Neither old nor new names may be empty")
    old = container.name
    if name == old:
        raise InvalidParameter("Renaming a container with the same name as its current name")
    try:
        containers.names.rename(container.id, old, name)
    except (Conflict, InvalidParameter) as error:
        raise type(error)(f"Error when allocating new name: {error}") from None
    record = replace(container.record, name=name)
    try:
        containers.folders.write_record(record, durable=not record.host_config.auto_remove)
    except OSError:
        containers.names.rename(container.id, name, old)
        raise
    container.record = record
    containers.publish(container, "rename", oldName=f"/{old}")
