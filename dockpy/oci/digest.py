"""Digests, diff ids and chain ids: strings of checked form that must not be mixed up.

`Digest` names a blob (sha256, and sha512 when somebody gives one). `DiffID` is the digest of a layer's
uncompressed tar. `ChainID` names the stack of layers up to and with one (image-spec, config.md).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, NewType

from dockpy.errors import InvalidParameter

if TYPE_CHECKING:
    from hashlib import _Hash

Digest = NewType("Digest", str)
DiffID = NewType("DiffID", str)
ChainID = NewType("ChainID", str)

_LENGTHS = {"sha256": 64, "sha512": 128}
_HEX = frozenset("0123456789abcdef")


def digest(text: str) -> Digest:
    """`text` when it is a digest of an algorithm we know; InvalidParameter else."""
    algorithm, colon, value = text.partition(":")
    if not colon:
        raise InvalidParameter(f"invalid checksum digest format: {text!r:.140}")
    if algorithm not in _LENGTHS:
        raise InvalidParameter(f"unsupported digest algorithm: {algorithm!r:.40}")
    if len(value) != _LENGTHS[algorithm] or not _HEX.issuperset(value):
        raise InvalidParameter(f"invalid checksum digest length or characters: {text!r:.160}")
    return Digest(text)


def diff_id(text: str) -> DiffID:
    return DiffID(digest(text))


def chain_id(text: str) -> ChainID:
    return ChainID(digest(text))


def algorithm_of(value: Digest | DiffID | ChainID) -> str:
    return value.partition(":")[0]


def hex_of(value: Digest | DiffID | ChainID) -> str:
    return value.partition(":")[2]


def hasher(value: Digest | DiffID | None = None) -> _Hash:
    """A hash object of the algorithm of `value`; of sha256 without one."""
    return hashlib.new(algorithm_of(value) if value else "sha256")


def digest_of(state: _Hash) -> Digest:
    return Digest(f"{state.name}:{state.hexdigest()}")


def digest_bytes(data: bytes) -> Digest:
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def chain_ids(diff_ids: Iterable[DiffID]) -> tuple[ChainID, ...]:
    """The chain id of each prefix of `diff_ids`: the first is its diff id, then sha256("parent diff")."""
    chain: list[ChainID] = []
    for diff in diff_ids:
        if not chain:
            chain.append(ChainID(diff))
        else:
            chain.append(ChainID(digest_bytes(f"{chain[-1]} {diff}".encode())))
    return tuple(chain)
