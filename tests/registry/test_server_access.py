"""Who may use the server, over TLS, and what it refuses at its start."""

from __future__ import annotations

import base64
import json
import os
import shutil
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dockpy.registry.main import main
from tests.house.sources import TOP
from tests.registry.serving import Serving

# "U*U" at cost 5 (Openwall's vector), and the same at the cost of htpasswd -B -C 8 made by libcrypt.
HTPASSWD = "me:$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW\n"


@dataclass(frozen=True)
class Keys:
    certificate: Path
    key: Path

    @property
    def flags(self) -> tuple[str, str]:
        return f"--tls-cert={self.certificate}", f"--tls-key={self.key}"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    if shutil.which("openssl") is None:
        pytest.skip("this machine lacks openssl")
    folder = tmp_path_factory.mktemp("keys")
    keys = Keys(folder / "cert.pem", folder / "key.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", keys.key, "-out", keys.certificate],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return keys


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory, keys: Keys) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("locked")
    (folder / "htpasswd").write_text(HTPASSWD)
    serving = Serving(folder / "store", *keys.flags, f"--htpasswd={folder / 'htpasswd'}")
    yield serving
    assert serving.stop() == 0


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def test_only_with_the_right_password(locked: Serving, keys: Keys) -> None:
    context = ssl.create_default_context(cafile=str(keys.certificate))
    for headers in ({}, basic("me", "wrong"), basic("you", "U*U"), {"Authorization": "Bearer x"}):
        for path in ("/v2/", "/v2/a/tags/list", "/v2/_catalog", "/elsewhere"):
            answer = locked.ask("GET", path, headers=headers, context=context)
            assert (answer.status, answer.code) == (401, "UNAUTHORIZED")
            assert answer.headers["www-authenticate"].startswith("Basic realm=")
    for _ in range(2):
        answer = locked.ask("GET", "/v2/", headers=basic("me", "U*U"), context=context)
        assert answer.status == 200


def test_bodies_through_tls(locked: Serving, keys: Keys) -> None:
    import hashlib

    context = ssl.create_default_context(cafile=str(keys.certificate))
    data = bytes(range(256)) * 20_000
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    me = basic("me", "U*U")
    path = f"/v2/a/blobs/uploads/?digest={digest}"
    assert locked.ask("POST", path, data, me, context=context).status == 201
    answer = locked.ask("GET", f"/v2/a/blobs/{digest}", headers=me, context=context)
    assert answer.body == data
    part = {**me, "Range": "bytes=1000-1999"}
    answer = locked.ask("GET", f"/v2/a/blobs/{digest}", headers=part, context=context)
    assert (answer.status, answer.body) == (206, data[1000:2000])


def test_plain_http_at_the_tls_port_is_hung_up_on(locked: Serving) -> None:
    with pytest.raises((ConnectionError, OSError)):
        locked.ask("GET", "/v2/")


def test_an_unknown_name_takes_as_long_as_a_wrong_password(tmp_path: Path) -> None:
    """At a cost of some milliseconds, which the loopback's noise does not hide."""
    made = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CRYPT], capture_output=True, text=True, check=True
    )
    (tmp_path / "htpasswd").write_text(f"me:{made.stdout}")
    serving = Serving(tmp_path / "store", f"--htpasswd={tmp_path / 'htpasswd'}")
    try:
        times: dict[str, list[float]] = {"me": [], "you": []}
        for number in range(10):
            for user, spent in times.items():
                begun = time.perf_counter()
                answer = serving.ask("GET", "/v2/", headers=basic(user, f"wrong {number}"))
                spent.append(time.perf_counter() - begun)
                assert answer.status == 401
        known, unknown = (min(spent) for spent in times.values())
        assert 0.5 < known / unknown < 2, times
        assert statistics.median(times["you"]) > 0.01
    finally:
        serving.stop()


CRYPT = """
import ctypes
for name in ("libcrypt.so.2", "libcrypt.so.1", None):
    try:
        crypt = ctypes.CDLL(name).crypt
        break
    except (OSError, AttributeError):
        continue
crypt.restype = ctypes.c_char_p
print(crypt(b"right", b"$2b$09$CCCCCCCCCCCCCCCCCCCCC.").decode(), end="")
"""


def test_accounts_are_read_again(tmp_path: Path) -> None:
    file = tmp_path / "htpasswd"
    file.write_text(HTPASSWD)
    serving = Serving(tmp_path / "store", f"--htpasswd={file}")
    try:
        assert serving.ask("GET", "/v2/", headers=basic("me", "U*U")).status == 200
        file.write_text(HTPASSWD.replace("me:", "someone:"))
        assert serving.ask("GET", "/v2/", headers=basic("me", "U*U")).status == 401
        assert serving.ask("GET", "/v2/", headers=basic("someone", "U*U")).status == 200
        file.write_text("nonsense")  # a mistake locks nobody out, and nobody in
        assert serving.ask("GET", "/v2/", headers=basic("someone", "U*U")).status == 200
        assert serving.ask("GET", "/v2/", headers=basic("me", "U*U")).status == 401
    finally:
        serving.stop()
    assert "line 1: not USER:BCRYPT" in serving.errors


# -------------------------------------------------------------------------- refused at start


def serve(tmp_path: Path, *flags: str) -> str:
    result = subprocess.run(
        [sys.executable, "-m", "dockpy", "registry", "serve", f"--store={tmp_path / 'store'}",
         *flags],
        cwd=TOP,
        capture_output=True,
        text=True,
        timeout=20,
    )  # fmt: skip
    assert result.returncode == 1
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1, result.stderr
    return result.stderr


def told(capsys: pytest.CaptureFixture[str], **settings: object) -> str:
    """What the process itself says to settings that it refuses."""
    out, into = os.pipe()
    os.write(into, json.dumps({"listen": "127.0.0.1:0", **settings}).encode())
    os.close(into)
    assert main([str(out)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1, said.err
    return said.err


def test_beyond_loopback_tls_and_passwords_are_required(
    tmp_path: Path, keys: Keys, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    encrypted = {"certificate": str(keys.certificate), "key": str(keys.key)}
    for settings in ({}, encrypted, {"htpasswd": str(tmp_path / "htpasswd")}):
        said = told(capsys, store=str(tmp_path / "store"), listen="0.0.0.0:0", **settings)
        assert "0.0.0.0 is not this host's loopback" in said
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"listen": "127.0.0.1:99999"}, "HOST:PORT is wanted"),
        ({"certificate": "/dev/null"}, "--tls-cert and --tls-key are wanted together"),
        ({"certificate": "/dev/null", "key": "/dev/null"}, "are no certificate with its key"),
        ({"certificate": "/no/file", "key": "/no/file"}, "are no certificate with its key"),
        ({"htpasswd": "/no/file"}, "/no/file: no such file or directory"),
        ({"htpasswd": "/etc/hostname"}, "/etc/hostname, line 1: not USER:BCRYPT"),
        ({"store": "/dev/null"}, "/dev/null cannot be used"),
        ({"upstream": "http://registry.example"}, "http://registry.example/ is not encrypted"),
        ({"upstream": "https://registry.example/path"}, "a registry has no path"),
        ({"upstream": "ftp://registry.example"}, "ftp://registry.example"),
        ({"upstream": "docker.io", "images": "/images"}, "do not go together"),
    ],
)
def test_mistakes_are_told_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], settings: dict[str, object], said: str
) -> None:
    assert said in told(capsys, **{"store": str(tmp_path / "store"), **settings})


def test_one_server_a_folder_and_a_port(tmp_path: Path) -> None:
    serving = Serving(tmp_path / "store")
    try:
        assert "HOST:PORT is wanted" in serve(tmp_path, "--listen=nonsense")
        assert "another registry serves" in serve(tmp_path, "--listen=127.0.0.1:0")
        said = serve(tmp_path / "other", f"--listen=127.0.0.1:{serving.port}")
        assert "address already in use" in said
    finally:
        assert serving.stop() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root hides a library")
def test_passwords_without_a_libcrypt_are_refused_at_the_start(tmp_path: Path) -> None:
    listed = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True).stdout
    libraries = [line.split()[-1] for line in listed.splitlines() if "libcrypt.so" in line]
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    serve = f"{sys.executable} -m dockpy registry serve --listen=127.0.0.1:0 --store={tmp_path}/s"
    hide = " && ".join(f"mount --bind /dev/null {library}" for library in libraries)
    result = subprocess.run(
        ["unshare", "-m", "sh", "-c", f"{hide} && {serve} --htpasswd={tmp_path}/htpasswd"],
        cwd=TOP,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert result.returncode == 1
    assert result.stderr == (
        "dockpy registry: --htpasswd needs a system libcrypt that knows bcrypt, and this host has none\n"
    )
