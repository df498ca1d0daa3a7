"""Who the person is at a registry: docker's config.json (`auths`, `credHelpers`, `credsStore`), read and written.

Helpers (`docker-credential-X`) run here, in the person's session, for as long as the person waits; the
daemon is given what they answer. What docker's file does not know is looked for in podman's auth.json, which is
never written. Loaded only where a registry is to be asked.
"""

from __future__ import annotations

import binascii
import fcntl
import os

from dockpy import fastjson, files
from dockpy.client.errors import CommandError
from dockpy.client.output import err
from dockpy.paths import NoHome, home

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dockpy.client.main import Cli

HUB = "https://index.docker.io/v1/"
_HUB_NAMES = ("docker.io", "index.docker.io", HUB)
_TOKEN_USER = "<token>"
_NOT_FOUND = "credentials not found in native keychain"
_LIMIT = 1 << 20


class Auth:
    """One registry's credentials; what is not known is empty. `server` is the key they are kept by."""

    __slots__ = ("identity_token", "password", "registry_token", "server", "username")

    def __init__(
        self,
        server: str,
        username: str = "",
        password: str = "",
        identity_token: str = "",
        registry_token: str = "",
    ) -> None:
        self.server = server
        self.username = username
        self.password = password
        self.identity_token = identity_token
        self.registry_token = registry_token

    def __bool__(self) -> bool:
        return bool(self.username or self.password or self.identity_token or self.registry_token)

    def to_json(self) -> dict[str, str]:
        """The Engine API's AuthConfig."""
        every = {
            "username": self.username,
            "password": self.password,
            "serveraddress": self.server,
            "identitytoken": self.identity_token,
            "registrytoken": self.registry_token,
        }
        return {name: value for name, value in every.items() if value}


def headers(cli: Cli, image: str) -> dict[str, str]:
    """X-Registry-Auth for the registry of a reference; nothing where nothing is known of it."""
    known = Credentials(cli)
    if not known.any:
        return {}
    from dockpy.oci.reference import parse_reference

    reference = parse_reference(image)
    try:
        auth = known.get(reference.domain, reference.path)
    except CommandError as error:
        # Most images need none: the registry tells where this one does.
        err(f"WARNING: {error}\n")
        return {}
    if not auth:
        return {}
    raw = binascii.b2a_base64(fastjson.dumps(auth.to_json()), newline=False)
    return {"X-Registry-Auth": raw.translate(bytes.maketrans(b"+/", b"-_")).decode()}


def hostname(server: str) -> str:
    """A registry's address without scheme and path."""
    _, scheme, rest = server.partition("://")
    return (rest if scheme else server).partition("/")[0]


def key_of(server: str) -> str:
    """What a registry's credentials are kept by: its host, but docker.io's are kept by an old URL."""
    return HUB if server in _HUB_NAMES else server


class Credentials:
    def __init__(self, cli: Cli) -> None:
        self._config = cli.config
        self._environ = cli.environ
        self._path = cli.config_path

    @property
    def any(self) -> bool:
        """Whether there is a place to look at at all."""
        names = ("auths", "credHelpers", "credsStore")
        return (
            any(self._config.get(name) for name in names)
            or "DOCKER_AUTH_CONFIG" in self._environ
            or any(os.path.exists(path) for path in self._podmans())
        )

    def get(self, server: str, path: str = "") -> Auth:
        """What is known of a registry, an empty Auth for nothing; CommandError where a helper fails.

        `path` is the repository's: podman keeps credentials for parts of a registry too.
        """
        key = key_of(server)
        given = self._environ.get("DOCKER_AUTH_CONFIG", "")
        if given:
            auth = _from_file(_auths(_parsed(given.encode(), "DOCKER_AUTH_CONFIG")), key)
            if auth:
                return auth
        helper = self._helper(key)
        auth = _from_file(_auths(self._config), key)
        if helper:
            answer = _ask(helper, "get", key.encode())
            return auth if answer is None else _of_helper(key, answer)
        return auth or self._of_podman(server, path)

    def store(self, auth: Auth) -> None:
        """Keeps credentials by `auth.server`; warns where they stand in the file in clear."""
        helper = self._helper(auth.server)
        entry: dict[str, object] = {}
        if helper:
            user, secret = auth.username, auth.password
            if auth.identity_token:
                user, secret = _TOKEN_USER, auth.identity_token
            told = {"ServerURL": auth.server, "Username": user, "Secret": secret}
            _ask(helper, "store", fastjson.dumps(told))
        else:
            pair = f"{auth.username}:{auth.password}".encode("utf-8", "surrogateescape")
            entry["auth"] = binascii.b2a_base64(pair, newline=False).decode()
            if auth.identity_token:
                entry["identitytoken"] = auth.identity_token
            if auth.registry_token:
                entry["registrytoken"] = auth.registry_token
        changed = self._write(auth.server, entry)
        if changed and auth.password and not helper:
            err(
                f"\nWARNING! Your credentials are stored unencrypted in '{self._path}'.\n"
                "Configure a credential helper to remove this warning. See\n"
                "https://docs.docker.com/go/credential-store/\n\n"
            )

    def erase(self, server: str) -> None:
        helper = self._helper(server)
        if helper:
            _ask(helper, "erase", server.encode())
        if server in _auths(self._config):
            self._write(server, None)

    def _helper(self, key: str) -> str:
        helpers = self._config.get("credHelpers")
        special = helpers.get(key) if isinstance(helpers, dict) else None
        if special is None and isinstance(helpers, dict) and key == HUB:
            special = helpers.get("docker.io")
        named = self._config.get("credsStore") if special is None else special
        return named if isinstance(named, str) else ""

    # The file

    def _write(self, server: str, entry: dict[str, object] | None) -> bool:
        """Changes one entry of `auths` and nothing else; whether that made a difference."""
        try:
            return self._change(server, entry)
        except OSError as error:
            why = "not a directory" if isinstance(error, FileExistsError) else error.strerror
            raise CommandError(
                f"{self._path} cannot be changed: {str(why).lower()};"
                " DOCKER_CONFIG can name another folder, one that you may write to"
            ) from None

    def _change(self, server: str, entry: dict[str, object] | None) -> bool:
        import json  # docker's own layout of the file

        path = os.path.realpath(self._path)
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)  # two logins at once keep both
            try:
                raw = _parsed(files.read_bytes(path, _LIMIT), path)
            except FileNotFoundError:
                raw = {}
            except ValueError as error:
                raise CommandError(f"{error}: nothing is stored in it") from None
            auths = raw.setdefault("auths", {})
            if not isinstance(auths, dict):
                raise CommandError(f'"auths" in {path} is no object: nothing is stored in it')
            old = auths.get(server)
            if entry is None:
                auths.pop(server, None)
            else:
                auths[server] = {**_kept(old), **entry}
            if auths.get(server) == old and _owner(path) is not None:
                return False
            text = json.dumps(raw, indent="\t", ensure_ascii=False)
            owner = _owner(path)
            files.write_atomic(path, text.encode("utf-8", "surrogateescape"), 0o600)
            if owner is not None and owner != _owner(path):
                os.chown(path, *owner)  # sudo, in somebody's home
        finally:
            os.close(folder)
        self._config["auths"] = auths
        return True

    # podman's

    def _podmans(self) -> Iterator[str]:
        named = self._environ.get("REGISTRY_AUTH_FILE", "")
        if named:
            yield named
        runtime = self._environ.get("XDG_RUNTIME_DIR", "")
        if runtime:
            yield f"{runtime}/containers/auth.json"
        config = self._environ.get("XDG_CONFIG_HOME", "")
        try:
            yield f"{config or home(self._environ, os.geteuid()) + '/.config'}/containers/auth.json"
        except NoHome:
            return

    def _of_podman(self, server: str, path: str) -> Auth:
        """The entry for the longest beginning of host/path."""
        host = "docker.io" if server in _HUB_NAMES else hostname(server)
        names = [host]
        for part in path.split("/") if path else ():
            names.append(f"{names[-1]}/{part}")
        for file in self._podmans():
            try:
                auths = _auths(_parsed(files.read_bytes(file, _LIMIT), file))
            except (OSError, ValueError, CommandError):
                continue  # another program's file
            for name in reversed(names):
                if name in auths:
                    auth = _entry(key_of(server), auths[name])
                    if auth:
                        return auth
        return Auth(key_of(server))


def _owner(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_uid, status.st_gid


def _parsed(data: bytes, what: str) -> dict[str, object]:
    try:
        raw = fastjson.loads(data) if data.strip() else {}
    except ValueError as error:
        raise CommandError(f"{what}: {error}") from None
    return raw if isinstance(raw, dict) else {}


def _auths(config: Mapping[str, object]) -> dict[str, object]:
    auths = config.get("auths")
    return auths if isinstance(auths, dict) else {}


def _kept(entry: object) -> dict[str, object]:
    """Of an entry, what is not credentials (docker's old `email`)."""
    ours = ("auth", "username", "password", "identitytoken", "registrytoken")
    known = entry if isinstance(entry, dict) else {}
    return {name: value for name, value in known.items() if name not in ours}


def _from_file(auths: Mapping[str, object], key: str) -> Auth:
    """By the key itself, else by what old versions kept as a URL."""
    if key in auths:
        return _entry(key, auths[key])
    for name, entry in auths.items():
        if hostname(name) == key:
            return _entry(name, entry)
    return Auth(key)


def _entry(server: str, raw: object) -> Auth:
    entry = raw if isinstance(raw, dict) else {}

    def text(name: str) -> str:
        value = entry.get(name)
        return value if isinstance(value, str) else ""

    username, password = text("username"), text("password")
    if text("auth"):
        try:
            pair = binascii.a2b_base64(text("auth")).decode("utf-8", "surrogateescape")
        except ValueError:
            raise CommandError(f"the credentials of {server} are not base64") from None
        username, colon, password = pair.partition(":")
        if not colon or not username:
            raise CommandError(f"the credentials of {server}: invalid auth configuration file")
        password = password.strip("\0")
    return Auth(server, username, password, text("identitytoken"), text("registrytoken"))


def _of_helper(key: str, answer: bytes) -> Auth:
    raw = _parsed(answer, "the credential helper's answer")
    username, secret = str(raw.get("Username") or ""), str(raw.get("Secret") or "")
    if username == _TOKEN_USER:
        return Auth(key, identity_token=secret)
    return Auth(key, username, secret)


def _ask(helper: str, action: str, told: bytes) -> bytes | None:
    """What `docker-credential-HELPER ACTION` answers; None where it has no such credentials."""
    import subprocess

    verb = {"get": "getting", "store": "storing", "erase": "erasing"}[action]
    if "/" in helper or "\0" in helper:
        raise CommandError(f"error {verb} credentials: {helper!r} is no credential helper's name")
    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run([program, action], input=told, stdout=subprocess.PIPE, check=False)
    except FileNotFoundError:
        why = f'exec: "{program}": executable file not found in $PATH'
        raise CommandError(f"error {verb} credentials - err: {why}, out: ``") from None
    except OSError as error:
        why = f"exec: {program}: {error.strerror}"
        raise CommandError(f"error {verb} credentials - err: {why}, out: ``") from None
    if not done.returncode:
        return done.stdout
    said = done.stdout.decode("utf-8", "replace").strip()
    if action != "store" and _NOT_FOUND in said:
        return None
    why = f"exit status {done.returncode}"
    if done.returncode < 0:
        why = f"signal {-done.returncode}"
    raise CommandError(f"error {verb} credentials - err: {why}, out: `{said}`")
