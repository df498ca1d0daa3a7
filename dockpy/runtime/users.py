"""Who runs: docker's reading of "name|uid[:group|gid]" against the image's own passwd and group
files.

Pure: the files come as bytes, read by the caller beneath the container's root with a bound on
their size.
"""

from __future__ import annotations

from dataclasses import dataclass

from dockpy.runtime.errors import SetupError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MOST_ID = (1 << 31) - 1
# Enough for any image; a longer file is cut, as if the rest were not there.
FILE_LIMIT = 8 << 20


@dataclass(frozen=True)
class Identity:
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


@dataclass(frozen=True)
class _Passwd:
    name: str
    uid: int
    gid: int
    home: str


@dataclass(frozen=True)
class _Group:
    name: str
    gid: int
    members: tuple[str, ...]


def resolve(user: str, extra_groups: Sequence[str], passwd: bytes, group: bytes) -> Identity:
    """The identity `docker run --user USER --group-add …` means; the errors are docker's."""
    wanted, _, wanted_group = user.partition(":")
    uid, gid, home, name = 0, 0, "/", ""
    number = _number(wanted)
    for entry in _passwd(passwd):
        # An empty user is the default one, 0. A number is tried as a number first, as a name never.
        hit = (
            entry.uid == (number or 0) if number is not None or not wanted else entry.name == wanted
        )
        if hit:
            uid, gid, home, name = entry.uid, entry.gid, entry.home or "/", entry.name
            break
    else:
        if wanted:
            if number is None:
                raise SetupError(
                    f"unable to find user {wanted}: no matching entries in passwd file"
                )
            uid = _in_range(number)
    groups: tuple[int, ...] = ()
    if wanted_group:
        gid = _group_id(wanted_group, group)
    elif name:
        groups = tuple(entry.gid for entry in _groups(group) if name in entry.members)
    extra = tuple(_group_id(entry, group, "Unable") for entry in extra_groups if entry)
    # The primary one belongs to the list (CVE-2022-36109: else a "negative" group permission
    # opens).
    return Identity(uid, gid, _unique((gid, *groups, *extra)), home)


def home_of(uid: int, passwd: bytes) -> str:
    return next((entry.home or "/" for entry in _passwd(passwd) if entry.uid == uid), "/")


def _group_id(text: str, group: bytes, unable: str = "unable") -> int:
    number = _number(text)
    for entry in _groups(group):
        if entry.gid == number if number is not None else entry.name == text:
            return entry.gid
    if number is None:
        raise SetupError(f"{unable} to find group {text}: no matching entries in group file")
    return _in_range(number)


def _in_range(number: int) -> int:
    if not 0 <= number <= MOST_ID:
        raise SetupError(f"uids and gids must be in range 0-{MOST_ID}")
    return number


def _number(text: str) -> int | None:
    """As Go's Atoi: an optional sign and ASCII digits, nothing else."""
    digits = text[1:] if text[:1] in ("+", "-") else text
    if not digits.isascii() or not digits.isdigit() or len(digits) > 20:
        return None
    return int(text)


def _unique(values: Sequence[int]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(values))


def _lines(data: bytes) -> Iterator[list[str]]:
    for line in data.decode("utf-8", "surrogateescape").split("\n"):
        text = line.strip()
        if text and not text.startswith("#"):
            yield text.split(":")


def _passwd(data: bytes) -> Iterator[_Passwd]:
    for fields in _lines(data):
        # Short lines count, as libcontainer reads them: what is missing is empty or 0.
        fields += [""] * (7 - len(fields))
        uid, gid = _number(fields[2]), _number(fields[3])
        yield _Passwd(fields[0], uid or 0, gid or 0, fields[5])


def _groups(data: bytes) -> Iterator[_Group]:
    for fields in _lines(data):
        fields += [""] * (4 - len(fields))
        members = tuple(member for member in fields[3].split(",") if member)
        yield _Group(fields[0], _number(fields[2]) or 0, members)
