"""Whether bytes were signed by the owner of a public key: the schemes of cosign's SIGNATURE_SPEC that have no parameters.

ECDSA on P-256 and RSA (PKCS #1 v1.5) over SHA-256, and Ed25519 over the bytes themselves. The key is a
SubjectPublicKeyInfo in PEM (RFC 7468, section 13), as `cosign generate-key-pair` and `openssl pkey -pubout` write
it. The arithmetic is not ours: python's `cryptography`, in a process of its own (the daemon runs without site-packages,
and its memory is not for that library), else the `openssl` program.
"""

from __future__ import annotations

import base64
import binascii
import json
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from dockpy.errors import InvalidParameter, Unavailable

KEY_LIMIT = 16 << 10
_TIMEOUT = 60  # seconds; a check takes milliseconds
_BEGIN, _END = "-----BEGIN PUBLIC KEY-----", "-----END PUBLIC KEY-----"

ECDSA, RSA, ED25519 = "ECDSA P-256", "RSA", "Ed25519"
# What stands before an uncompressed point, and before a key of Ed25519 (RFC 5480, RFC 8410): DER leaves no choice.
_P256 = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
_EDWARDS = bytes.fromhex("302a300506032b6570032100")
# rsaEncryption (RFC 3279), behind the four bytes of a sequence of 256 bytes or more.
_RSA = bytes.fromhex("300d06092a864886f70d0101010500")
_RSA_LEAST = 290  # bytes of a key with 2048 bits

_ASK_CRYPTOGRAPHY = """
import base64, json, sys
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding
asked = json.load(sys.stdin)
key = serialization.load_der_public_key(base64.b64decode(asked["key"]))
how = {
    "ECDSA P-256": lambda: (ec.ECDSA(hashes.SHA256()),),
    "RSA": lambda: (padding.PKCS1v15(), hashes.SHA256()),
    "Ed25519": tuple,
}[asked["kind"]]()
def fits(payload, signature):
    try:
        key.verify(base64.b64decode(signature), base64.b64decode(payload), *how)
    except InvalidSignature:
        return False
    return True
json.dump([fits(*one) for one in asked["signed"]], sys.stdout)
"""


@dataclass(frozen=True)
class PublicKey:
    kind: str
    der: bytes

    @property
    def pem(self) -> str:
        lines = textwrap.wrap(base64.b64encode(self.der).decode(), 64)
        return "\n".join((_BEGIN, *lines, _END, ""))


@dataclass(frozen=True)
class Signed:
    payload: bytes
    signature: bytes


def public_key(text: str) -> PublicKey:
    """The one key in a PEM file; InvalidParameter says what else it is."""
    if len(text) > KEY_LIMIT:
        raise InvalidParameter(f"the key is longer than {KEY_LIMIT} bytes: it is no public key")
    _, begin, rest = text.partition(_BEGIN)
    body, end, more = rest.partition(_END)
    if not begin or not end or _BEGIN in more:
        raise InvalidParameter(
            f"the key is not one public key in PEM: a file that begins with '{_BEGIN}', such as cosign.pub"
        )
    try:
        der = base64.b64decode("".join(body.split()), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidParameter("the key is damaged: it is no base64") from None
    if der.startswith(_P256) and len(der) == len(_P256) + 64:
        return PublicKey(ECDSA, der)
    if der.startswith(_EDWARDS) and len(der) == len(_EDWARDS) + 32:
        return PublicKey(ED25519, der)
    if der[4:].startswith(_RSA) and len(der) >= _RSA_LEAST:
        return PublicKey(RSA, der)
    raise InvalidParameter(
        "the key is of a kind that cannot be used here: ECDSA P-256, RSA (2048 bits or more) and Ed25519 can"
    )


def fitting(
    key: PublicKey, signed: Sequence[Signed], *, python: str = "", path: str | None = None
) -> Sequence[bool]:
    """Of each, whether the signature is the key's. Unavailable where nothing is there to find out with.

    Blocking. `python`: an interpreter that may have `cryptography` (this one); `path`: where programs are looked
    for (PATH).
    """
    if not signed:
        return ()
    answer = _by_cryptography(python or sys.executable, key, signed)
    if answer is not None:
        return answer
    openssl = shutil.which("openssl", path=path)
    if openssl is None:
        raise Unavailable(
            "nothing is here to verify signatures with: install the program openssl, or the package cryptography for"
            f" {python or sys.executable}"
        )
    return _by_openssl(openssl, key, signed)


def _by_cryptography(
    python: str, key: PublicKey, signed: Sequence[Signed]
) -> Sequence[bool] | None:
    """None where it is not installed, or does not work."""
    asked = {
        "kind": key.kind,
        "key": _text(key.der),
        "signed": [(_text(one.payload), _text(one.signature)) for one in signed],
    }
    try:
        # -I: its own packages, and nothing that environment, home or current folder hold.
        done = subprocess.run(
            [python, "-I", "-c", _ASK_CRYPTOGRAPHY], input=json.dumps(asked).encode(), env={}, cwd="/",
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=_TIMEOUT, check=True,
        )  # fmt: skip
        answer = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    if not isinstance(answer, list) or len(answer) != len(signed):
        return None
    return [one is True for one in answer]


def _by_openssl(program: str, key: PublicKey, signed: Sequence[Signed]) -> Sequence[bool]:
    with tempfile.TemporaryDirectory(prefix="dockpy-verify-") as folder:  # 0700
        _write(f"{folder}/key", key.pem.encode())
        code, words = _run(program, folder, "pkey", "-pubin", "-in", "key", "-noout")
        if code:
            raise InvalidParameter(f"openssl cannot read the key: {words}")
        return [_fits(program, folder, key, one) for one in signed]


def _fits(program: str, folder: str, key: PublicKey, one: Signed) -> bool:
    _write(f"{folder}/payload", one.payload)
    _write(f"{folder}/signature", one.signature)
    if key.kind != ED25519:
        code, words = _run(
            program, folder, "dgst", "-sha256", "-verify", "key", "-signature", "signature", "payload"
        )  # fmt: skip
        return code == 0 and "Verified OK" in words
    if len(one.signature) != 64:
        return False
    code, words = _run(
        program, folder, "pkeyutl", "-verify", "-pubin", "-inkey", "key", "-rawin", "-in", "payload",
        "-sigfile", "signature",
    )  # fmt: skip
    if "Signature Verif" not in words:  # before 3.0 it knows no -rawin
        raise Unavailable(f"{program} is too old for keys of Ed25519: it has to be 3.0 or newer")
    return code == 0 and "Signature Verified Successfully" in words


def _run(program: str, folder: str, *words: str) -> tuple[int, str]:
    """Status and all that it says."""
    try:
        done = subprocess.run(
            [program, *words], env={"LC_ALL": "C"}, cwd=folder, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=_TIMEOUT, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{program} gives no answer within {_TIMEOUT} seconds") from None
    except OSError as error:
        raise Unavailable(f"{program} does not run: {(error.strerror or '').lower()}") from None
    return done.returncode, done.stdout.decode(errors="replace").strip()


def _write(path: str, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
