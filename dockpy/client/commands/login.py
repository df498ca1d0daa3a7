"""`login` and `logout`: the daemon tries the credentials, the client keeps them."""

from __future__ import annotations

import os

from dockpy.client.credentials import HUB, Auth, Credentials, hostname
from dockpy.client.errors import ApiError, CommandError
from dockpy.client.output import err, out
from dockpy.client.terminal import is_terminal
from dockpy.errors import DockpyError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dockpy.client.flags import Options
    from dockpy.client.main import Cli

_REGISTER = (
    "Log in with your Docker ID or email address to push and pull images from Docker Hub."
    " If you don't have a Docker ID, head over to https://hub.docker.com/ to create one.\n"
)
_SECRET_LIMIT = 1 << 20


def login_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    username, password = options.text("username"), _password(options)
    server = _server(arguments)
    known = Credentials(cli)
    auth = Auth(server)
    if not username and not password:
        auth = known.get(server)
        auth.server = server
        if auth.username and auth.password and (said := _try_again(cli, known, auth)):
            out(f"{said}\n")
            return 0
    if (not username or not password) and not is_terminal(0):
        raise CommandError("Error: Cannot perform an interactive login from a non TTY device")
    username = username.strip() or _ask_username(auth.username, server)
    password = password or _ask_password()
    said = _login(cli, known, Auth(server, username, password))
    out(f"{said}\n")
    return 0


def _password(options: Options) -> str:
    """Of the flags, or of stdin; "" where it is to be asked for."""
    password = options.text("password")
    if options.on("password-stdin"):
        if options.given("password"):
            raise CommandError(
                "conflicting options: cannot specify both --password and --password-stdin"
            )
        if not options.given("username"):
            raise CommandError("the --password-stdin option requires --username to be set")
    for name in ("username", "password"):
        if options.given(name) and not options.text(name):
            raise CommandError(f"{name} is empty")
    if password:
        err("WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n")
    return _secret() if options.on("password-stdin") else password


def _secret() -> str:
    """All of stdin but the last line's end."""
    data = bytearray()
    while chunk := os.read(0, 1 << 16):
        data += chunk
        if len(data) > _SECRET_LIMIT:
            raise CommandError(f"the password is longer than {_SECRET_LIMIT} bytes")
    text = data.decode("utf-8", "surrogateescape")
    for end in ("\r\n", "\n", "\r"):
        if text.endswith(end):
            text = text[: -len(end)]
            break
    if not text.strip():
        raise CommandError("password is empty")
    return text


def _server(arguments: list[str]) -> str:
    named = arguments[0] if arguments else ""
    return HUB if named in ("", "docker.io", HUB) else hostname(named)


def _try_again(cli: Cli, known: Credentials, auth: Auth) -> str:
    """With what is known already; "" where that is no good."""
    err(f"Authenticating with existing credentials... [Username: {auth.username}]\n")
    err("To login with a different account, run 'dockpy logout' followed by 'dockpy login'\n\n")
    try:
        return _login(cli, known, auth)
    except ApiError as error:
        if error.status == 401:
            err("Stored credentials invalid or expired\n")
        else:
            err(f"Login did not succeed, error: {error}\n")
    return ""


def _login(cli: Cli, known: Credentials, auth: Auth) -> str:
    raw = cli.connection.post("/auth", json=auth.to_json())
    reply = raw if isinstance(raw, dict) else {}
    token = reply.get("IdentityToken")
    if isinstance(token, str) and token:
        auth = Auth(auth.server, auth.username, identity_token=token)
    try:
        known.store(auth)
    except DockpyError as error:
        raise CommandError(f"Error saving credentials: {error}") from None
    return str(reply.get("Status") or "Login Succeeded")


def _ask_username(default: str, server: str) -> str:
    if server == HUB:
        out(_REGISTER)
    out(f"Username ({default}): " if default else "Username: ")
    username = _line().strip() or default
    if not username:
        raise CommandError("Error: Non-null Username Required")
    return username


def _ask_password() -> str:
    import termios

    before = termios.tcgetattr(0)
    silent = list(before)
    silent[3] &= ~termios.ECHO
    # Before the prompt, after which somebody may type at once.
    termios.tcsetattr(0, termios.TCSADRAIN, silent)
    try:
        out("Password: ")
        password = _line()
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
        out("\n")
    if not password:
        raise CommandError("Error: Password Required")
    return password


def _line() -> str:
    """One line of the terminal, which gives no more at once."""
    data = os.read(0, 1 << 16)
    return data.decode("utf-8", "surrogateescape").rstrip("\r\n")


def logout_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    known = Credentials(cli)
    server = arguments[0] if arguments and arguments[0] != "docker.io" else HUB
    names = [server]
    if server != HUB:
        host = hostname(server)
        # By all that older versions have kept it by.
        names = list(dict.fromkeys((server, host, f"http://{host}", f"https://{host}")))
        server = host
    out(f"Removing login credentials for {server}\n")
    failures = []
    for name in names:
        try:
            known.erase(name)
        except DockpyError as error:
            failures.append(f"{name}: {error}\n")
    if failures:  # docker's only where all have failed: but each is a secret that is still there
        err("WARNING: could not erase credentials:\n" + "".join(failures))
    return 0
