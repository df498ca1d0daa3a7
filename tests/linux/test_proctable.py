"""One pass over /proc."""

from __future__ import annotations

import os
import signal
import subprocess
import time

from dockpy.linux.proctable import Table, process


def test_descendants_are_found_parents_first() -> None:
    child = subprocess.Popen(["sh", "-c", "sleep 60 & wait"])
    try:
        for _ in range(200):
            below = [one for one in Table().below(os.getpid()) if one.pid != os.getpid()]
            ours = [one for one in below if one.pid == child.pid or one.parent == child.pid]
            if len(ours) == 2:
                break
            time.sleep(0.01)
        assert [one.parent for one in ours] == [os.getpid(), child.pid]
        os.kill(ours[1].pid, signal.SIGKILL)
    finally:
        child.wait()


def test_a_name_with_parentheses_and_spaces_moves_no_field() -> None:
    source = "import time; open('/proc/self/comm', 'w').write('a) S 1 (b'); print(flush=True); time.sleep(60)"
    child = subprocess.Popen(["python3", "-c", source], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        child.stdout.readline()
        found = process(child.pid)
        assert found is not None
        assert (found.name, found.parent) == (b"a) S 1 (b", os.getpid())
        assert found.rss > 1 << 20
    finally:
        child.kill()
        child.communicate()
    assert process(child.pid) is None
