"""What of ps's output is a container's, and the table of a host without ps."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dockpy.errors import InvalidParameter
from dockpy.linux.proctable import process
from dockpy.supervisor.top import own, parsed


def test_rows_are_those_of_the_pids_and_the_last_column_is_whole() -> None:
    said = "  PID TTY   CMD\n    7 pts/0 sh -c a  b\n    8 ?     other\n\n   17 ?     x\u00a0y z\n"
    titles, rows = parsed(said, {7, 17})
    assert titles == ["PID", "TTY", "CMD"]
    assert rows == [["7", "pts/0", "sh -c a b"], ["17", "?", "x\u00a0y z"]]


def test_threads_belong_to_the_process_above_them() -> None:
    said = "PID LWP\n7 -\n- 7\n- 8\n9 -\n- 9\n"
    assert parsed(said, {7})[1] == [["7", "-"], ["-", "7"], ["-", "8"]]
    with pytest.raises(InvalidParameter, match="PID field"):
        parsed("CMD\nsh\n", {7})
    with pytest.raises(InvalidParameter, match="Unexpected pid 'x'"):
        parsed("PID\nx\n", {7})


def test_the_table_of_our_own_is_that_of_ps() -> None:
    with subprocess.Popen([sys.executable, "-IS", "-c", "input()"], stdin=subprocess.PIPE) as child:
        while not Path(f"/proc/{child.pid}/cmdline").read_bytes():  # its exec is under way
            pass
        one = process(child.pid)
        assert one is not None
        titles, ((uid, pid, parent, *_, command),) = own([one])
        child.communicate(b"\n")
    assert titles == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert (pid, parent) == (str(child.pid), str(os.getpid()))
    assert command.endswith("-IS -c input()")
    assert uid != ""
