"""Whom processes of ours believe: nobody but their own user."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dockpy.client import birth
from dockpy.client.connection import Endpoint
from dockpy.client.errors import NoDaemon
from dockpy.errors import Unavailable
from dockpy.paths import Paths

STRANGER = 61235


@contextmanager
def listening(path: Path, uid: int) -> Iterator[None]:
    """A socket that accepts, made by a process of user `uid`."""
    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            server = socket.socket(socket.AF_UNIX)
            server.bind(str(path))
            server.listen()
            os.chmod(path, 0o777)
            os.write(tell, b"x")
            while True:
                server.accept()[0].close()
        finally:
            os._exit(1)
    os.close(tell)
    assert os.read(ready, 1) == b"x"
    os.close(ready)
    try:
        yield
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")
@pytest.mark.parametrize(("uid", "believed"), [(0, True), (STRANGER, False)])
def test_a_socket_in_the_place_of_the_daemon_s_is_believed_only_if_ours(
    tmp_path: Path, uid: int, believed: bool
) -> None:
    """The record outlives a reboot; a run folder below /tmp does not, and its name is known."""
    place = tmp_path / "tmp"
    place.mkdir()
    place.chmod(0o777)
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(folder.stat().st_mode | 0o011)
    paths = Paths(str(tmp_path / "store"))
    os.makedirs(paths.store)
    path = place / "dockpy.sock"
    Path(paths.daemon_json).write_text(json.dumps({"socket": str(path)}))
    with listening(path, uid):
        assert (birth.answering(paths) == str(path)) is believed
        endpoint = Endpoint("", {"DOCKPY_STORE": paths.store})
        endpoint.start = False
        if believed:
            endpoint.connect().close()
        else:
            with pytest.raises(NoDaemon):
                endpoint.connect()


def test_a_store_that_others_can_write_is_closed_to_them(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    store.chmod(0o777)
    birth.make_store(Paths(str(store)), {})
    assert store.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's folder")
def test_another_user_s_store_is_refused_in_a_sentence(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    os.chown(store, STRANGER, STRANGER)
    with pytest.raises(Unavailable, match="another user's"):
        birth.make_store(Paths(str(store)), {})
