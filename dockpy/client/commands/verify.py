"""`image verify`: the key is read here, the signatures are looked for by the daemon, with the person's credentials."""

from __future__ import annotations

from dockpy.client import credentials, progress
from dockpy.client.connection import decoded
from dockpy.client.errors import CommandError
from dockpy.client.output import out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dockpy.client.flags import Options
    from dockpy.client.main import Cli

_LIMIT = 16 << 10


def image_verify_command(cli: Cli, options: Options, arguments: list[str]) -> int:
    path = options.text("key")
    if not path:
        raise CommandError("--key is needed: the signer's public key (PEM), such as cosign.pub")
    response = cli.connection.request(
        "POST",
        "/dockpy/verify",
        {"name": arguments[0]},
        json={"Key": _key(path)},
        headers={**progress.proxies(cli), **credentials.headers(cli, arguments[0])},
    )
    raw = decoded(response.body)
    if not isinstance(raw, dict):
        raise CommandError("the daemon's answer tells of no signature")
    count = raw.get("Signatures")
    noun = "signature" if count == 1 else "signatures"
    out(f"Verified {raw.get('Name')}\n{count} {noun} by the key {path}\n")
    return 0


def _key(path: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(_LIMIT + 1)
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}") from None
    # What is secret stays here.
    if len(data) > _LIMIT or b"-----BEGIN PUBLIC KEY-----" not in data or b"PRIVATE KEY" in data:
        raise CommandError(f"{path} is not a public key in PEM, such as cosign.pub")
    return data.decode("ascii", "replace")
