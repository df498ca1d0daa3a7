"""What a tree takes on the disk, by looking at all of it."""

from __future__ import annotations

import os

from dockpy.storage.snapshot import Usage


def measured(path: str) -> Usage:
    """Bytes and inodes of a tree's own files; hard links count once, holes do not count."""
    size = inodes = 0
    seen: set[tuple[int, int]] = set()
    pending = [path]
    while pending:
        try:
            entries = os.scandir(pending.pop())
        except (FileNotFoundError, NotADirectoryError):
            continue  # a running container's tree changes under us
        with entries:
            for entry in entries:
                try:
                    state = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                elif state.st_nlink > 1:
                    if (state.st_dev, state.st_ino) in seen:
                        continue
                    seen.add((state.st_dev, state.st_ino))
                inodes += 1
                if not entry.is_dir(follow_symlinks=False):
                    size += min(state.st_size, state.st_blocks * 512)
    return Usage(size, inodes)
