"""The second Python code of a start, for whatever build/start.py was not sure of; the archive's __main__.py too.

A copy may still be good: the path has links in it, or a folder that others may write without being able to harm. Else
the archive settles the matter (dockpy.unpack): it unpacks itself, or runs as it is. Must be readable to any Python 3, so
that one that is too old can be told so.
"""

import os
import sys

BUILD = "@BUILD@"


def trusted(path: str, uid: int) -> bool:
    """Whether `path` is `uid`'s folder, and nobody else but root can write to it or exchange a parent of it."""
    owners: tuple[int, ...] = (uid,)
    while True:
        entry = os.lstat(path)
        mode = entry.st_mode
        if mode & 0o170000 != 0o040000 or entry.st_uid not in owners:
            return False
        # In a sticky folder (/tmp) nobody else can rename what is ours. Distributions with a group for each user make
        # folders 0775: as good as 0755 when the group has this one member.
        shared = mode & 0o022 and not (mode & 0o1000 and len(owners) == 2)
        if shared and (mode & 0o002 or not alone(entry.st_gid, uid)):
            return False
        if path == "/":
            return True
        path = os.path.dirname(path)
        owners = (uid, 0)


def alone(gid: int, uid: int) -> bool:
    import grp
    import pwd

    try:
        group, user = grp.getgrgid(gid), pwd.getpwuid(uid).pw_name
    except KeyError:
        return False
    return group.gr_name == user and all(name == user for name in group.gr_mem)


def contents(path: str) -> str:
    with open(path, encoding="ascii", errors="replace") as file:
        return file.read(64)


def usable(folder: str) -> bool:
    """Trusted, and looked through since the host booted: a power cut leaves files without content behind."""
    try:
        current = contents(folder + "/boot") == contents("/proc/sys/kernel/random/boot_id")
        return current and trusted(folder, os.geteuid())
    except OSError:
        return False


def start() -> None:
    if sys.version_info < (3, 9):
        found = f"{sys.executable} is Python {sys.version_info[0]}.{sys.version_info[1]}"
        sys.exit(f"dockpy: {found}; dockpy needs CPython 3.9 or newer in PATH")
    app = ""
    if sys.argv[0] == "-c":
        del sys.argv[0]
        app = sys.argv.pop(1)
    sys.dont_write_bytecode = True  # a copy is never written to again
    folder = f"{os.path.realpath(app)}/{BUILD}.{sys.implementation.cache_tag}"
    if app and usable(folder):
        sys.path.append(folder)
    else:
        archive = os.path.abspath(sys.argv[0])
        sys.path.append(archive + "/site-packages")
        if not (sys.argv[1:] and sys.argv[1].startswith("--role=")):
            from dockpy.unpack import settle

            settle(archive, BUILD, trusted)
    from dockpy.__main__ import main

    main()


start()
