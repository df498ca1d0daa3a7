"""Further processes in a running container."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import replace

import trio

from dockpy import ids
from dockpy.api.container import ExecCreate, decode, encode
from dockpy.errors import Conflict, DockpyError, InvalidParameter, NotFound
from dockpy.http import stdcopy
from dockpy.oci.spec import process_to_json
from dockpy.supervisor.assemble import exec_process
from dockpy.supervisor.container import Client, Container, Exec
from dockpy.supervisor.containers import Containers
from dockpy.supervisor.control import running_shim


class ExecFailedToStart(InvalidParameter):
    """The command of an exec is not there or cannot be run."""


def _may_run(container: Container, called: str) -> None:
    running_shim(container)
    if container.state.paused:
        raise Conflict(f"Container {called} is paused, unpause the container before exec")


def create(containers: Containers, container: Container, request: ExecCreate) -> Exec:
    if not request.cmd:
        raise InvalidParameter("No exec command specified")
    _may_run(container, container.name)
    for entry in request.env:
        if not entry or entry.startswith("="):
            raise InvalidParameter(f"invalid environment variable: {entry}")
    exec_ = Exec(ids.new_id(), container.id, request)
    container.execs[exec_.id] = exec_
    containers.execs[exec_.id] = exec_
    containers.publish(container, f"exec_create: {_words(request)}", execID=exec_.id)
    return exec_


def _words(request: ExecCreate) -> str:
    """As docker's events spell it: a command without arguments has a space behind it."""
    name, *arguments = request.cmd or ("",)
    return f"{name} {' '.join(arguments)}"


def check_startable(container: Container, exec_: Exec) -> None:
    """Before the connection is hijacked."""
    if exec_.exit_code is not None:
        raise Conflict(f"Error: Exec command {exec_.id} has already run")
    if exec_.started:
        raise Conflict(f"Error: Exec command {exec_.id} is already running")
    _may_run(container, container.id)
    exec_.started = True


async def start(
    containers: Containers, container: Container, exec_: Exec, client: Client | None
) -> None:
    """Returns when the process runs. A failure goes into the client's stream, or, without one, is raised."""
    about = json.dumps(encode(replace(exec_.request, env=())), separators=(",", ":"))
    try:
        await launch(containers, container, exec_, client, about)
    except DockpyError as error:
        if client is None:
            raise ExecFailedToStart(str(error)) from None


async def launch(
    containers: Containers,
    container: Container,
    exec_: Exec,
    client: Client | None,
    about: str = "",
) -> None:
    """Returns when the process runs. A failure goes into the client's stream, and is raised.

    With `about` (see `adopt`) the exec is still known when this daemon has died.
    """
    request = exec_.request
    try:
        shim = running_shim(container)
        process = process_to_json(exec_process(container.record, request))
        attachments = () if client is None else (client.attachment(),)
        containers.publish(container, f"exec_start: {_words(request)}", execID=exec_.id)
        await shim.ask(
            lambda link: link.exec(
                exec_.id,
                process,
                tty=request.tty,
                console_size=exec_.console_size,
                attachments=attachments,
                detach=client is None,
                about=about,
                group=container.state.group or None,
            )
        )
    except DockpyError as error:
        text = str(error)
        if exec_.exit_code is None:
            exec_.exit_code = 127 if "not found" in text else 126
        if client is not None:
            _tell(client, text)
        raise
    finally:
        if client is not None:
            client.close()


def _tell(client: Client, text: str) -> None:
    """As docker: on the stream, since the status has been sent."""
    data = f"{text}\r\n".encode()
    try:
        client.connection.send(stdcopy.frame(stdcopy.STDOUT, data) if client.framed else data)
    except OSError:
        pass  # nobody listens any more


def adopt(
    containers: Containers, container: Container, told: Mapping[str, Mapping[str, object]]
) -> None:
    """What the shim of a container tells of execs that another daemon began (its `state`)."""
    for exec_id, entry in told.items():
        about, pid, code = entry.get("about"), entry.get("pid"), entry.get("code")
        if not about or exec_id in containers.execs:
            continue  # a health probe, which nobody asks for
        request = decode(ExecCreate, json.loads(str(about)), "")
        exec_ = Exec(exec_id, container.id, request, running=True, started=True)
        exec_.pid = pid if isinstance(pid, int) else 0
        container.execs[exec_id] = containers.execs[exec_id] = exec_
        if isinstance(code, int):
            containers.exec_over(container, exec_, code)


async def settle(container: Container, exec_: Exec) -> None:
    """Takes in what the shim has told about `exec_`.

    A client asks for the exit code as soon as its stream ends, and may be read before the shim's
    event. The shim answers in order, so one answer means that everything before it has been heard.
    """
    if exec_.started and exec_.exit_code is None and container.shim is not None:
        with contextlib.suppress(DockpyError):  # a shim that is gone has said all it will
            await container.shim.ask(lambda link: link.state())


async def resize(
    containers: Containers, container: Container, exec_: Exec, height: int, width: int
) -> None:
    exec_.console_size = (height, width)
    # A client asks right after the start: wait a moment for the process instead of refusing ten times.
    for _ in range(20):
        if exec_.running or exec_.exit_code is not None:
            break
        await trio.sleep(0.01)
    if exec_.exit_code is not None:
        raise NotFound("no such exec")
    if not exec_.running:
        raise Conflict(f"exec {exec_.id} is not running")
    shim = running_shim(container)
    await shim.ask(lambda link: link.resize(height, width, exec_id=exec_.id))
