"""TLS contexts: the system's authorities, and docker's folder of certificates for each registry. The only ssl.

    certs.d/HOST[:PORT]/ca.crt       an authority more (any *.crt)
    certs.d/HOST[:PORT]/client.cert  shown to the registry, with client.key beside (any pair)

Folders are looked for in all places in turn and add up. A context is made for one client's life and
read from disk then, so a new certificate is used by the next pull.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence

from dockpy.errors import Unavailable

# Where distributions keep the bundle (Go's list): for a Python whose OpenSSL was built for another place.
BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


class TlsContexts:
    """Contexts by host, made when first asked for."""

    def __init__(self, folders: Sequence[str] = ()) -> None:
        self._folders = tuple(folders)
        self._made: dict[tuple[str, bool], ssl.SSLContext] = {}

    def context(self, authority: str, *, verify: bool) -> ssl.SSLContext:
        """For `host[:port]` as the reference spells it. Blocks: reads certificates."""
        key = (authority, verify)
        if key not in self._made:
            self._made[key] = self._make(authority, verify=verify)
        return self._made[key]

    def _make(self, authority: str, *, verify: bool) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        if verify:
            _load_system(context)
        else:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if "/" not in authority and authority not in ("", ".", ".."):
            for folder in self._folders:
                _load_folder(context, f"{folder}/{authority}", verify=verify)
        return context


def _load_system(context: ssl.SSLContext) -> None:
    context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    paths = ssl.get_default_verify_paths()
    if paths.cafile or (paths.capath and os.path.isdir(paths.capath) and os.listdir(paths.capath)):
        return
    for bundle in BUNDLES:
        if os.path.exists(bundle):
            context.load_verify_locations(bundle)
            return


def _load_folder(context: ssl.SSLContext, folder: str, *, verify: bool) -> None:
    try:
        names = sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
    for name in names:
        path, stem = f"{folder}/{name}", name.rpartition(".")[0]
        if name.endswith(".crt") and verify:
            try:
                context.load_verify_locations(path)
            except (OSError, ssl.SSLError) as error:
                raise Unavailable(
                    f"{path} cannot be used as a certificate: {_told(error)}"
                ) from None
        elif name.endswith(".cert"):
            if f"{stem}.key" not in names:
                raise Unavailable(
                    f"missing key {stem}.key for client certificate {name}."
                    " CA certificates must use the extension .crt"
                )
            try:
                context.load_cert_chain(path, f"{folder}/{stem}.key")
            except (OSError, ssl.SSLError) as error:
                raise Unavailable(f"{path} cannot be used with its key: {_told(error)}") from None
        elif name.endswith(".key") and f"{stem}.cert" not in names:
            raise Unavailable(f"missing client certificate {stem}.cert for key {name}")


def server_context(certificate: str, key: str) -> ssl.SSLContext:
    """For a server of ours. Blocks: reads both files (PEM)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except (OSError, ssl.SSLError) as error:
        raise Unavailable(
            f"{certificate} and {key} are no certificate with its key: {_told(error)}"
        ) from None
    return context


def _told(error: OSError) -> str:
    """What is wrong with a file, without the library's numbers and places."""
    said = error.reason if isinstance(error, ssl.SSLError) else (error.strerror or "").lower()
    return said or "it is not PEM, or not what it should be"


def reason(error: BaseException) -> str:
    """What TLS did not like, in words; "" where it was not TLS."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, ssl.SSLCertVerificationError):
            return f"tls: failed to verify certificate: {found.verify_message}"
        if isinstance(found, ssl.SSLError):
            return f"tls: {(found.reason or str(found)).lower().replace('_', ' ')}"
        found = found.__cause__ or found.__context__
    return ""
