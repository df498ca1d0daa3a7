"""Who probes: one task a running container with a health check (the rules are in supervisor.health).

The moment of the next probe is kept, on the kernel's monotonic clock, so a next daemon goes on where
this one stopped; a probe that was under way then is ended, and counts for nothing.
"""

from __future__ import annotations

import logging
import socket
import time
from dataclasses import replace

import trio

from dockpy.api.container import ExecCreate, Healthcheck
from dockpy.api.times import rfc3339nano
from dockpy.errors import DockpyError, InvalidParameter
from dockpy.supervisor import exec as execs
from dockpy.supervisor import health as rules
from dockpy.supervisor.container import Client, Container, Exec
from dockpy.supervisor.containers import Containers
from dockpy.supervisor.health import NANO, TIMEOUT, UNHEALTHY, Health, Result
from dockpy.supervisor.restart import ran_for

log = logging.getLogger(__name__)

TO_DIE = 10.0  # seconds that a killed probe may take


def begin(containers: Containers, container: Container) -> None:
    """A run has begun."""
    config = container.record.config
    if rules.command(config.healthcheck, config.shell) is None or config.healthcheck is None:
        container.health = None
        return
    known = container.health.log if container.health is not None else ()
    container.health = Health(log=known, boot=containers.host.boot)
    _plan(container, config.healthcheck, 0.0)
    _save(containers, container)
    follow(containers, container)


def follow(containers: Containers, container: Container) -> None:
    """Probes or does not, as the container's state now wants it. docker calls one unhealthy that it
    does not watch.
    """
    health = container.health
    wanted = health is not None and container.state.running and not container.state.paused
    if wanted and container.monitor is None:
        container.monitor = trio.CancelScope()
        containers.aside(_monitor, containers, container, container.monitor)
    elif not wanted and container.monitor is not None:
        container.monitor.cancel()
        container.monitor = None
        if health is not None:
            container.health = replace(health, status=UNHEALTHY, probing="")
            _save(containers, container)


async def adopt(containers: Containers, container: Container) -> None:
    """By a new daemon, of a container that runs."""
    try:
        health = rules.load(containers.folders.bundle(container.id))
    except InvalidParameter as error:
        containers.folders.set_aside(container.id, "health.json", str(error))
        health = None
        if container.state.running:
            begin(containers, container)
    if health is None:
        return
    container.health = health
    if container.state.status != "running" or health.boot != containers.host.boot:
        if health.status != UNHEALTHY:
            container.health = replace(health, status=UNHEALTHY)
        return
    if health.probing and container.shim is not None:
        await _kill(container, health.probing)
    follow(containers, container)


def _plan(container: Container, config: Healthcheck, ran: float) -> None:
    assert container.health is not None
    due = time.monotonic() + rules.interval(config, container.health.status, ran)
    container.health = replace(container.health, due=due, probing="")


async def _monitor(containers: Containers, container: Container, scope: trio.CancelScope) -> None:
    config = container.record.config
    argv, check_ = rules.command(config.healthcheck, config.shell), config.healthcheck
    assert argv is not None and check_ is not None
    with scope:
        while container.health is not None:
            await trio.sleep(max(container.health.due - time.monotonic(), 0))
            ran = ran_for(container.state, containers.host.boot)
            result = await _probe(containers, container, argv, check_)
            before = container.health.status
            container.health = rules.after(container.health, check_, result, ran)
            _plan(container, check_, ran_for(container.state, containers.host.boot))
            _save(containers, container)
            if container.health.status != before:
                containers.publish(container, f"health_status: {container.health.status}")


async def _probe(
    containers: Containers, container: Container, argv: tuple[str, ...], config: Healthcheck
) -> Result:
    start = rfc3339nano(time.time_ns())
    timeout = config.timeout / NANO or TIMEOUT
    try:
        code, output = await _run(containers, container, argv, timeout)
    except (DockpyError, OSError) as error:
        code, output = -1, str(error)
    return Result(start, rfc3339nano(time.time_ns()), code, output)


async def _run(
    containers: Containers, container: Container, argv: tuple[str, ...], timeout: float
) -> tuple[int, str]:
    config = container.record.config
    request = ExecCreate(
        user=config.user,
        attach_stdout=True,
        attach_stderr=True,
        working_dir=config.working_dir,
        cmd=argv,
    )
    exec_ = execs.create(containers, container, request)
    exec_.started = True
    assert container.health is not None
    container.health = replace(container.health, probing=exec_.id)
    _save(containers, container)
    ours, theirs = socket.socketpair()
    with ours:
        ours.setblocking(False)
        client = Client(theirs, stdin=False, stdout=True, stderr=True, framed=False)
        output = _Output(ours)
        try:
            await execs.launch(containers, container, exec_, client)
            with trio.move_on_after(timeout) as scope:
                await output.read()
                await exec_.over.wait()
        finally:
            if exec_.exit_code is None and container.state.running:
                await _end(container, exec_)
    told = output.text()
    if scope.cancelled_caught:
        text = f"Health check exceeded timeout ({_go_duration(timeout)})"
        return -1, f"{text}: {told}" if told else text
    return exec_.exit_code if exec_.exit_code is not None else -1, told


async def _end(container: Container, exec_: Exec) -> None:
    """Not before it has ended: dying probes must not pile up."""
    with trio.move_on_after(TO_DIE, shield=True):
        await _kill(container, exec_.id)
        await exec_.over.wait()


async def _kill(container: Container, exec_id: str) -> None:
    shim = container.shim
    if shim is None:
        return
    try:
        await shim.ask(lambda link: link.kill(9, exec_id=exec_id, everyone=True))
    except DockpyError as error:
        log.info("the probe of container %s: %s", container.id[:12], error)


class _Output:
    """The first bytes of a stream, which is read to its end."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._data = b""
        self._more = False

    async def read(self) -> None:
        while True:
            try:
                data = self._socket.recv(1 << 16)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._socket)
                continue
            except ConnectionError:
                return
            if not data:
                return
            self._more = self._more or len(self._data) + len(data) > rules.LONGEST
            self._data = (self._data + data)[: rules.LONGEST]

    def text(self) -> str:
        return self._data.decode("utf-8", "replace") + ("..." if self._more else "")


def _go_duration(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:g}ms"
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    text = f"{hours}h" if hours else ""
    text += f"{minutes}m" if hours or minutes else ""
    return f"{text}{rest:g}s"


def _save(containers: Containers, container: Container) -> None:
    assert container.health is not None
    rules.save(containers.folders.bundle(container.id), container.health)
