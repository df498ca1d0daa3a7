"""Where clients find the daemon, and the daemon its shims: the run folder, the socket in it, and daemon.json.
What of it somebody deletes is made again, for as long as the store is ours.

  run/             held open, by a shared lock that cleaners of /tmp respect, and watched
  run/dockpy.sock  the daemon's; who waits in the queue of one whose file is gone is for keeper.main
  run/s/           the shims' sockets, held likewise; shims make them again when they are told (SIGHUP)
  daemon.json      in the store: where all this is, and who serves

A folder is ours by what it is, not by its name: a shim that starts makes `s` again, too, and all others
have still to be told then. The keeper has one Home for life; nothing here forks.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import traceback

from dockpy import files
from dockpy.errors import DockpyError
from dockpy.keeper import place
from dockpy.linux import inotify
from dockpy.shim.loop import POLLIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable

    from dockpy.paths import Paths
    from dockpy.shim.loop import Loop

# Seconds: after a failure (a full disk), while somebody is still deleting, and where nothing can be watched.
AGAIN, STILL, LOOK = 1.0, 0.05, 1.0
# Not of `s` itself: every container that ends deletes a socket there.
FOLDER = (
    inotify.IN_DELETE
    | inotify.IN_MOVED_FROM
    | inotify.IN_DELETE_SELF
    | inotify.IN_MOVE_SELF
    | inotify.IN_ATTRIB
)
RECORD = inotify.IN_ATTRIB | inotify.IN_CLOSE_WRITE | inotify.IN_DELETE_SELF | inotify.IN_MOVE_SELF


class Home:
    """`moved` gets each new listener, and owns it."""

    def __init__(
        self,
        loop: Loop,
        paths: Paths,
        run: str,
        lock_fd: int,
        moved: Callable[[_socket.socket], None],
    ) -> None:
        self.run = run
        self.untold = ""  # why daemon.json could not be written
        self._loop = loop
        self._paths = paths
        self._lock_fd = lock_fd
        self._moved = moved
        self._held: list[int] = []  # of `_folders()`
        self._watch = -1
        self._looks = False  # a look is due
        self._about: tuple[str, str, int] | None = None
        self._record = b""

    def keep(self) -> None:
        """From here on; what is missing already is made again, what a killed keeper has half written goes."""
        with contextlib.suppress(OSError):
            for path in tuple(files.partial_files(self._paths.store)):
                if path.startswith(f"{self._paths.daemon_json}."):
                    os.unlink(path)
        with contextlib.suppress(OSError):
            self._hold()
        try:
            self._watch = inotify.inotify_init1()
            self._loop.watch(self._watch, POLLIN, self._changed)
            self._watch_folder()
        except OSError:
            self._watch_nothing()
        self._look()

    def record(self, tier: str, build: str, daemon: int) -> None:
        """Writes daemon.json, without which no client finds the way."""
        self._about = (tier, build, daemon)
        try:
            self._record = place.write_daemon_json(
                self._paths, self.run, tier, build, os.getpid(), daemon
            )
        except OSError as error:  # a full disk, or the store is being deleted: containers go on
            self._record = b""
            self.untold = f"{self._paths.daemon_json} cannot be written: {error.strerror}"
            self._look_after(AGAIN)
            return
        self.untold = ""
        self._watch_record()
        if not self._recorded():  # deleted before it was watched
            self._look_after(STILL)

    def is_there(self) -> bool:
        """Whether the store is still ours; else what is at our paths is another keeper's."""
        return place.is_there(self._paths, self._lock_fd)

    def hide(self) -> None:
        """Nobody comes any more; who came before is in the listener's queue."""
        files.unlink_if_exists(place.socket_path(self.run))

    def make_again(self) -> None:
        """Folder and socket; `moved` gets the listener, and the shims are told to do likewise."""
        try:
            listener = place.listen(self.run)
        except (OSError, DockpyError):
            with contextlib.suppress(OSError):  # the log is on the same full disk
                traceback.print_exc()
            self._look_after(AGAIN)
            return
        with contextlib.suppress(OSError):  # deleted again already
            self._hold()
        try:
            self._watch_folder()
        except OSError:
            self._watch_nothing()
        if not self._whole():
            # Deleted before the watch was there: who deletes is not done yet.
            listener.close()
            self._look_after(STILL)
            return
        self._moved(listener)
        for pid in place.living_shims(self._paths):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGHUP)

    # ------------------------------------------------------------------------------- looking

    def _folders(self) -> tuple[str, str]:
        return self.run, f"{self.run}/s"

    def _hold(self) -> None:
        """OSError: one of the folders is gone; what is held then is not whole."""
        while self._held:
            os.close(self._held.pop())
        for path in self._folders():
            self._held.append(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            with contextlib.suppress(OSError):  # some file systems have no locks
                fcntl.flock(self._held[-1], fcntl.LOCK_SH | fcntl.LOCK_NB)

    def _whole(self) -> bool:
        folders = self._folders()
        return (
            len(self._held) == len(folders)
            and all(map(_is, self._held, folders))
            and os.path.lexists(place.socket_path(self.run))
        )

    def _watch_folder(self) -> None:
        if self._watch >= 0:
            inotify.inotify_add_watch(self._watch, self.run, FOLDER)
            self._watch_record()

    def _watch_record(self) -> None:
        if self._watch >= 0:
            try:
                inotify.inotify_add_watch(self._watch, self._paths.daemon_json, RECORD)
            except FileNotFoundError:
                pass  # it will be written
            except OSError:
                self._watch_nothing()

    def _watch_nothing(self) -> None:
        """This user has no more of what inotify takes (fs.inotify.max_user_…): look from time to time."""
        if self._watch >= 0:
            self._loop.forget(self._watch)
            os.close(self._watch)
            self._watch = -1
        self._look_after(LOOK)

    def _changed(self, _events: int) -> None:
        try:
            os.read(self._watch, 1 << 16)
        except BlockingIOError:
            return
        self._look()

    def _look_after(self, seconds: float) -> None:
        if not self._looks:
            self._looks = True
            self._loop.after(seconds, self._timed)

    def _timed(self) -> None:
        self._looks = False
        self._look()
        if self._watch < 0:
            self._look_after(LOOK)

    def _look(self) -> None:
        if not self.is_there():
            return
        if not self._whole():
            self.make_again()
        if self._about is not None and not self._recorded():
            self.record(*self._about)

    def _recorded(self) -> bool:
        with contextlib.suppress(OSError, ValueError):
            return bool(self._record) and files.read_bytes(self._paths.daemon_json) == self._record
        return False


def _is(fd: int, path: str) -> bool:
    """Whether `path` is what is open as `fd`: for as long as it is, no other has its number."""
    with contextlib.suppress(OSError):
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    return False
