"""Which room may import which, and which outside library stands behind which gate: the house as data.

Type-only imports count for the layers (a name is knowledge too) but not for gates and cycles.
"""

from __future__ import annotations

import sys

import pytest

from tests.house.sources import Import, Source, imports, modules

# Single files at the top of dockpy/. `__main__` and `unpack` are nobody's to import but the start's.
SINGLE = frozenset(
    {
        "__init__",
        "errors",
        "files",
        "paths",
        "ids",
        "config",
        "reexec",
        "fastjson",
        "localdisk",
        "damaged",
    }
)
GROUND = frozenset({"linux", "oci", "http", "api"}) | SINGLE

# The chain: client → daemon → supervisor → keeper → shim → runtime; nouns beside it; the ground floor under both.
LAYERS: dict[str, frozenset[str]] = {
    **dict.fromkeys(SINGLE, SINGLE),
    "__main__": frozenset({"client", "daemon", "keeper", "registry"}) | SINGLE,
    "unpack": SINGLE,
    "linux": frozenset(),
    "oci": SINGLE,
    "http": SINGLE,
    "api": frozenset({"oci", "http"}) | SINGLE,
    "runtime": frozenset({"linux", "oci"}) | SINGLE,
    "shim": frozenset({"linux", "oci", "runtime", "http"}) | SINGLE,
    "rootless": frozenset({"linux"}) | SINGLE,
    "keeper": frozenset({"linux", "oci", "runtime", "shim", "rootless", "daemon"}) | SINGLE,
    "client": frozenset({"api", "http", "oci"}) | SINGLE,
    "storage": GROUND - {"http", "api"},
    "transport": frozenset({"linux", "http"}) | SINGLE,
    "registry": frozenset({"oci", "http", "transport"}) | SINGLE,
    "images": GROUND - {"api"} | {"storage", "registry"},
    "volumes": GROUND - {"http", "api"} | {"storage"},
    "network": GROUND - {"http"},
    "supervisor": GROUND | {"images", "storage", "volumes", "network", "rootless"},
    "builder": GROUND
    | {"images", "storage", "volumes", "network", "registry", "supervisor", "transport"},
    "daemon": GROUND
    | {"images", "storage", "volumes", "network", "registry", "transport", "rootless"}
    | {"supervisor", "builder"},
}
# Doors: single modules of a room that others may use though the room is closed to them.
DOORS: dict[str, frozenset[str]] = {
    # The protocols, the log's format and the exit file: what a shim says is read by others; nothing else of it is.
    "supervisor": frozenset(
        {
            "keeper.protocol",
            "shim.protocol",
            "shim.log",
            "shim.logcheck",
            "shim.logjson",
            "shim.packed",
            "shim.records",
            "shim.exitfile",
        }
    ),
    # rootview mounts a stopped container's tree as the runtime does, and finds a running one's namespace.
    "daemon": frozenset({"keeper.place", "keeper.protocol", "keeper.takeover", "shim.protocol"})
    | frozenset(
        {f"runtime.{name}" for name in ("errors", "mounts", "namespaces", "rootfs", "users")}
    ),
    # `cp` packs and unpacks on this side, safely against the far end as the daemon does on its own.
    "client": frozenset({"storage.tar", "storage.pack", "storage.untar", "storage.untrusted"}),
    # Its server keeps blobs as storage.content does: the same files, written early.
    "registry": frozenset({"linux.disk", "storage.layout"}),
}

# Outside libraries and the modules that may load them.
ASYNC = ("transport", "registry", "images", "network", "supervisor", "builder", "daemon")
GATES: dict[str, tuple[str, ...]] = {
    "trio": ASYNC,
    "h11": ("http.codec", "http.client_codec"),
    "elftools": ("images.elf",),
    "pyroute2": ("network",),
    "ssl": ("transport",),
    "tomli": ("config",),
    "ctypes": ("linux", "storage.compression", "registry.crypt"),
    "asyncio": (),
    "threading": (*ASYNC, "storage"),
    "subprocess": (*ASYNC, "client", "storage", "rootless", "keeper.takeover"),
    "attr": (),
    "sortedcontainers": (),
    "shiv": (),
}

ALL = modules()
KNOWN = frozenset(ALL)


def inside(module: str, places: tuple[str, ...] | frozenset[str]) -> bool:
    """Whether `dockpy.a.b` is in one of the places `a` or `a.b`."""
    name = module.partition(".")[2]
    return any(name == place or name.startswith(f"{place}.") for place in places)


def ours(found: Import) -> bool:
    return found.name == "dockpy" or found.name.startswith("dockpy.")


@pytest.mark.parametrize("module", sorted(ALL))
def test_imports_only_from_rooms_below(module: str) -> None:
    source = ALL[module]
    allowed = LAYERS[source.room] | DOORS.get(source.room, frozenset()) | {source.room}
    wrong = [
        f"{source.place(found.line)} imports {found.name}"
        for found in imports(source, KNOWN)
        if ours(found) and found.name != "dockpy" and not inside(found.name, allowed)
    ]
    assert not wrong, f"{source.room} may not: {wrong}"


@pytest.mark.parametrize("module", sorted(ALL))
def test_outside_libraries_come_in_by_their_gates(module: str) -> None:
    source = ALL[module]
    wrong = []
    for found in imports(source, KNOWN):
        top = found.name.partition(".")[0]
        if ours(found) or found.typing:
            continue
        if top in GATES:
            if not inside(source.module, GATES[top]):
                wrong.append(
                    f"{source.place(found.line)} imports {found.name}, which only {GATES[top]} may"
                )
        elif hasattr(sys, "stdlib_module_names") and top not in sys.stdlib_module_names:
            wrong.append(
                f"{source.place(found.line)} imports {found.name}, for which there is no gate"
            )
    assert not wrong, wrong


def test_every_room_has_its_place_in_the_table() -> None:
    assert {source.room for source in ALL.values()} <= set(LAYERS)


def test_no_import_cycles() -> None:
    """Counting what is imported inside functions too: a cycle that is only put off is still a cycle."""
    edges = {
        module: {
            found.name
            for found in imports(source, KNOWN)
            if not found.typing and found.name in KNOWN
        }
        for module, source in ALL.items()
    }
    done: set[str] = set()

    def walk(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " → ".join([*path[path.index(module) :], module])
        if module in done:
            return
        for target in sorted(edges[module] - {"dockpy"}):
            walk(target, (*path, module))
        done.add(module)

    for module in sorted(edges):
        walk(module, ())


def test_source_reader_sees_type_only_and_lazy_imports() -> None:
    import ast

    text = "import a\nif TYPE_CHECKING:\n    import b\ndef f():\n    from dockpy import ids\n"
    source = Source(ALL["dockpy"].path, "dockpy.x", ast.parse(text))
    found = {(i.name, i.typing, i.lazy) for i in imports(source, KNOWN)}
    assert found == {("a", False, False), ("b", True, False), ("dockpy.ids", False, True)}
