"""The snapshotter's contract: committed trees by chain id, active ones by key, and how to mount them.

Words: a *chain* (ChainID) is a committed, never changing tree: all layers up to and with one. A *key* names an
*active*, writable tree on top of a chain (or of nothing): one a container, key = the container's id. Only chains
are parents. `unpack` makes a chain out of its parent and one layer archive; `prepare` makes an active tree.

Everything here is cut-safe: what was not finished when the power went is removed by `recover()`, called
once at the daemon's start before anything else. All calls block; they may come from several threads of the one
daemon. Errors: NotFound for an unknown key or parent, Conflict for a chain in use, InvalidParameter for a
bad archive (nothing is left of it), Unavailable where the host refuses (no space, no mount).

`mounts(key)` answers one Mount with destination "/", for the runtime to mount in the container's own
mount namespace: nothing is mounted before, so nothing needs unmounting when the container has died.
  - overlay: Mount("/", "overlay", "overlay", ("lowerdir=l1:l2", "upperdir=…", "workdir=…",
    "userxattr")). lowerdir is given once, colon-separated, topmost first, absolute; where the whole
    would be longer than 4000 bytes (mount(2) takes one page), each lower directory comes as its own
    option "lowerdir+=<path>", topmost first, for fsconfig(FSCONFIG_SET_STRING, "lowerdir+", path);
    on kernels before 6.5, which know no such key, `prepare` links such a stack into one directory.
    Where files' bytes are another user's (twin.py), the lower directories come so, too, and then
    "datadir+=<path>", the folder that has them, which is to be opened without following a link.
  - copy: Mount("/", "bind", "<tree>", ("rbind", "rw")).
  - fuse: the same bind of a mount point that fuse-overlayfs serves from the first call until `remove`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from dockpy.oci.digest import ChainID, DiffID

if TYPE_CHECKING:
    from dockpy.oci.spec import Mount
    from dockpy.storage.diff import Change
    from dockpy.storage.view import Tree

Write = Callable[[bytes], object]
Send = Callable[[int, int, int], object]
"""send(fd, offset, length): moves a piece of a file into the stream by itself (sendfile)."""
Read = Callable[[int], bytes]
"""read(n): up to n bytes of a stream, b"" at its end; raises as it likes."""


@dataclass(frozen=True)
class Usage:
    """What a tree itself takes, without its parents."""

    size: int
    inodes: int


@dataclass(frozen=True)
class LayerSource:
    """A layer's archive: `open()` starts reading it (plain, gzip or zstd, told by its first bytes).

    `diff_id`, when known, is verified against the uncompressed stream: a mismatch is InvalidParameter
    and leaves nothing. `open` answers a read function; the stream is read once, to its end. `verify` is
    called then, before the tree counts: what it raises leaves nothing, too.
    """

    open: Callable[[], Read]
    diff_id: DiffID | None = None
    verify: Callable[[], None] | None = None


class Snapshotter(Protocol):
    @property
    def name(self) -> str:
        """docker's word for the driver: overlay2, fuse-overlayfs, copy."""

    def has(self, chain: ChainID) -> bool:
        """Whether it can be stood on: its tree and those below are there."""

    def borrow(self, roots: Sequence[str]) -> None:
        """Layers that other stores have unpacked (`roots`: their snapshot folders) serve here, too:
        as they are where they are made as ours are, an unpacking then reads nothing; else, where overlayfs
        can, by their files' bytes, which an unpacking then compares and does not write.
        """

    def unpack(self, chain: ChainID, parent: ChainID | None, source: LayerSource) -> Usage:
        """Makes `chain` = `parent` + the layer. Idempotent: an existing chain answers at once and reads nothing.

        Two threads that unpack the same chain: one works, the other waits for it.
        """

    def unpack_stack(
        self, parent: ChainID | None, layers: Sequence[tuple[ChainID, LayerSource]]
    ) -> None:
        """Makes chains on top of each other, the first on `parent`: all or, after an error, none of those
        that were not there; with one sync for all.
        """

    def prepare(self, key: str, parent: ChainID | None) -> None:
        """A writable tree on `parent`. Conflict when the key exists."""

    def mounts(self, key: str) -> tuple[Mount, ...]: ...

    def remove(self, key: str) -> None:
        """Ends an active tree. Its record goes first: what a cut leaves of the files is no container's."""

    def usage(self, key: str) -> Usage:
        """What the active tree's own files take (docker's SizeRw)."""

    def chain_usage(self, chain: ChainID) -> Usage: ...

    def known_usage(self, chain: ChainID) -> Usage | None:
        """As `chain_usage`, of a layer that only another store has unpacked, too; None where nobody has."""

    def upper(self, key: str) -> str:
        """The folder with what was changed (overlay) or the whole tree (copy): for diff, commit and cp."""

    def layers(self, key: str) -> tuple[str, ...]:
        """The trees below `upper`, topmost first; () for copy."""

    def trees(self, key: str) -> tuple[Tree, ...]:
        """The trees that show together as the active one, topmost first (storage.view walks them)."""

    def changes(self, key: str) -> Iterator[Change]:
        """What `docker diff` tells: A, C and D, sorted by path."""

    def write_tree(self, key: str, write: Write, send: Send | None = None) -> None:
        """All of the active tree as a tar stream (export)."""

    def write_layer(self, key: str, write: Write) -> None:
        """What was changed, as a layer's tar stream (commit)."""

    def keys(self) -> tuple[str, ...]: ...

    def parent_of(self, key: str) -> ChainID | None: ...

    def whole(self, key: str) -> bool:
        """Whether the active tree and all those below are there. Not after a damaged record."""

    def rebase(self, key: str, parent: ChainID | None) -> None:
        """Puts an active tree on `parent`, with the same content as the one it stood on."""

    def chains(self) -> tuple[ChainID, ...]: ...

    def drop(self, chain: ChainID) -> None:
        """Removes a committed tree. Conflict while a chain or a key stands on it; a missing one is no error."""

    def chain_tree(self, chain: ChainID) -> Tree:
        """A committed layer's own tree, in overlayfs's form."""

    def owns(self, chain: ChainID) -> bool:
        """Whether a committed layer's tree is our own, and not another store's, as a whole or in part."""

    def chain_takes(self, chain: ChainID) -> int:
        """Bytes that a committed layer's files take here: its usage without what other stores have."""

    def remake(self, chain: ChainID, source: LayerSource) -> None:
        """Unpacks a committed layer once more, in place of its tree, which is set aside: running
        containers may stand on it. After an error nothing has changed.
        """

    def held(self) -> frozenset[ChainID]:
        """The chains that active trees stand on."""

    def set_table_aside(self, key: str) -> None:
        """Gives up what is remembered of an active tree beside its files, which cannot be read."""

    def unknown(self) -> tuple[str, ...]:
        """The trees that belong to nothing; not those that are being made or removed."""

    def discard_unknown(self, tree: str) -> None:
        """Removes one of `unknown`."""

    def recover(self) -> None:
        """Removes what was half done when the last daemon ended."""
