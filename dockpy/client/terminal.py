"""The person's terminal: raw mode that is always undone, its size, and the keys that detach from a
container.
"""

from __future__ import annotations

import os

from dockpy.client.errors import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_DETACH_KEYS = "ctrl-p,ctrl-q"


def size(fd: int) -> tuple[int, int] | None:
    """(height, width) of the terminal at `fd`; None where there is none, or it does not know."""
    import fcntl
    import termios

    try:
        raw = fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8))
    except OSError:
        return None
    import sys

    height, width = (int.from_bytes(raw[at : at + 2], sys.byteorder) for at in (0, 2))
    return (height, width) if height or width else None


class Raw:
    """`with Raw(fd):` the terminal at `fd` passes every key on; whatever happens, it is as before
    afterwards.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._before: list[object] | None = None

    def __enter__(self) -> None:
        import termios

        before = termios.tcgetattr(self._fd)
        attributes = [list(part) if isinstance(part, list) else part for part in before]
        clear = termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP
        clear |= termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON
        iflag, oflag, cflag, lflag = attributes[:4]
        assert isinstance(iflag, int) and isinstance(oflag, int)
        assert isinstance(cflag, int) and isinstance(lflag, int)
        attributes[0] = iflag & ~clear
        attributes[1] = oflag & ~termios.OPOST
        attributes[2] = (cflag & ~(termios.CSIZE | termios.PARENB)) | termios.CS8
        attributes[3] = lflag & ~(
            termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN
        )
        control = attributes[6]
        assert isinstance(control, list)
        control[termios.VMIN], control[termios.VTIME] = 1, 0
        self._before = before
        termios.tcsetattr(self._fd, termios.TCSADRAIN, attributes)

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            import termios

            before, self._before = self._before, None
            try:
                termios.tcsetattr(self._fd, termios.TCSADRAIN, before)  # type: ignore[arg-type]  # as tcgetattr gave it
            except termios.error:
                pass  # the terminal is gone


class BadKeys(ValueError):
    """Not a sequence of detach keys."""


def detach_keys(text: str) -> bytes:
    """`ctrl-p,ctrl-q` as the bytes that a terminal sends."""
    keys = bytearray()
    for word in text.split(","):
        if len(word) == 1 and ord(word) < 128:
            keys.append(ord(word))
        elif word.startswith("ctrl-") and len(word) == 6:
            letter = word[5]
            if not ("a" <= letter <= "z" or letter in "@[\\]^_"):
                raise BadKeys(f"Unknown character: '{word}'")
            keys.append(ord(letter) & 0x1F)
        else:
            raise BadKeys(f"Unknown character: '{word}'")
    return bytes(keys)


def detaching(flag: str, config: Mapping[str, object], code: int = 1) -> tuple[str, bytes]:
    """The chosen keys, as text and as bytes; CommandError (with that exit code) where they are none."""
    keys = chosen_keys(flag, config)
    try:
        return keys, detach_keys(keys)
    except BadKeys as error:
        raise CommandError(f"invalid detach keys ({keys}): {error}", code) from None


def chosen_keys(flag: str, config: Mapping[str, object]) -> str:
    """The keys of the flag, else of config.json's detachKeys, else docker's."""
    configured = config.get("detachKeys")
    return flag or (configured if isinstance(configured, str) else "") or DEFAULT_DETACH_KEYS


class DetachDetector:
    """Watches typed bytes for the detach sequence; holds back what may become one."""

    __slots__ = ("_held", "_keys", "detached")

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = b""
        self.detached = False

    def feed(self, data: bytes) -> bytes:
        """The bytes to pass on. After the sequence was seen, `detached` is set and nothing more is
        passed.
        """
        if not self._keys:
            return data
        passed = bytearray()
        for byte in data:
            held = self._held + bytes((byte,))
            if held == self._keys:
                self.detached = True
                return bytes(passed)
            # The longest end of what was typed that may still become the sequence is kept back.
            while held and not self._keys.startswith(held):
                passed.append(held[0])
                held = held[1:]
            self._held = held
        return bytes(passed)


def is_terminal(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False
