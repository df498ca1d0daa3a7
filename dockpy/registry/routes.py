"""The paths of the distribution API as values, and the checked names in them. Pure.

Nothing passes here that could not be a file's name below the registry's folder: repository names, tags,
digests and upload ids are held to the specification's grammar, whatever percent signs the path had.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from dockpy.errors import InvalidParameter
from dockpy.oci.digest import Digest, digest
from dockpy.oci.reference import check_path, check_tag
from dockpy.registry.refusals import Refusal

# What can be done to each kind of thing.
METHODS: Mapping[str, tuple[str, ...]] = {
    "base": ("GET", "HEAD"),
    "catalog": ("GET",),
    "tags": ("GET",),
    "referrers": ("GET",),
    "manifests": ("GET", "HEAD", "PUT", "DELETE"),
    "blobs": ("GET", "HEAD", "DELETE"),
    "uploads": ("POST",),
    "upload": ("GET", "PATCH", "PUT", "DELETE"),
}
WRITES = frozenset(("POST", "PATCH", "PUT", "DELETE"))

_UPLOAD_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@dataclass(frozen=True)
class Route:
    kind: str  # a key of METHODS
    name: str = ""  # the repository
    reference: str = ""  # a tag, a digest or an upload's id, as it stood there


def route(method: str, path: str) -> Route:
    """What `path` names; Refusal where it is nothing of ours or `method` does not apply to it."""
    found = _locate(unquote(path))
    if found is None:
        raise Refusal("NAME_UNKNOWN", "this path is none of the distribution API")
    if found.name:
        check_name(found.name)
    if method not in METHODS[found.kind]:
        raise Refusal(
            "UNSUPPORTED",
            f"{method} is not possible here",
            headers=[("Allow", ", ".join(METHODS[found.kind]))],
        )
    return found


def _locate(path: str) -> Route | None:
    if path in ("/v2/", "/v2"):
        return Route("base")
    if path == "/v2/_catalog":
        return Route("catalog")
    if not path.startswith("/v2/"):
        return None
    words = path[len("/v2/") :].split("/")
    # A repository may be called a/blobs or tags/list: the keyword is looked for from the right.
    if len(words) > 2 and words[-2:] == ["blobs", "uploads"]:
        return Route("uploads", "/".join(words[:-2]))
    if len(words) > 3 and words[-3:] == ["blobs", "uploads", ""]:
        return Route("uploads", "/".join(words[:-3]))
    if len(words) > 3 and words[-3:-1] == ["blobs", "uploads"]:
        return Route("upload", "/".join(words[:-3]), words[-1])
    if len(words) > 2 and words[-2:] == ["tags", "list"]:
        return Route("tags", "/".join(words[:-2]))
    if len(words) > 2 and words[-2] in ("manifests", "blobs", "referrers"):
        return Route(words[-2], "/".join(words[:-2]), words[-1])
    return None


def check_name(name: str) -> str:
    try:
        return check_path(name)
    except InvalidParameter as error:
        raise Refusal("NAME_INVALID", str(error), detail={"name": name[:300]}) from None


def checked_digest(text: str) -> Digest:
    try:
        return digest(text)
    except InvalidParameter as error:
        raise Refusal("DIGEST_INVALID", str(error)) from None


def checked_reference(text: str) -> tuple[str, Digest | None]:
    """(tag, None) or ("", digest)."""
    if ":" in text:
        return "", checked_digest(text)
    return checked_tag(text), None


def checked_tag(text: str) -> str:
    try:
        return check_tag(text)
    except InvalidParameter as error:
        raise Refusal("TAG_INVALID", str(error), detail={"tag": text[:200]}) from None


def checked_upload(text: str) -> str:
    if not _UPLOAD_ID.fullmatch(text):
        raise Refusal("BLOB_UPLOAD_UNKNOWN", "no upload has this id")
    return text


def page_of(query: Mapping[str, str]) -> tuple[int | None, str]:
    """`n` (None: not asked) and `last` of a listing."""
    text = query.get("n", "")
    if text and not (text.isascii() and text.isdigit() and len(text) < 10):
        raise Refusal(
            "PAGINATION_NUMBER_INVALID", "n must be a number of entries", detail={"n": text[:40]}
        )
    return (int(text) if text else None), query.get("last", "")
