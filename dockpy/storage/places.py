"""Where trees are, by number, and what is remembered beside each: its own, or a link to a lender's. And what an
overlay merges of several (overlay.py), by the topmost one's number.

Numbers are never given twice. One that is `busy` has no record yet, or no more: its tree is being made
or removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Iterable, Sequence

from dockpy import files
from dockpy.damaged import Shelf
from dockpy.linux.disk import spread_folders
from dockpy.storage import remove
from dockpy.storage.owners import SideTable, load_table
from dockpy.storage.view import Tree


class Places:
    """The folders `n`, `o` and `m` of one snapshots folder (the layout is in the room's docstring)."""

    def __init__(self, root: str, shelf: Shelf) -> None:
        self._root = root
        self._shelf = shelf
        self._lock = threading.Lock()
        self._busy: set[int] = set()
        # n/0 stays empty: the lower directory of a container without layers.
        for folder in ("n/0", "o", "m"):
            os.makedirs(f"{root}/{folder}", mode=0o755, exist_ok=True)
        spread_folders(f"{root}/n")
        numbers = self.numbers()
        self._next = max(numbers) + 1
        self._elsewhere: dict[int, str] = {}
        for number in numbers:
            with contextlib.suppress(OSError):  # EINVAL: a tree of our own
                self._elsewhere[number] = os.readlink(self.place(number))

    def numbers(self) -> set[int]:
        """Of all that is there, n/0 too."""
        return {int(name) for name in os.listdir(f"{self._root}/n") if name.isdecimal()}

    def place(self, number: int) -> str:
        """What has this number: a tree, or a link to another store's."""
        return f"{self._root}/n/{number}"

    def path(self, number: int) -> str:
        return self._elsewhere.get(number) or self.place(number)

    def table_path(self, number: int) -> str:
        return f"{self._root}/o/{number}"

    def table(self, number: int) -> SideTable:
        return load_table(self.table_path(number))

    def tree(self, number: int) -> Tree:
        return Tree(self.path(number), self.table(number))

    def new(self) -> int:
        with self._lock:
            number = self._next
            self._next += 1
            self._busy.add(number)
        return number

    def lend(self, tree: str, table: str) -> int:
        """The number of a lender's tree from now on."""
        number = self.new()
        os.symlink(tree, self.place(number))
        os.symlink(table, self.table_path(number))
        self._elsewhere[number] = tree
        return number

    def is_lent(self, number: int) -> bool:
        return number in self._elsewhere

    def lost(self, number: int) -> bool:
        """Whether it is a lender's tree that is gone."""
        return self.is_lent(number) and not os.path.isdir(self.path(number))

    def busy(self) -> set[int]:
        with self._lock:
            return set(self._busy)

    def mark_busy(self, number: int) -> None:
        with self._lock:
            self._busy.add(number)

    def settle(self, numbers: Iterable[int]) -> None:
        """They are busy no longer."""
        with self._lock:
            self._busy.difference_update(numbers)

    def discard(self, number: int) -> None:
        remove.remove_path(self.place(number))  # of a borrowed tree only the link
        self._elsewhere.pop(number, None)
        files.unlink_if_exists(self.table_path(number))
        for path in self.merged_on(number):
            remove.remove_path(path)
        self.settle((number,))

    def set_aside(self, number: int, reason: str) -> None:
        for path, kind in ((self.place(number), "tree"), (self.table_path(number), "table")):
            if os.path.lexists(path):
                self._shelf.set_aside(path, f"{kind}-{number}", reason)
        for path in self.merged_on(number):
            self._shelf.set_aside(path, f"merged-{os.path.basename(path)}", reason)
        self._elsewhere.pop(number, None)

    def set_table_aside(self, number: int, reason: str) -> None:
        self._shelf.set_aside(self.table_path(number), f"table-{number}", reason)

    def merged(self, numbers: Sequence[int]) -> str:
        """Of these trees, topmost first. Another one where a tree below was made again, under a new number."""
        stack = hashlib.sha256(repr(tuple(numbers)).encode()).hexdigest()[:16]
        return f"{self._root}/m/{numbers[0]}.{stack}"

    def merged_on(self, number: int) -> list[str]:
        """The merged trees whose topmost one is `number`."""
        return [path for path, top in self.all_merged().items() if top == number]

    def all_merged(self) -> dict[str, int]:
        """Their paths and topmost ones; 0 for one that was not finished."""
        found = {}
        for name in os.listdir(f"{self._root}/m"):
            top, _, stack = name.partition(".")
            found[f"{self._root}/m/{name}"] = (
                int(top) if top.isdecimal() and "." not in stack else 0
            )
        return found

    def tables(self) -> set[int]:
        return {int(name) for name in os.listdir(f"{self._root}/o") if name.isdecimal()}
