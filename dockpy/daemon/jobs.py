"""Stores beside this daemon's own: those whose images it uses, and those of jobs that have ended."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from dockpy import localdisk
from dockpy.keeper.place import living_shims
from dockpy.paths import Paths
from dockpy.storage import remove

log = logging.getLogger("dockpy.jobs")

# Seconds for which a job's store without a daemon is let be: one may be about to be born.
YOUNG = 600.0


def lenders_of(paths: Paths, stores: Sequence[str], environ: Mapping[str, str]) -> list[Paths]:
    """The stores whose images are used here: the user's own in a job, those that `stores` and
    DOCKPY_STORES name. One that is not there is told in the log and passed over.
    """
    named = [*stores, *(path for path in environ.get("DOCKPY_STORES", "").split(":") if path)]
    found = [Paths(store, localdisk.known(store)) for store in named]
    for lender in found:
        if not os.access(f"{lender.images}/index.json", os.R_OK):
            log.warning("%s is not a store that can be read; it is passed over", lender.store)
    own = [Paths(paths.base, localdisk.known(paths.base))] if paths.base else []
    return [one for one in (*own, *found) if os.access(f"{one.images}/index.json", os.R_OK)]


def sweep(paths: Paths) -> None:
    """Removes the stores of jobs on this host that have ended: nobody has their lock, no shim lives."""
    jobs = f"{paths.base or paths.store}/.jobs"
    try:
        names = os.listdir(jobs)
    except FileNotFoundError:
        return
    for name in names:
        store = f"{jobs}/{name}"
        if not name.endswith(f".{os.uname().nodename}") or store == paths.store:
            continue
        job = Paths(store, localdisk.known(store))
        try:
            with _alone(job) as ended:
                if ended and not living_shims(job):
                    log.info("the job %s has ended: its store is removed", name)
                    remove.remove_path(job.data)
                    remove.remove_path(store)
        except FileNotFoundError:
            continue  # another job's daemon removes it, too
        except OSError as error:
            log.error("the store of the job %s cannot be removed: %s", name, error)


@contextmanager
def _alone(job: Paths) -> Iterator[bool]:
    """Whether nobody uses that store, or has lately; nobody can begin to while this lasts."""
    try:
        fd = os.open(job.lock, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        yield time.time() - os.stat(job.store).st_mtime > YOUNG
        return
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield time.time() - os.fstat(fd).st_mtime > YOUNG
    finally:
        os.close(fd)
