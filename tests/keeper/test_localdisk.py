"""Which file systems are somebody's network, by the mount table."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dockpy import localdisk

TABLE = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
40 22 0:37 / /home rw,relatime shared:9 - nfs4 server:/home rw,vers=4.2
41 22 0:38 / /scratch rw - lustre mgs@tcp:/scratch rw
42 22 0:39 / /mnt/there rw - fuse.sshfs me@there: rw
43 22 0:40 / /mnt/plain rw - fuse.gocryptfs /home/me/secret rw
44 22 0:41 /sub\\040folder /mnt/odd rw - cifs //server/share rw
"""


@pytest.mark.parametrize(
    ("device", "kind", "remote"),
    [
        ("8:1", "ext4", False),
        ("0:37", "nfs4", True),
        ("0:38", "lustre", True),
        ("0:39", "fuse.sshfs", True),
        ("0:40", "fuse.gocryptfs", False),
        ("0:41", "cifs", True),
        ("0:99", "", False),
    ],
)
def test_a_file_system_is_known_by_its_device(device: str, kind: str, remote: bool) -> None:
    assert localdisk.kind_of_device(device, TABLE) == kind
    assert localdisk.is_remote_kind(kind) is remote


def test_this_hosts_disks_are_local(tmp_path: Path) -> None:
    assert not localdisk.is_remote(str(tmp_path))
    assert not localdisk.is_remote("/proc")


def test_the_age_of_a_file_is_told_by_one_clock(tmp_path: Path) -> None:
    path = tmp_path / "sign"
    path.touch()
    assert -1 < localdisk.age(str(path)) < 5
    moment = os.stat(path).st_mtime - 100
    os.utime(path, (moment, moment))
    assert 99 < localdisk.age(str(path)) < 105
    assert localdisk.age(str(tmp_path / "none")) == float("inf")
    assert os.listdir(tmp_path) == ["sign"]


def test_a_note_that_is_cut_leads_nowhere(tmp_path: Path) -> None:
    note = tmp_path / f"data.{os.uname().nodename}"
    assert localdisk.known(str(tmp_path)) == str(tmp_path)
    for text, folder in (
        ("/var/tmp/dockpy-1/ab\n", "/var/tmp/dockpy-1/ab"),
        ("/var/tmp/dockpy-1", str(tmp_path)),  # all of a user's stores would go with that job
        ("ab\n", str(tmp_path)),
        ("\n", str(tmp_path)),
        ("", str(tmp_path)),
    ):
        note.write_text(text)
        assert localdisk.known(str(tmp_path)) == folder
