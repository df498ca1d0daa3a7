"""`load` and `save`: archives of images, docker's (manifest.json) and the OCI's (an image layout
in a tar).

Load takes a stream that cannot be rewound, with members in any order: large ones go into the
content store as they pass (hashed on the way, never in memory), small ones are kept, and what the
archive means is worked out at its end. All of it happens within `store.writing()`: whatever no
image leads to in the end, after an error everything, is collected. An archive that is both
docker's and the OCI's (docker ≥ 25, buildkit) is read as the OCI's, which has the manifests, and
their digests, too.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from dockpy.errors import InvalidParameter, NotFound
from dockpy.images import tarwriter
from dockpy.images.image import Image
from dockpy.images.store import ImageStore, put_image
from dockpy.images.tarwriter import Write
from dockpy.oci.descriptor import (
    ANNOTATION_IMAGE_NAME,
    ANNOTATION_REF_NAME,
    CONFIGS,
    INDEXES,
    LAYERS,
    MANIFESTS,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    Descriptor,
)
from dockpy.oci.digest import Digest, digest, digest_of, hasher
from dockpy.oci.fields import Fields, dump, parse
from dockpy.oci.image import image_config
from dockpy.oci.manifest import Index, Manifest, index_from_json, manifest_or_index
from dockpy.oci.platform import Platform, host_platform
from dockpy.oci.reference import Reference, parse_reference
from dockpy.storage import tar
from dockpy.storage.compression import decompressed
from dockpy.storage.content import ContentStore
from dockpy.storage.snapshot import Read

Progress = Callable[[Mapping[str, object]], object]
"""Takes one message of the Engine API's JSON stream."""

_SMALL = 1 << 20
_SMALL_TOTAL = 32 << 20
MAX_MEMBERS = 100_000
_DEPTH = 8  # indexes in indexes, links to links


def load(
    store: ImageStore, read: Read, progress: Progress, platform: Platform | None = None
) -> list[str]:
    """Loads all images of the archive; answers their names, `sha256:…` for one without. `read(n)`
    → b"" at the end.

    `progress` gets docker's messages, the closing `Loaded image: …` lines too.
    """
    loaded: list[str] = []
    with store.writing():
        archive = _Archive(store.content)
        archive.receive(decompressed(read))
        for found in _images_of(archive, platform):
            _tell_layers(archive, found, progress)
            image = _add(store, archive, found, progress)
            names = [name.familiar() for name in found.names] or [image.id]
            loaded.extend(names)
            for name in names:
                what = "Loaded image" if found.names else "Loaded image ID"
                progress({"stream": f"{what}: {name}\n"})
    return loaded


@dataclass
class _Found:
    """One image of an archive: its manifest as it is (OCI), or what one is to be made of
    (docker).
    """

    config: bytes
    layers: Sequence[Descriptor]
    names: Sequence[Reference]
    manifest: bytes | None = None
    media_type: str = ""


@dataclass
class _Archive:
    """The members of an archive by name: links, small ones in memory, others as blobs in the
    store.
    """

    content: ContentStore
    small: dict[str, bytes] = field(default_factory=dict)
    blobs: dict[str, tuple[Digest, int]] = field(default_factory=dict)
    links: dict[str, tuple[str, bool]] = field(default_factory=dict)  # target, whether symbolic

    def receive(self, read: Read) -> None:
        reader = tar.TarReader(read)
        room = _SMALL_TOTAL
        count = 0
        while (entry := reader.next()) is not None:
            count += 1
            if count > MAX_MEMBERS:
                raise InvalidParameter(f"the archive has more than {MAX_MEMBERS} members")
            name = _plain(os.fsdecode(entry.name))
            if entry.kind in (tar.SYMLINK, tar.HARDLINK):
                self._forget(name)
                self.links[name] = (os.fsdecode(entry.link), entry.kind == tar.SYMLINK)
            elif entry.kind == tar.REGULAR and entry.regions is None:
                self._forget(name)
                if entry.size <= min(_SMALL, room):
                    room -= entry.size
                    self.small[name] = b"".join(_pieces(reader))
                else:
                    self.blobs[name] = self._put(name, entry.size, reader)
        # Whoever sends must not meet a closed pipe; and a gzip's check sum stands at the end.
        reader.drain()

    def _forget(self, name: str) -> None:
        """What a name meant before: the last member of a name counts, as for tar."""
        self.small.pop(name, None)
        self.blobs.pop(name, None)
        self.links.pop(name, None)

    def _put(self, name: str, size: int, reader: tar.TarReader) -> tuple[Digest, int]:
        expected = _digest_in(name)
        if expected is not None and self.content.has(expected):
            # Ours was verified when it came; theirs is passed over.
            return expected, self.content.size(expected)
        with self.content.writer() as writer:
            for piece in _pieces(reader):
                writer.write(piece)
            return writer.commit(expected, size)

    def has(self, name: str) -> bool:
        return name in self.small or name in self.blobs

    def locate(self, name: str) -> str:
        """The name of the regular member that `name` leads to."""
        name = _plain(name)
        for _ in range(_DEPTH):
            if self.has(name):
                return name
            if name not in self.links:
                break
            link, symbolic = self.links[name]
            # A symbolic link is relative to its folder, a hard link to the archive's root.
            name = _plain(posixpath.join(posixpath.dirname(name), link) if symbolic else link)
        raise InvalidParameter(f"invalid archive: {name} is missing")

    def read(self, name: str) -> bytes:
        """A small document."""
        name = self.locate(name)
        return self.small[name] if name in self.small else self.content.read(self.blobs[name][0])

    def blob(self, name: str) -> tuple[Digest, int]:
        """The digest and size of a member, which is in the content store then."""
        name = self.locate(name)
        if name in self.small:
            data = self.small[name]
            expected = _digest_in(name)
            with self.content.writer() as writer:
                writer.write(data)
                self.blobs[name] = writer.commit(expected, len(data))
        return self.blobs[name]

    def described(self, wanted: Descriptor) -> bytes:
        """The document that a descriptor means, verified."""
        data = self.read(_path_of(wanted.digest))
        state = hasher(wanted.digest)
        state.update(data)
        if digest_of(state) != wanted.digest or len(data) != wanted.size:
            raise InvalidParameter(f"invalid archive: {wanted.digest} has another content or size")
        return data


def _images_of(archive: _Archive, platform: Platform | None) -> Iterator[_Found]:
    if archive.has("index.json") and archive.has("oci-layout"):
        index = index_from_json(parse(archive.read("index.json"), "index.json"))
        yield from _of_layout(archive, index, platform)
    elif archive.has("manifest.json"):
        yield from _of_docker(archive)
    elif archive.has("repositories"):
        raise InvalidParameter(
            "invalid archive: made by docker 1.9 or older, without manifest.json"
        )
    else:
        raise InvalidParameter("invalid archive: does not contain a manifest.json or an index.json")


def _of_docker(archive: _Archive) -> Iterator[_Found]:
    raw = parse(archive.read("manifest.json"), "manifest.json")
    if not isinstance(raw, list) or not raw:
        raise InvalidParameter("invalid archive: manifest.json must be a list of images")
    for item in raw:
        fields = Fields(item, "manifest.json")
        config = archive.read(fields.text("Config"))
        names = [parse_reference(name).tagged() for name in fields.texts("RepoTags") or ()]
        paths = fields.texts("Layers") or ()
        expected = len(image_config(config).diff_ids)
        if len(paths) != expected:
            raise InvalidParameter(
                f"invalid manifest, layers length mismatch: expected {expected}, got {len(paths)}"
            )
        layers = [_layer(archive, path) for path in paths]
        yield _Found(config, layers, names)


def _layer(archive: _Archive, path: str) -> Descriptor:
    blob, size = archive.blob(path)
    fd = archive.content.open(blob)
    try:
        magic = os.read(fd, 4)
    finally:
        os.close(fd)
    if magic[:2] == b"\x1f\x8b":
        return Descriptor(OCI_LAYER_GZIP, blob, size)
    if magic == b"\x28\xb5\x2f\xfd":
        return Descriptor(OCI_LAYER_ZSTD, blob, size)
    return Descriptor(OCI_LAYER, blob, size)


def _of_layout(archive: _Archive, index: Index, platform: Platform | None) -> Iterator[_Found]:
    if not index.manifests:
        raise InvalidParameter("invalid archive: index.json lists no image")
    named: dict[Digest, list[Reference]] = {}
    order: list[Descriptor] = []
    for entry in index.manifests:
        if entry.media_type not in MANIFESTS | INDEXES and entry.media_type:
            continue
        if entry.digest not in named:
            order.append(entry)
        names = named.setdefault(entry.digest, [])
        names.extend(name for name in _names_in(entry.annotations) if name not in names)
    if platform is None and len(order) > 1 and not any(named.values()):
        # One image for several platforms, listed flat: the one for this host is meant.
        best = Index(tuple(order)).choose(host_platform())
        order = [best] if best is not None else order
    for entry in order:
        manifest, data, media_type = _manifest(archive, entry, platform)
        if manifest.config.media_type not in CONFIGS:
            if len(order) == 1:
                raise InvalidParameter(
                    f"the archive holds no image but an artifact ({manifest.config.media_type})"
                )
            continue
        for layer in manifest.layers:
            if layer.media_type not in LAYERS:
                raise InvalidParameter(
                    f"layer {layer.digest} is of unknown kind {layer.media_type}"
                )
            blob, size = archive.blob(_path_of(layer.digest))
            if blob != layer.digest or size != layer.size:
                raise InvalidParameter(
                    f"invalid archive: {layer.digest} has another content or size"
                )
        config = archive.described(manifest.config)
        archive.blob(_path_of(manifest.config.digest))
        yield _Found(config, manifest.layers, named[entry.digest], data, media_type)


def _manifest(
    archive: _Archive, entry: Descriptor, platform: Platform | None
) -> tuple[Manifest, bytes, str]:
    for _ in range(_DEPTH):
        data = archive.described(entry)
        document = manifest_or_index(data, entry.media_type)
        if isinstance(document, Manifest):
            return document, data, document.media_type
        wanted = platform or host_platform()
        chosen = document.choose(wanted)
        if chosen is None:
            raise NotFound(
                f"image was found but does not provide the specified platform ({wanted})"
            )
        entry = chosen
    raise InvalidParameter(f"invalid archive: more than {_DEPTH} indexes in each other")


def _names_in(annotations: Mapping[str, str]) -> list[Reference]:
    full = annotations.get(ANNOTATION_IMAGE_NAME)
    if full:
        return [parse_reference(full).tagged()]
    short = annotations.get(ANNOTATION_REF_NAME, "")
    # By the specification this may be just a tag ("latest"), which names no image.
    return [parse_reference(short).tagged()] if ":" in short or "/" in short else []


def _tell_layers(archive: _Archive, found: _Found, progress: Progress) -> None:
    for layer in found.layers:
        size = layer.size
        progress(
            {
                "status": "Loading layer",
                "progressDetail": {"current": size, "total": size},
                "progress": f"{size}B/{size}B",
                "id": layer.digest.partition(":")[2][:12],
            }
        )


def _add(store: ImageStore, archive: _Archive, found: _Found, progress: Progress) -> Image:
    before = {name: _holder(store, name) for name in found.names}
    if found.manifest is None:
        image = put_image(store, found.config, found.layers, found.names)
    else:
        blob = store.content.put(found.manifest)
        descriptor = Descriptor(found.media_type, blob, len(found.manifest))
        image = store.add(descriptor, found.names)
    for name, holder in before.items():
        if holder not in (None, image.id):
            progress(
                {
                    "stream": f"The image {name.familiar()} already exists, renaming the old one"
                    f" with ID {holder} to empty string\n"
                }
            )
    return image


def _holder(store: ImageStore, name: Reference) -> Digest | None:
    try:
        return store.resolve(str(name)).id
    except NotFound:
        return None


def _pieces(reader: tar.TarReader) -> Iterator[memoryview]:
    """What is left of the present member's content."""
    while piece := reader.data():
        yield piece


def _plain(name: str) -> str:
    """A member's name without `./` and `..`, which must not lead anywhere here: names are only
    keys.
    """
    return posixpath.normpath("/" + name).lstrip("/")


def _path_of(blob: Digest) -> str:
    return f"blobs/{blob.replace(':', '/')}"


def _digest_in(name: str) -> Digest | None:
    parts = name.split("/")
    if len(parts) != 3 or parts[0] != "blobs":
        return None
    try:
        return digest(f"{parts[1]}:{parts[2]}")
    except InvalidParameter:
        return None


# Saving


def save(store: ImageStore, refs: Sequence[str], write: Write) -> None:
    """Writes the images that `refs` mean as one archive: an OCI layout with docker's
    manifest.json beside, as docker ≥ 25 writes it. Layers go out as they are stored. Everything
    is resolved before the first byte.
    """
    wanted: dict[Digest, tuple[Image, list[Reference]]] = {}
    for image, names in (meant for text in refs for meant in _meant(store, text)):
        _, listed = wanted.setdefault(image.id, (image, []))
        listed.extend(name for name in names if name not in listed)
    images = list(wanted.values())
    blobs = sorted({blob for image, _ in images for blob in _blobs(image)})
    opened: list[tuple[Digest, int]] = []
    try:
        for blob in blobs:
            # Open descriptors outlive a removal by somebody else in the middle of this.
            opened.append((blob, store.content.open(blob)))
        for folder in ("blobs/", "blobs/sha256/"):
            write(tarwriter.header(folder, mode=0o755, kind=tar.DIRECTORY))
        for blob, fd in opened:
            _write_blob(write, _path_of(blob), fd)
    finally:
        for _, fd in opened:
            os.close(fd)
    tarwriter.write_bytes(write, "index.json", _index_json(images))
    tarwriter.write_bytes(write, "manifest.json", dump([_docker_item(*item) for item in images]))
    tarwriter.write_bytes(write, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    repositories = _repositories(images)
    if repositories:
        tarwriter.write_bytes(write, "repositories", dump(repositories))
    write(tarwriter.END)


def _meant(store: ImageStore, text: str) -> list[tuple[Image, list[Reference]]]:
    """An id brings no name, a name with a tag that one, a bare name every tag of its repository."""
    try:
        reference = parse_reference(text)
    except InvalidParameter:
        return [(store.resolve(text), [])]  # an id
    if not reference.tag and not reference.digest:
        tags = [
            (
                image,
                [
                    name
                    for name in store.names_of(image.id)
                    if name.name == reference.name and name.tag
                ],
            )
            for image in store.list()
        ]
        if found := [(image, names) for image, names in tags if names]:
            return found
    image = store.resolve(text)
    return [(image, [name for name in store.names_of(image.id) if name == reference])]


def _blobs(image: Image) -> set[Digest]:
    manifest = image.manifest
    return {
        image.descriptor.digest,
        manifest.config.digest,
        *(layer.digest for layer in manifest.layers),
    }


def _write_blob(write: Write, name: str, fd: int) -> None:
    size = os.fstat(fd).st_size
    write(tarwriter.header(name, size=size))
    while chunk := os.read(fd, tarwriter.CHUNK):
        write(chunk)
    write(tarwriter.padding(size))


def _index_json(images: Sequence[tuple[Image, Sequence[Reference]]]) -> bytes:
    entries = []
    for image, names in images:
        plain = image.descriptor
        annotated = [
            Descriptor(
                plain.media_type,
                plain.digest,
                plain.size,
                {ANNOTATION_IMAGE_NAME: str(name), ANNOTATION_REF_NAME: name.tag},
                plain.platform,
            )
            for name in names
        ]
        entries.extend(annotated or [plain])
    return Index(tuple(entries)).to_bytes()


def _docker_item(image: Image, names: Sequence[Reference]) -> dict[str, object]:
    layers = image.manifest.layers
    return {
        "Config": _path_of(image.id),
        "RepoTags": [name.familiar() for name in names] or None,
        "Layers": [_path_of(layer.digest) for layer in layers],
        "LayerSources": {
            diff_id: layer.to_json() for diff_id, layer in zip(image.config.diff_ids, layers)
        },
    }


def _repositories(
    images: Sequence[tuple[Image, Sequence[Reference]]],
) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for image, names in images:
        top = image.manifest.layers[-1].digest if image.manifest.layers else image.id
        for name in names:
            found.setdefault(name.familiar_name, {})[name.tag] = top.partition(":")[2]
    return found
