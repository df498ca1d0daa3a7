"""Image references: `[domain/]path[:tag][@digest]`, docker's grammar and docker's short forms.

A `Reference` is always whole (`docker.io/library/debian`); `familiar()` is what people see. The grammar
is distribution's: lower-case path components, a domain told from a path by a dot, a colon or `localhost`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dockpy.errors import InvalidParameter
from dockpy.oci.digest import Digest, digest

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_IDENTIFIER = re.compile(r"[a-f0-9]{64}")
_NAME_LIMIT = 255


@dataclass(frozen=True)
class Reference:
    domain: str
    path: str
    tag: str = ""
    digest: Digest | None = None

    @property
    def name(self) -> str:
        return f"{self.domain}/{self.path}"

    def __str__(self) -> str:
        return self.name + self._suffix()

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    @property
    def familiar_name(self) -> str:
        """`debian` for docker.io/library/debian, `me/app` for docker.io/me/app; else the name."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        first, slash, rest = self.path.partition("/")
        return rest if first == "library" and slash and "/" not in rest else self.path

    def familiar(self) -> str:
        return self.familiar_name + self._suffix()

    def tagged(self) -> Reference:
        """Itself, with `latest` when it names neither tag nor digest."""
        return self if self.tag or self.digest else Reference(self.domain, self.path, DEFAULT_TAG)

    def with_tag(self, tag: str) -> Reference:
        return Reference(self.domain, self.path, check_tag(tag))

    def with_digest(self, value: Digest) -> Reference:
        return Reference(self.domain, self.path, "", value)


def check_tag(tag: str) -> str:
    if not _TAG.fullmatch(tag):
        raise InvalidParameter("invalid tag format")
    return tag


def check_path(path: str) -> str:
    """A repository's name as it stands in a registry's paths, without the registry."""
    if not _PATH.fullmatch(path):
        raise InvalidParameter("invalid repository name")
    if len(path) > _NAME_LIMIT:
        raise InvalidParameter(f"repository name must not be more than {_NAME_LIMIT} characters")
    return path


def parse_reference(text: str) -> Reference:
    """`text` as docker understands it; InvalidParameter with docker's words."""
    if _IDENTIFIER.fullmatch(text):
        raise InvalidParameter(
            f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"
        )
    rest, at, digest_text = text.partition("@")
    tag = ""
    last = rest.rpartition("/")[2]
    if ":" in last:
        rest, _, tag = rest.rpartition(":")
        if not _TAG.fullmatch(tag):
            raise InvalidParameter("invalid reference format")
    domain, path = _split_domain(rest)
    if path.lower() != path:
        raise InvalidParameter(
            f"invalid reference format: repository name ({path}) must be lowercase"
        )
    if not _PATH.fullmatch(path) or not _DOMAIN.fullmatch(domain):
        raise InvalidParameter("invalid reference format")
    if len(path) > _NAME_LIMIT:
        raise InvalidParameter(f"repository name must not be more than {_NAME_LIMIT} characters")
    value: Digest | None = None
    if at:
        try:
            value = digest(digest_text)
        except InvalidParameter as error:
            raise InvalidParameter(f"invalid reference format: {error}") from None
    return Reference(domain, path, tag, value)


def parse_repository(repo: str, tag: str) -> Reference:
    """What an image is to be called for `repo` and `tag`, as commit and import have them apart."""
    reference = parse_reference(repo)
    if reference.digest:
        raise InvalidParameter("cannot import digest reference")
    return reference.with_tag(tag) if tag else reference.tagged()


def _split_domain(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    # Upper case marks a domain too: no path component has any.
    if not slash or not (
        "." in first or ":" in first or first == "localhost" or first.lower() != first
    ):
        domain, path = DEFAULT_DOMAIN, name
    else:
        domain, path = first, rest
    if domain == "index.docker.io":
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = f"library/{path}"
    return domain, path
