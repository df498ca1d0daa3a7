"""`/wait`: who asks is registered at once, so no exit is missed, also that of a container that removes itself."""

from __future__ import annotations

from dockpy.errors import InvalidParameter
from dockpy.supervisor.container import Container, Waiter

CONDITIONS = ("", "not-running", "next-exit", "removed")


def register(container: Container, condition: str) -> Waiter:
    """The waiter; already released when the condition holds."""
    if condition not in CONDITIONS:
        raise InvalidParameter(f'invalid condition: "{condition}"')
    if condition == "removed":
        return container.removals.add()
    waiter = container.exits.add()
    if condition != "next-exit" and not container.state.live:
        container.exits.forget(waiter)
        waiter.outcome = container.outcome
        waiter.ready.set()
    return waiter
