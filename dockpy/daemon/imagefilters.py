"""The filters of `images`: what each may be, and which images it lets through. No effects."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dockpy.api import query as q
from dockpy.errors import InvalidParameter
from dockpy.images.image import Image

FILTERS = frozenset(("before", "dangling", "label", "reference", "since", "until"))


@dataclass(frozen=True)
class Filter:
    """Times in nanoseconds since 1970, exclusive; None where there is no bound."""

    before: int | None
    since: int | None
    dangling: bool | None
    labels: tuple[str, ...]
    references: tuple[re.Pattern[str], ...] | None

    def admits(self, created: str, labels: Mapping[str, str], names: tuple[str, ...]) -> bool:
        """`names`: the image's tags and digests; a dangling image has none."""
        if self.before is not None or self.since is not None:
            when = moment(created)
            if when is None or not (
                (self.before is None or when < self.before)
                and (self.since is None or when > self.since)
            ):
                return False
        tagged = any("@" not in name for name in names)
        if self.dangling is not None and tagged == self.dangling:
            return False
        if not q.matches_labels(self.labels, labels):
            return False
        return self.references is None or any(map(self.names, names))

    def names(self, name: str) -> bool:
        """Whether the filter asks for it by `name`: whole, or without tag or digest."""
        if self.references is None:
            return True
        bare = name.partition("@")[0] if "@" in name else name.rpartition(":")[0]
        return any(
            pattern.fullmatch(name) or pattern.fullmatch(bare) for pattern in self.references
        )


def parse(filters: q.Filters, resolve: Callable[[str], Image]) -> Filter:
    """`resolve` finds the images that before and since name, or raises. InvalidParameter: docker's no."""
    word = filters.get("dangling", ())
    values = {text.lower() for text in word}
    if not values <= {"true", "1", "false", "0"} or len(values) > 1:
        raise InvalidParameter(f"invalid filter 'dangling=[{' '.join(word)}]'")
    before = [moment(resolve(name).created) for name in filters.get("before", ())]
    before += [q.timestamp(text, "until") for text in filters.get("until", ())]
    since = [moment(resolve(name).created) for name in filters.get("since", ())]
    return Filter(
        min((when for when in before if when is not None), default=None),
        max((when for when in since if when is not None), default=None),
        bool(values & {"true", "1"}) if word else None,
        filters.get("label", ()),
        tuple(map(pattern, filters["reference"])) if "reference" in filters else None,
    )


def moment(created: str) -> int | None:
    """Of an image's own words, which may be nonsense."""
    try:
        return q.timestamp(created, "created")
    except InvalidParameter:
        return None


def pattern(text: str) -> re.Pattern[str]:
    """Go's path.Match: `*` and `?` stop at a slash, `[a-z]`, `[^a]`, and a backslash before any of them."""
    result, at = "", 0
    while at < len(text):
        letter = text[at]
        at += 1
        if letter == "*":
            result += "[^/]*"
        elif letter == "?":
            result += "[^/]"
        elif letter == "\\" and at < len(text):
            result += re.escape(text[at])
            at += 1
        elif letter == "[":
            found = re.compile(r"\^?(?:(?:\\.|[^\]\\-])(?:-(?:\\.|[^\]\\-]))?)+\]").match(text, at)
            if found is None:
                raise InvalidParameter("syntax error in pattern")
            inner = found.group()[:-1]
            result += "[" + inner[0].replace("[", "\\[") + inner[1:].replace("[", "\\[") + "]"
            at = found.end()
        elif letter == "\\":
            raise InvalidParameter("syntax error in pattern")
        else:
            result += re.escape(letter)
    try:
        return re.compile(result, re.DOTALL)
    except re.error:
        raise InvalidParameter("syntax error in pattern") from None
