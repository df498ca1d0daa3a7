"""config.json, credential helpers, `login` and `logout`: real files and programs, and a daemon that records."""

from __future__ import annotations

import base64
import json
import os
import pty
import select
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.client.recorder import CLIENT, Recorder, Request, reply

HUB = "https://index.docker.io/v1/"
HELPER = """#!/bin/sh
# Keeps one secret a server in files of its folder, and records what it was asked.
echo "$1" >> "$KEPT/asked"
case $1 in
  store) cat > "$KEPT/stored";;
  get) read -r server; echo "$server" >> "$KEPT/asked"
    if [ -s "$KEPT/answer" ]; then cat "$KEPT/answer"
    else echo "credentials not found in native keychain"; exit 1; fi;;
  erase) cat > "$KEPT/erased";;
esac
"""


def decoded(header: str) -> Any:
    return json.loads(base64.urlsafe_b64decode(header))


class Registry:
    """The daemon's side: `me` with `secret` may come in."""

    def __init__(self, token: str = "") -> None:
        self.token = token

    def __call__(self, request: Request, _: socket.socket) -> bytes:
        if request.target.endswith("/auth"):
            if json.loads(request.body).get("password") != "secret":
                return reply(401, b'{"message":"Get \\"https://r/v2/\\": unauthorized: no"}')
            answer = {"Status": "Login Succeeded", "IdentityToken": self.token}
            return reply(200, json.dumps(answer).encode())
        return reply(200, b"")


@pytest.fixture
def person(tmp_path: Path) -> Iterator[Person]:
    with Recorder(Registry()) as daemon:
        yield Person(tmp_path, daemon)


class Person:
    def __init__(self, folder: Path, daemon: Recorder) -> None:
        self.folder = folder
        self.daemon = daemon
        self.path = folder / "config.json"
        self.environ = {"DOCKER_CONFIG": str(folder), "KEPT": str(folder)}

    def config(self) -> Any:
        return json.loads(self.path.read_text())

    def write(self, config: object) -> None:
        self.path.write_text(json.dumps(config))

    def helper(self, name: str = "toy", text: str = HELPER) -> None:
        programs = self.folder / "programs"
        programs.mkdir(exist_ok=True)
        program = programs / f"docker-credential-{name}"
        program.write_text(text)
        program.chmod(0o755)
        self.environ["PATH"] = f"{programs}:{os.environ['PATH']}"

    def do(self, *words: str, input: bytes | None = None) -> tuple[int, str, str]:
        more: dict[str, Any] = {} if input is None else {"input": input}
        done = self.daemon.run(CLIENT, *words, env=self.environ, **more)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def sent(self, image: str) -> Any:
        """X-Registry-Auth of a pull of `image`; None for none."""
        self.daemon.requests.clear()
        self.do("pull", "-q", image)
        header = self.daemon.requests[-1].headers.get("x-registry-auth", "")
        return decoded(header) if header else None


def test_login_keeps_what_the_daemon_has_tried(person: Person) -> None:
    person.write({"auths": {"a": {"auth": "YTpi"}}, "HttpHeaders": {"X": "y"}, "ours": [1]})
    code, out, err = person.do("login", "-u", "me", "-p", "secret", "https://r.example:5000/v2/")
    assert (code, out) == (0, "Login Succeeded\n")
    assert err.startswith(
        "WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n"
        f"\nWARNING! Your credentials are stored unencrypted in '{person.path}'.\n"
        "Configure a credential helper to remove this warning. See\n"
    )
    [asked] = person.daemon.requests
    assert json.loads(asked.body) == {
        "username": "me",
        "password": "secret",
        "serveraddress": "r.example:5000",
    }
    assert person.config() == {
        "auths": {"a": {"auth": "YTpi"}, "r.example:5000": {"auth": "bWU6c2VjcmV0"}},
        "HttpHeaders": {"X": "y"},
        "ours": [1],
    }
    assert person.path.read_text().startswith('{\n\t"auths": {\n\t\t"a"')
    assert stat.S_IMODE(person.path.stat().st_mode) == 0o600
    assert [one.name for one in person.folder.iterdir()] == ["config.json"]
    assert person.sent("r.example:5000/a/b:c")["password"] == "secret"
    assert person.sent("elsewhere.example/a") is None
    assert person.do("login", "r.example:5000")[:2] == (0, "Login Succeeded\n")


def test_docker_io_has_its_old_key(person: Person) -> None:
    assert person.do("login", "-u", "me", "--password-stdin", input=b"secret\n")[0] == 0
    assert list(person.config()["auths"]) == [HUB]
    for image in ("debian", "docker.io/me/app:v1", "me/app@sha256:" + "0" * 64):
        assert person.sent(image)["serveraddress"] == HUB
    assert person.do("logout") == (0, f"Removing login credentials for {HUB}\n", "")
    assert person.config() == {"auths": {}}


def test_a_token_is_kept_in_place_of_the_password(tmp_path: Path) -> None:
    with Recorder(Registry("again")) as daemon:
        person = Person(tmp_path, daemon)
        code, _, err = person.do("login", "-u", "me", "--password-stdin", "r", input=b"secret")
        assert (code, err) == (0, "")
        entry = {"auth": base64.b64encode(b"me:").decode(), "identitytoken": "again"}
        assert person.config()["auths"] == {"r": entry}
        assert person.sent("r:80/x") is None
        person.write({"auths": {"r.x": entry}})
        assert person.sent("r.x/y")["identitytoken"] == "again"


@pytest.mark.parametrize(
    ("words", "input", "text"),
    [
        (["-u", "me", "-p", "wrong"], b"", 'Error response from daemon: Get "https://r/v2/": unauthorized: no\n'),
        (["-u", "me"], b"", "Error: Cannot perform an interactive login from a non TTY device\n"),
        (["--password-stdin"], b"x", "the --password-stdin option requires --username to be set\n"),
        (["-u", "me", "-p", "x", "--password-stdin"], b"", "conflicting options: cannot specify both --password and --password-stdin\n"),
        (["-u", "me", "--password-stdin"], b" \n", "password is empty\n"),
        (["-u", "", "-p", "x"], b"", "username is empty\n"),
    ],
)  # fmt: skip
def test_a_login_that_fails_says_why_and_keeps_nothing(
    person: Person, words: list[str], input: bytes, text: str
) -> None:
    code, out, err = person.do("login", *words, "r", input=input)
    assert (code, out) == (1, "")
    assert err.endswith(text)
    assert not person.path.exists()


def test_known_credentials_that_are_no_good_are_told(person: Person) -> None:
    person.write({"auths": {"r": {"auth": base64.b64encode(b"me:old").decode()}}})
    code, _, err = person.do("login", "r")
    assert code == 1
    assert err.startswith("Authenticating with existing credentials... [Username: me]\n")
    assert "Stored credentials invalid or expired\n" in err


def test_a_file_that_is_no_json_is_left_alone(person: Person) -> None:
    person.path.write_text("{not json")
    code, _, err = person.do("login", "-u", "me", "--password-stdin", "r", input=b"secret")
    assert code == 1
    assert "Error saving credentials: " in err and str(person.path) in err
    assert person.path.read_text() == "{not json"


def test_a_place_that_takes_no_file_is_told_with_what_to_do(person: Person) -> None:
    for place, why in (("a-file", "not a directory"), ("/proc", "no such file or directory")):
        folder = person.folder / place
        if place == "a-file":
            folder.write_text("")
        person.environ["DOCKER_CONFIG"] = str(folder)
        code, out, err = person.do("login", "-u", "me", "--password-stdin", "r", input=b"secret")
        assert (code, out) == (1, "")
        assert err.splitlines()[-1] == (
            f"Error saving credentials: {folder}/config.json cannot be changed: {why};"
            " DOCKER_CONFIG can name another folder, one that you may write to"
        )


def test_a_config_that_cannot_be_read_is_dockers_warning(person: Person) -> None:
    person.path.mkdir()
    _, _, err = person.do("pull", "-q", "r/x")
    assert f"WARNING: Error loading config file: open {person.path}: is a directory\n" in err


def test_a_link_to_the_file_stays_one(person: Person) -> None:
    target = person.folder / "kept" / "real.json"
    target.parent.mkdir()
    person.path.symlink_to(target)
    assert person.do("login", "-u", "me", "--password-stdin", "r", input=b"secret")[0] == 0
    assert person.path.is_symlink() and "r" in json.loads(target.read_text())["auths"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root writes other users' files")
def test_somebodys_file_stays_theirs(person: Person) -> None:
    person.write({})
    os.chown(person.path, 1234, 5678)
    assert person.do("login", "-u", "me", "--password-stdin", "r", input=b"secret")[0] == 0
    status = person.path.stat()
    assert (status.st_uid, status.st_gid) == (1234, 5678) and "r" in person.config()["auths"]


def test_logout_forgets_all_spellings(person: Person) -> None:
    old = {"auth": "YTpi"}
    person.write({"auths": {"r": old, "https://r": old, "http://r": old, "s": old}})
    assert person.do("logout", "https://r/v1/")[:2] == (0, "Removing login credentials for r\n")
    assert person.config() == {"auths": {"s": old}}


def test_logout_tells_of_each_secret_that_stays(person: Person) -> None:
    person.write({"credHelpers": {"r": "lost"}})
    code, _, err = person.do("logout", "r")
    assert code == 0
    assert err.startswith("WARNING: could not erase credentials:\nr: error erasing credentials")


def test_the_terminal_does_not_show_the_password(person: Person) -> None:
    near, far = pty.openpty()
    environ = {
        **person.environ,
        "PATH": os.environ["PATH"],
        "DOCKER_HOST": f"unix://{person.daemon.path}",
    }
    client = subprocess.Popen(
        [*CLIENT, "login", "r"], stdin=far, stdout=far, stderr=far, env=environ
    )
    os.close(far)

    def until(text: bytes) -> bytes:
        seen = b""
        deadline = time.monotonic() + 10
        while text not in seen and time.monotonic() < deadline:
            if not select.select([near], [], [], 1)[0]:
                continue
            try:
                seen += os.read(near, 4096)
            except OSError:
                break
        return seen

    assert until(b"Username: ").endswith(b"Username: ")
    os.write(near, b"me\n")
    assert b"Password: " in until(b"Password: ")
    os.write(near, b"secret\n")
    shown = until(b"Login Succeeded")
    assert b"Login Succeeded" in shown and b"secret" not in shown
    assert client.wait(10) == 0
    os.close(near)


# Helpers


def test_a_helper_keeps_the_secret_and_is_asked_for_it(person: Person) -> None:
    person.helper()
    person.write({"credHelpers": {"r.x": "toy"}, "credsStore": "none"})
    code, _, err = person.do("login", "-u", "me", "--password-stdin", "r.x", input=b"secret")
    assert (code, err) == (0, "")
    stored = (person.folder / "stored").read_text()
    assert json.loads(stored) == {"ServerURL": "r.x", "Username": "me", "Secret": "secret"}
    assert "secret" not in person.path.read_text()
    (person.folder / "answer").write_text(stored)
    assert person.sent("r.x/y")["password"] == "secret"
    (person.folder / "answer").write_text('{"Username": "<token>", "Secret": "again"}')
    assert person.sent("r.x/y") == {"identitytoken": "again", "serveraddress": "r.x"}
    (person.folder / "answer").write_text("")
    assert person.sent("r.x/y") is None
    assert person.do("logout", "r.x")[0] == 0
    assert (person.folder / "erased").read_text()
    asked = (person.folder / "asked").read_text().split("\n")
    assert asked[:2] == ["store", "get"]


def test_a_helper_that_is_not_there_or_fails_is_told(person: Person) -> None:
    person.write({"credsStore": "gone"})
    text = 'exec: "docker-credential-gone": executable file not found in $PATH'
    code, _, err = person.do("pull", "-q", "debian")
    assert f"WARNING: error getting credentials - err: {text}, out: ``\n" in err
    assert code == 0
    code, _, err = person.do("login", "-u", "me", "--password-stdin", "r", input=b"secret")
    assert (code, err) == (
        1,
        f"Error saving credentials: error storing credentials - err: {text}, out: ``\n",
    )
    person.helper("gone", "#!/bin/sh\necho the keyring is locked\nexit 3\n")
    _, _, err = person.do("pull", "-q", "debian")
    assert "err: exit status 3, out: `the keyring is locked`" in err


# Elsewhere


def test_podmans_file_and_the_environment_are_read(person: Person) -> None:
    other = person.folder / "auth.json"
    person.environ["REGISTRY_AUTH_FILE"] = str(other)

    def auth(text: str) -> dict[str, str]:
        return {"auth": base64.b64encode(text.encode()).decode()}

    other.write_text(
        json.dumps({"auths": {"r.x": auth("a:whole"), "r.x/team": auth("a:part"), "docker.io": auth("a:hub")}})
    )  # fmt: skip
    assert person.sent("r.x/alone")["password"] == "whole"
    assert person.sent("r.x/team/app")["password"] == "part"
    assert person.sent("debian")["password"] == "hub"
    person.write({"auths": {"r.x": auth("a:docker")}})
    assert person.sent("r.x/team/app")["password"] == "docker"
    person.environ["DOCKER_AUTH_CONFIG"] = json.dumps({"auths": {"r.x": auth("a:given")}})
    assert person.sent("r.x/team/app")["password"] == "given"
    assert other.read_text().count("auth") == 4
