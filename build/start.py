"""The first Python code of every start, kept in clear between the shell preamble and the archive.

Uses the copy of this build that was unpacked into the store, when nobody but the user (or root) could have written to
it or above it; otherwise the archive settles the matter: unpacks itself, or runs as it is. Every command waits for
this file to be compiled, so it imports nothing and says only what must be said before dockpy can be believed.
"""

import posix
import sys

BUILD = "@BUILD@"


def trusted(path: str, uid: int) -> bool:
    """Whether `path` is `uid`'s folder, and nobody else but root can write to it or exchange a parent of it."""
    owners: tuple[int, ...] = (uid,)
    while True:
        entry = posix.lstat(path)
        mode = entry.st_mode
        if mode & 0o170000 != 0o040000 or entry.st_uid not in owners:
            return False
        # In a sticky folder (/tmp) nobody else can rename what is ours. Distributions with a group for each user make
        # folders 0775: as good as 0755 when the group has this one member.
        if (
            mode & 0o022
            and not (mode & 0o1000 and len(owners) == 2)
            and (mode & 0o002 or not alone(entry.st_gid, uid))
        ):
            return False
        if path == "/":
            return True
        path = path[: path.rindex("/")] or "/"
        owners = (uid, 0)


def alone(gid: int, uid: int) -> bool:
    import grp
    import pwd

    try:
        group, user = grp.getgrgid(gid), pwd.getpwuid(uid).pw_name
    except KeyError:
        return False
    return group.gr_name == user and all(name == user for name in group.gr_mem)


def copy_of(uid: int) -> "str | None":
    """The folder of this build's unpacked copy, by the rules of dockpy.paths.store_of; None where those need passwd."""
    env = posix.environ.get
    store = env(b"DOCKPY_STORE", b"")
    if store[:1] != b"/":
        if uid == 0:
            store = b"/var/lib/dockpy"
        else:
            data, home = env(b"XDG_DATA_HOME", b""), env(b"HOME", b"")
            if data[:1] != b"/":
                data = home + b"/.local/share"
            store = data + b"/dockpy"
    if store[:1] != b"/" or b"//" in store or b"/." in store.replace(b"/.local/", b"/"):
        return None
    name = store.decode(sys.getfilesystemencoding(), "surrogateescape")
    return name + "/app/" + BUILD + "." + sys.implementation.cache_tag


def contents(path: str) -> bytes:
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        return posix.read(fd, 64)
    finally:
        posix.close(fd)


def usable(folder: str, uid: int) -> bool:
    """Trusted, and looked through since the host started: a power cut leaves files without content behind."""
    try:
        return trusted(folder, uid) and contents(folder + "/boot") == contents(
            "/proc/sys/kernel/random/boot_id"
        )
    except OSError:
        return False


def start() -> None:
    if sys.version_info < (3, 9):
        found = f"{sys.executable} is Python {sys.version_info[0]}.{sys.version_info[1]}"
        sys.exit(f"dockpy: {found}; dockpy needs CPython 3.9 or newer in PATH")
    if sys.argv[0] == "-c":
        del sys.argv[0]
    sys.dont_write_bytecode = True  # an unpacked copy is never written to again
    uid = posix.geteuid()
    folder = copy_of(uid)
    if folder and usable(folder, uid):
        sys.path.append(folder)
    else:
        import os.path

        archive = os.path.abspath(sys.argv[0])
        sys.path.append(archive + "/site-packages")
        if not sys.argv[1:2] or not sys.argv[1].startswith("--role="):
            from dockpy.unpack import settle

            settle(archive, BUILD, trusted)
    from dockpy.__main__ import main

    main()


start()
