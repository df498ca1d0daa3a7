"""bcrypt by the system's libcrypt (crypt_r(3)), the only ctypes of this room.

libcrypt.so.2 is libxcrypt's, libcrypt.so.1 glibc's or libxcrypt's under the old name, and musl has the
function in its libc. Whether bcrypt is among what it knows, a known answer tells.
"""

from __future__ import annotations

import ctypes
import hmac
import os

from dockpy.errors import Unavailable

# More than any libcrypt's struct crypt_data: libxcrypt 32 KiB, glibc 131,232 bytes.
_SCRATCH = 256 * 1024

# Password "U*U" (Openwall's test vectors).
_KNOWN = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"


class Bcrypt:
    def __init__(self) -> None:
        """Unavailable where there is no libcrypt, or none that knows bcrypt."""
        for name in ("libcrypt.so.2", "libcrypt.so.1", None):
            try:
                self._crypt = ctypes.CDLL(name, use_errno=True).crypt_r
            except (OSError, AttributeError):
                continue
            self._crypt.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p)
            self._crypt.restype = ctypes.c_char_p
            if self.verify("U*U", _KNOWN):
                return
        raise Unavailable(
            "--htpasswd needs a system libcrypt that knows bcrypt, and this host has none"
        )

    def verify(self, password: str, hashed: str) -> bool:
        """Whether `hashed` was made of `password`; compares in constant time. Slow by design."""
        scratch = ctypes.create_string_buffer(_SCRATCH)
        secret = password.encode("utf-8", "surrogateescape")
        found = self._crypt(secret, hashed.encode("ascii"), scratch) or b"*"
        return hmac.compare_digest(found, hashed.encode("ascii")) and b"\0" not in secret

    def nobodys(self, like: str) -> str:
        """A hash of no password, as costly to verify as `like`."""
        letters = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
        salt = "".join(letters[byte & 63] for byte in os.urandom(21))
        return f"{like[:7]}{salt}.{'.' * 31}"
