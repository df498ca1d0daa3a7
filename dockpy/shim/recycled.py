"""Old log files that are written over: in a flood the oldest file becomes the newest one.

Its pages are in memory already: to write over them costs half of what new ones and the freeing of the
old ones cost. Nobody may read it meanwhile, so readers hold a shared lock (flock) on what they have
open, and look afterwards whether they got it in time; whoever is read keeps the file, and the writer
takes a new one. What a recycled file holds beyond its last record is older output.

Only where all the files were filled within seconds: nothing of them may be on the disk yet, so a power
failure, after which older bytes may stand in the place of the last ones, takes no more than it did.
"""

from __future__ import annotations

import fcntl
import os
import time

FRESH = 10.0  # seconds


def open_shared(path: str) -> int:
    """For reading, not to be recycled while it is open; FileNotFoundError when it just has been."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FileNotFoundError(path) from None
        except OSError:
            return fd  # a file system without locks: there the writer gets none either
        if os.stat(path, follow_symlinks=False).st_ino != os.fstat(fd).st_ino:
            raise FileNotFoundError(path)
    except OSError:
        os.close(fd)
        raise
    return fd


def recycle(old: str, index: str, new: str) -> int:
    """Makes the data file `old` the new one, and deletes its index; -1 where that cannot be."""
    try:
        fd = os.open(old, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return -1
    try:
        status = os.fstat(fd)
        if abs(time.time() - status.st_mtime) < FRESH and status.st_nlink == 1:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(index)
            os.rename(old, new)
            fcntl.flock(fd, fcntl.LOCK_UN)
            return fd
    except OSError:
        pass
    os.close(fd)
    return -1
