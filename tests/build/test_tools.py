"""Where the scripts' own pip comes from: pip's settings by pip's precedence, an index page, a folder of wheels."""

from __future__ import annotations

import functools
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house.sources import TOP

CODE = "import json, sys; sys.path.insert(0, sys.argv[1]); import tools; print(json.dumps({}))"


def asked(expression: str, home: Path, **env: str) -> object:
    """What build/tools.py answers in an environment of its own."""
    code = CODE.format(expression)
    environ = {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "XDG_CONFIG_DIRS": str(home / "xdg"),
        **env,
    }
    done = subprocess.run(
        [sys.executable, "-c", code, str(TOP / "build")],
        env=environ,
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[str]:
    page = tmp_path / "served/simple/pip/index.html"
    page.parent.mkdir(parents=True)
    page.write_text(
        '<a href="../../files/pip-1-py3-none-any.whl#sha256=0">x</a><a href="pip-2.tar.gz">y</a>'
    )
    handler = functools.partial(
        http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "served")
    )
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/simple"
    server.shutdown()


def test_environment_wins_over_files_and_the_users_over_the_systems(tmp_path: Path) -> None:
    for name, text in (
        ("xdg/pip/pip.conf", "[global]\nindex-url = a\nextra-index-url = a\ncert = a\n"),
        (
            ".config/pip/pip.conf",
            "[global]\nindex-url = b\nextra-index-url = b\n[install]\nindex-url = c\n",
        ),
    ):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    found = asked("tools.settings()", tmp_path, PIP_EXTRA_INDEX_URL="d", PIP_INDEX_URL="")
    assert isinstance(found, dict)
    assert (found["index-url"], found["extra-index-url"]) == ("c", "d")


def test_a_wheel_is_found_in_the_index_that_the_settings_name(index: str, tmp_path: Path) -> None:
    found = asked(
        "list(tools.candidates('pip-1-py3-none-any.whl', tools.settings()))",
        tmp_path,
        PIP_INDEX_URL=index,
    )
    address = index.replace("/simple", "/files/pip-1-py3-none-any.whl")
    assert isinstance(found, list) and found[-1] == address


def test_a_folder_of_wheels_is_looked_at_first(tmp_path: Path, index: str) -> None:
    expression = "list(tools.candidates('pip-1-py3-none-any.whl', tools.settings()))"
    found = asked(expression, tmp_path, PIP_FIND_LINKS=str(tmp_path), PIP_INDEX_URL=index)
    assert isinstance(found, list) and found[0] == f"file://{tmp_path}/pip-1-py3-none-any.whl"
