"""The runtime as the shim uses it: a bundle in, a running process out.

Called in a worker that the shim forks for it: what the spec and the making of a container cost in memory
(a megabyte and more) is then not the shim's for days. The worker becomes the container's first process
itself where it can, else that is the worker's sibling: the shim is its parent, either way.
"""

from __future__ import annotations

import contextlib
import json
import sys

from dockpy.errors import DockpyError
from dockpy.oci.spec import Spec, process_from_json
from dockpy.runtime.create import Stdio, become, create, plan
from dockpy.runtime.errors import StartFailed
from dockpy.runtime.exec import exec_process
from dockpy.shim.protocol import NotStarted
from dockpy.shim.worker import Launcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any, NoReturn


SAMPLE = """{
"ociVersion":"1.0.2",
"process":{"user":{"uid":0,"gid":0},"args":["true"],"env":["PATH=/bin","HOSTNAME=sample"],"cwd":"/",
  "capabilities":{"bounding":["CAP_CHOWN","CAP_KILL"],"effective":["CAP_CHOWN"],"permitted":["CAP_CHOWN"]},
  "rlimits":[{"type":"RLIMIT_NOFILE","hard":1024,"soft":1024}],"oomScoreAdj":0,"noNewPrivileges":false},
"root":{"path":"rootfs"},"hostname":"sample",
"mounts":[{"destination":"/proc","type":"proc","source":"proc","options":["nosuid","noexec","nodev"]},
  {"destination":"/dev","type":"tmpfs","source":"tmpfs","options":["nosuid","mode=755","size=65536k"]},
  {"destination":"/etc/hosts","type":"bind","source":"/etc/hosts","options":["rbind","rprivate"]}],
"linux":{"namespaces":[{"type":"mount"},{"type":"pid"}],"maskedPaths":["/proc/kcore"],
  "readonlyPaths":["/proc/sys"],
  "seccomp":{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,"architectures":[],
    "syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"},{"names":["personality"],
      "action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":0,"op":"SCMP_CMP_EQ"}]}]}},
"annotations":{}
}"""


class RuntimeLauncher(Launcher):
    """Our own OCI runtime; `seccomp_cache` keeps compiled filters."""

    def __init__(self, seccomp_cache: str) -> None:
        self._cache = seccomp_cache

    def warm(self) -> None:
        """Reads a specification as the next one may be: half of what that takes is the copying of the pages
        that reading it writes to.
        """
        try:
            with _in_our_words():
                plan(Spec.from_json(json.loads(SAMPLE)), "/", Stdio(0, 1, 2), None, self._cache)
        except NotStarted as error:
            print(f"dockpy-shim: {error}", file=sys.stderr)

    def become(
        self,
        line: int,
        made: int,
        folders: list[int],
        bundle: str,
        stdio: tuple[int, int, int] | None,
        size: tuple[int, int] | None,
    ) -> NoReturn:
        with _in_our_words():
            become(
                _spec(bundle),
                bundle,
                _stdio(stdio),
                line,
                folders,
                made=made,
                console_size=size,
                seccomp_cache=self._cache,
            )

    def create(
        self, bundle: str, stdio: tuple[int, int, int] | None, size: tuple[int, int] | None
    ) -> tuple[int, int | None]:
        with _in_our_words():
            created = create(
                _spec(bundle),
                bundle,
                _stdio(stdio),
                console_size=size,
                seccomp_cache=self._cache,
                sibling=True,
            )
            return created.pid, created.console

    def exec(
        self,
        bundle: str,
        process: Mapping[str, Any],
        init_pid: int,
        stdio: tuple[int, int, int] | None,
        size: tuple[int, int] | None,
    ) -> tuple[int, int | None]:
        with _in_our_words():
            created = exec_process(
                _spec(bundle),
                process_from_json(process),
                init_pid,
                _stdio(stdio),
                console_size=size,
                seccomp_cache=self._cache,
                sibling=True,
            )
            return created.pid, created.console


@contextlib.contextmanager
def _in_our_words() -> Iterator[None]:
    """The runtime's errors as the shim's."""
    try:
        yield
    except StartFailed as failure:
        raise NotStarted(failure.code, str(failure)) from None
    except DockpyError as error:
        raise NotStarted(128, str(error)) from None


def _spec(bundle: str) -> Spec:
    with open(f"{bundle}/config.json", "rb") as file:
        return Spec.from_json(json.load(file))


def _stdio(fds: tuple[int, int, int] | None) -> Stdio | None:
    return None if fds is None else Stdio(*fds)
