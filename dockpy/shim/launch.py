"""The runtime as the shim uses it: a bundle in, a running process out.

Called in a worker that the shim forks for it and that ends at once: what the spec and the making of a
container cost in memory (a megabyte and more) is then not the shim's for days. The process is the worker's
sibling, so the shim is its parent.
"""

from __future__ import annotations

import json

from dockpy.errors import DockpyError
from dockpy.oci.spec import Spec, process_from_json
from dockpy.runtime.create import Stdio, create
from dockpy.runtime.errors import StartFailed
from dockpy.runtime.exec import exec_process
from dockpy.shim.protocol import NotStarted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from dockpy.runtime.create import Created


class RuntimeLauncher:
    """shim.main.Launcher over our own OCI runtime; `seccomp_cache` keeps compiled filters."""

    def __init__(self, seccomp_cache: str) -> None:
        self._cache = seccomp_cache

    def create(
        self, bundle: str, stdio: tuple[int, int, int] | None, size: tuple[int, int] | None
    ) -> tuple[int, int | None]:
        return _made(
            lambda: create(
                _spec(bundle),
                bundle,
                _stdio(stdio),
                console_size=size,
                seccomp_cache=self._cache,
                sibling=True,
            )
        )

    def exec(
        self,
        bundle: str,
        process: Mapping[str, Any],
        init_pid: int,
        stdio: tuple[int, int, int] | None,
        size: tuple[int, int] | None,
    ) -> tuple[int, int | None]:
        return _made(
            lambda: exec_process(
                _spec(bundle),
                process_from_json(process),
                init_pid,
                _stdio(stdio),
                console_size=size,
                seccomp_cache=self._cache,
                sibling=True,
            )
        )


def _made(make: Callable[[], Created]) -> tuple[int, int | None]:
    try:
        created = make()
    except StartFailed as failure:
        raise NotStarted(failure.code, str(failure)) from None
    except DockpyError as error:
        raise NotStarted(128, str(error)) from None
    return created.pid, created.console


def _spec(bundle: str) -> Spec:
    with open(f"{bundle}/config.json", "rb") as file:
        return Spec.from_json(json.load(file))


def _stdio(fds: tuple[int, int, int] | None) -> Stdio | None:
    return None if fds is None else Stdio(*fds)
