"""The driver is found by trying, and kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dockpy.errors import Unavailable
from dockpy.paths import Paths
from dockpy.storage.choose import choose
from dockpy.storage.overlay import PAGE, overlay_options

NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")


def driver_as(prefix: tuple[str, ...], store: Path) -> str:
    code = (
        "import sys; from dockpy.paths import Paths; from dockpy.storage.choose import choose;"
        f"s = choose(Paths({str(store)!r}), 'single'); print(s.name, s.real_owners)"
    )
    run = subprocess.run([*prefix, sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    return run.stdout.decode()


@pytest.mark.skipif(os.geteuid() != 0, reason="unshare needs no help as root")
def test_overlay_is_chosen_where_it_can_be_mounted(tmp_path: Path) -> None:
    assert driver_as(NAMESPACE, tmp_path) == "overlay2 False\n"
    assert (tmp_path / "snapshots" / "driver").read_text() == "overlay"
    assert not [name for name in os.listdir(tmp_path / "snapshots") if name.startswith("try")]
    assert choose(Paths(str(tmp_path)), "root").name == "overlay2"
    # The trial happened in a namespace of its own.
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become somebody without any capability")
def test_without_any_overlay_trees_are_copied(tmp_path: Path) -> None:
    # A user namespace is entered, all capabilities in it are dropped: nothing can be mounted.
    prefix = (*NAMESPACE, "setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs")
    assert driver_as(prefix, tmp_path) == "copy False\n"


def test_a_driver_that_containers_need_is_not_changed(tmp_path: Path) -> None:
    (tmp_path / "snapshots" / "active").mkdir(parents=True)
    (tmp_path / "snapshots" / "driver").write_text("overlay-of-old")
    (tmp_path / "snapshots" / "active" / "c1").symlink_to("1.0")
    with pytest.raises(Unavailable, match="need the overlay-of-old driver"):
        choose(Paths(str(tmp_path)), "single")


def test_many_long_layers_get_an_option_each() -> None:
    few = overlay_options(("/s/n/2", "/s/n/1"), "/s/n/3/u", "/s/n/3/w", userxattr=True)
    assert few == ("lowerdir=/s/n/2:/s/n/1", "upperdir=/s/n/3/u", "workdir=/s/n/3/w", "userxattr")
    many = overlay_options(("/a" * 30,) * 127, "/u", "/w", userxattr=True)
    assert many[:127] == ("lowerdir+=" + "/a" * 30,) * 127
    short = overlay_options(tuple(f"/home/x/n/{n}" for n in range(127)), "/u", "/w", userxattr=True)
    assert len(",".join(short)) < PAGE
    assert (
        overlay_options(("/a:b,c\\d",), "/u", "/w", userxattr=False)[0]
        == "lowerdir=/a\\:b\\,c\\\\d"
    )
