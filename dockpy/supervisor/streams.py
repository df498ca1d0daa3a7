"""Attaching: a client's connection goes to the shim, now or, when the container has yet to start, with its start."""

from __future__ import annotations

from dockpy.errors import Conflict
from dockpy.supervisor.container import Client, Container
from dockpy.supervisor.containers import Containers
from dockpy.supervisor.shims import Lost

# So many clients may wait for one container's start; more is a mistake in a loop.
MOST_PENDING = 64


def check_attachable(container: Container) -> None:
    """Before the connection is hijacked: whatever can be answered with a status."""
    if container.removing:
        raise Conflict(f"container {container.id} is being removed")
    if container.state.paused:
        raise Conflict(f"container {container.name} is paused, unpause the container before attach")
    if container.state.restarting:
        raise Conflict(
            f"container {container.id} is restarting, wait until the container is running"
        )
    container.pending[:] = [client for client in container.pending if not _dropped(client)]
    if len(container.pending) >= MOST_PENDING:
        raise Conflict(
            f"{MOST_PENDING} clients are waiting for container {container.name} to start"
        )


def _dropped(client: Client) -> bool:
    if client.gone():
        client.close()
        return True
    return False


async def attach(containers: Containers, container: Container, client: Client) -> None:
    """Takes `client` over: it is closed here, whatever happens."""
    # Not stdin alone that nobody opened: the container's process would wait for it for ever.
    client.stdin = client.stdin and container.record.config.open_stdin
    containers.publish(container, "attach")
    if not container.state.running or container.shim is None:
        container.pending.append(client)
        return
    try:
        attachment = client.attachment()
        await container.shim.ask(lambda link: link.attach(attachment))
    except (Conflict, Lost):
        pass  # over in this moment: the closed connection says so
    finally:
        client.close()
