"""What the client lends to the shim."""

from __future__ import annotations

import os

import pytest

from dockpy.client.hijack import lendable


def test_a_pipe_is_opened_again_so_that_its_flags_stay() -> None:
    reading, writing = os.pipe()
    lent = lendable(writing, write=True)
    assert lent is not None
    assert not os.get_blocking(lent)
    assert os.get_blocking(writing)
    for fd in (reading, writing, lent):
        os.close(fd)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make another user's pipe")
def test_another_user_s_pipe_is_lent_as_it_is() -> None:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        lent = lendable(writing, write=True)
        os._exit(0 if lent is not None and os.get_blocking(lent) else 1)
    assert os.waitpid(pid, 0)[1] == 0
    os.close(reading)
    os.close(writing)
