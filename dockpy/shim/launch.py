"""The runtime as the shim uses it: a bundle in, a running process out.

The parsed spec lives no longer than the call: with docker's seccomp profile it is half a megabyte,
which a shim that lives for days shall not hold.
"""

from __future__ import annotations

import json
import os

from dockpy.oci.spec import Process, Spec
from dockpy.runtime.create import Stdio, create
from dockpy.runtime.errors import StartFailed
from dockpy.runtime.exec import exec_process
from dockpy.shim.protocol import NotStarted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from dockpy.runtime.create import Created


class RuntimeLauncher:
    """shim.main.Launcher over our own OCI runtime."""

    def create(
        self, bundle: str, stdio: tuple[int, int, int] | None, size: tuple[int, int] | None
    ) -> tuple[int, int | None]:
        try:
            created = create(_spec(bundle), bundle, _stdio(stdio), console_size=size)
        except StartFailed as failure:
            raise NotStarted(failure.code, str(failure)) from None
        return _of(created)

    def exec(
        self,
        bundle: str,
        process: Mapping[str, Any],
        init_pid: int,
        stdio: tuple[int, int, int] | None,
        size: tuple[int, int] | None,
    ) -> tuple[int, int | None]:
        wanted = Process.from_json(process)
        try:
            created = exec_process(
                _spec(bundle), wanted, init_pid, _stdio(stdio), console_size=size
            )
        except StartFailed as failure:
            raise NotStarted(failure.code, str(failure)) from None
        return _of(created)


def _spec(bundle: str) -> Spec:
    with open(f"{bundle}/config.json", "rb") as file:
        return Spec.from_json(json.load(file))


def _stdio(fds: tuple[int, int, int] | None) -> Stdio | None:
    return None if fds is None else Stdio(*fds)


def _of(created: Created) -> tuple[int, int | None]:
    if created.pidfd >= 0:
        os.close(created.pidfd)  # a child of the shim cannot vanish before the shim waits for it
    return created.pid, created.console
