"""The entries of index.json as names of images, and back: values only, no effects.

One entry for each name, annotated as skopeo (`org.opencontainers.image.ref.name`) and containerd
(`io.containerd.image.name`) read it; one without a name for a dangling image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from dockpy.errors import NotFound
from dockpy.images.image import Image, timestamp
from dockpy.oci.descriptor import ANNOTATION_IMAGE_NAME, ANNOTATION_REF_NAME, Descriptor
from dockpy.oci.digest import Digest
from dockpy.oci.reference import Reference, parse_reference

ANNOTATION_TAGGED = "io.dockpy.tagged"
"""When the name was given (RFC 3339): docker's Metadata.LastTagTime."""

_HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True)
class State:
    """One reading of the index."""

    entries: tuple[Descriptor, ...] = ()
    images: Mapping[Digest, Image] = field(default_factory=dict)
    names: Mapping[str, Digest] = field(default_factory=dict)
    damaged: bool = False
    """An entry's manifest or config cannot be read: nothing is collected, since nobody knows what
    it held.
    """
    lent: Mapping[str, str] = field(default_factory=dict)
    """Names, and ids of images, that only another store has: to its root."""


def is_hex(text: str) -> bool:
    return _HEX.issuperset(text)


def by_name(state: State, reference: Reference) -> Digest | None:
    if reference.digest is None:
        return state.names.get(str(reference))
    exact = state.names.get(str(reference.with_digest(reference.digest)))
    if exact is not None:
        return exact
    # Not pulled by this digest, but a name of the same repository leads to that very manifest.
    for name, identifier in state.names.items():
        same = state.images[identifier].descriptor.digest == reference.digest
        if same and parse_reference(name).name == reference.name:
            return identifier
    return None


def by_prefix(state: State, text: str) -> Digest | None:
    prefix = text[7:] if text.startswith("sha256:") else text
    if not prefix or not is_hex(prefix):
        return None
    found = [identifier for identifier in state.images if identifier[7:].startswith(prefix)]
    if len(found) > 1:
        raise NotFound(f"ambiguous reference: {text} is the beginning of {len(found)} image ids")
    return found[0] if found else None


def is_id_prefix(identifier: str, text: str) -> bool:
    return identifier.startswith(text) or identifier[7:].startswith(text)


def single(names: Sequence[Reference]) -> bool:
    """Whether all names are one tag and digests of its repository (moby's isSingleReference)."""
    if len(names) <= 1:
        return True
    tags = [name for name in names if not name.digest]
    repositories = {name.name for name in names if name.digest}
    if len(tags) > 1:
        return False
    return repositories == {(tags or names)[0].name}


def with_name(image: Image, reference: Reference | None, entry: Descriptor) -> Image:
    tagged = max(image.tagged, entry.annotations.get(ANNOTATION_TAGGED, ""))
    if reference is None:
        return replace(image, tagged=tagged)
    if reference.digest:
        digests = sorted({*image.repo_digests, reference.familiar()})
        return replace(image, repo_digests=tuple(digests), tagged=tagged)
    tags = sorted({*image.repo_tags, reference.familiar()})
    return replace(image, repo_tags=tuple(tags), tagged=tagged)


def entry_of(manifest: Descriptor, name: Reference | None, extra: Mapping[str, str]) -> Descriptor:
    annotations = dict(extra)
    if name is not None:
        annotations[ANNOTATION_IMAGE_NAME] = str(name)
        annotations[ANNOTATION_REF_NAME] = name.familiar()
        annotations[ANNOTATION_TAGGED] = timestamp()
    return replace(manifest, annotations=annotations)


def renamed(
    entries: Sequence[Descriptor],
    name: Reference,
    entry: Descriptor | None,
    *,
    keep: bool = True,
) -> list[Descriptor]:
    """`entries` with `name` meaning `entry` and nothing else.

    With `keep`, a manifest that loses its last name stays, nameless.
    """
    full = str(name)
    losers = [old for old in entries if old.annotations.get(ANNOTATION_IMAGE_NAME) == full]
    kept = [old for old in entries if old.annotations.get(ANNOTATION_IMAGE_NAME) != full]
    if entry is not None:
        # The nameless entry of a manifest gives way to its first name.
        kept = [
            old
            for old in kept
            if old.digest != entry.digest or ANNOTATION_IMAGE_NAME in old.annotations
        ]
        kept.append(entry)
    for loser in losers if keep else ():
        if not any(old.digest == loser.digest for old in kept):
            kept.append(replace(loser, annotations={}))
    return kept


def moved(entries: Sequence[Descriptor], old: Digest, manifest: Descriptor) -> list[Descriptor]:
    """`entries` with `manifest` for the manifest `old`, but where a name is that one's digest: then both are kept."""
    mine = [entry for entry in entries if entry.digest == old]
    if any("@" in entry.annotations.get(ANNOTATION_IMAGE_NAME, "") for entry in mine):
        return list(entries)
    new = (manifest.digest, manifest.size, manifest.media_type)
    return [
        replace(entry, digest=new[0], size=new[1], media_type=new[2])
        if entry.digest == old
        else entry
        for entry in entries
    ]


def tags_of(state: State, name: str) -> list[tuple[Reference, Image]]:
    named = [(parse_reference(full), image) for full, image in sorted(state.names.items())]
    return [
        (reference, state.images[image])
        for reference, image in named
        if reference.name == name and reference.tag
    ]


def repositories_of(state: State, blob: Digest, domain: str) -> list[str]:
    """By names with a digest: those are what a registry has said, or was told."""
    found: list[str] = []
    for full, image in state.names.items():
        layers = state.images[image].manifest.layers
        if "@" in full and any(layer.digest == blob for layer in layers):
            reference = parse_reference(full)
            if reference.domain == domain and reference.path not in found:
                found.append(reference.path)
    return found


def joined(own: State, lent: State, root: str) -> State:
    """`own` with what the store at `root` has beside it; a name that both have means what it means here."""
    images, names, only = dict(own.images), dict(own.names), dict(own.lent)
    for name, identifier in lent.names.items():
        if name not in names:
            names[name] = identifier
            only[name] = root
    for identifier, image in lent.images.items():
        if identifier not in images:
            images[identifier] = replace(image, repo_tags=(), repo_digests=())
            only[identifier] = root
        for name, found in lent.names.items():
            if found == identifier and only.get(name) == root:
                reference = parse_reference(name)
                images[identifier] = with_name(images[identifier], reference, image.descriptor)
    return replace(own, images=images, names=names, lent=only)
