"""`load` and `save`: archives of images, docker's (manifest.json) and the OCI's (an image layout
in a tar).

Load takes a stream that cannot be rewound, or a file; members come in any order, and what the
archive means is worked out when all are known (members.py). All of it happens within `store.writing()`: whatever no
image leads to in the end, after an error everything, is collected. An archive that is both
docker's and the OCI's (docker ≥ 25, buildkit) is read as the OCI's, which has the manifests, and
their digests, too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from dockpy.errors import InvalidParameter, NotFound
from dockpy.images import tarwriter
from dockpy.images.image import Image
from dockpy.images.making import put_image
from dockpy.images.members import Lying, Members, Received, path_of
from dockpy.images.remaking import whole
from dockpy.images.store import ImageStore
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
from dockpy.oci.digest import DiffID, Digest, digest
from dockpy.oci.fields import Fields, dump, parse
from dockpy.oci.image import image_config
from dockpy.oci.manifest import Index, Manifest, index_from_json, manifest_or_index
from dockpy.oci.platform import Platform, host_platform
from dockpy.oci.reference import Reference, parse_reference
from dockpy.storage import tar
from dockpy.storage.compression import decompressed, sniff
from dockpy.storage.snapshot import Read

Progress = Callable[[Mapping[str, object]], object]
"""Takes one message of the Engine API's JSON stream."""

_DEPTH = 8  # indexes in indexes


def load(
    store: ImageStore, read: Read, progress: Progress, platform: Platform | None = None
) -> list[str]:
    """Loads all images of the archive; answers their names, `sha256:…` for one without. `read(n)`
    → b"" at the end.

    `progress` gets docker's messages, the closing `Loaded image: …` lines too.
    """
    with store.writing():
        members = Received(store.content, decompressed(read))
        return _load(store, members, progress, platform)


def load_file(
    store: ImageStore,
    fd: int,
    progress: Progress,
    platform: Platform | None = None,
    watch: Callable[[], None] = lambda: None,
) -> list[str]:
    """As `load`, from the regular file `fd`, from its present position on. `watch` is called between
    pieces: what it raises ends the load.
    """
    start = os.lseek(fd, 0, os.SEEK_CUR)
    if sniff(os.pread(fd, 6, start)):

        def read(size: int) -> bytes:
            watch()
            return os.read(fd, size)

        return load(store, read, progress, platform)
    with store.writing():
        return _load(store, Lying(store.content, fd, start, watch), progress, platform)


def _load(
    store: ImageStore, members: Members, progress: Progress, platform: Platform | None
) -> list[str]:
    loaded: list[str] = []
    for found in _images_of(members, platform):
        _tell_layers(found, progress)
        image = _add(store, members, found, progress)
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


def _images_of(archive: Members, platform: Platform | None) -> Iterator[_Found]:
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


def _of_docker(archive: Members) -> Iterator[_Found]:
    raw = parse(archive.read("manifest.json"), "manifest.json")
    if not isinstance(raw, list) or not raw:
        raise InvalidParameter("invalid archive: manifest.json must be a list of images")
    for item in raw:
        fields = Fields(item, "manifest.json")
        config = archive.read(fields.text("Config"))
        names = [parse_reference(name).tagged() for name in fields.texts("RepoTags") or ()]
        paths = fields.texts("Layers") or ()
        diff_ids = image_config(config).diff_ids
        if len(paths) != len(diff_ids):
            raise InvalidParameter(
                "invalid manifest, layers length mismatch:"
                f" expected {len(diff_ids)}, got {len(paths)}"
            )
        layers = [_layer(archive, path, diff_id) for path, diff_id in zip(paths, diff_ids)]
        yield _Found(config, layers, names)


def _layer(archive: Members, path: str, diff_id: DiffID) -> Descriptor:
    kind = sniff(archive.head(path))
    # Not compressed, it must be what the config says, so it need not be read to know its digest.
    blob, size = archive.layer(path, None if kind else digest(diff_id))
    media_types = {"gzip": OCI_LAYER_GZIP, "zstd": OCI_LAYER_ZSTD}
    return Descriptor(media_types.get(kind, OCI_LAYER), blob, size)


def _of_layout(archive: Members, index: Index, platform: Platform | None) -> Iterator[_Found]:
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
            blob, size = archive.layer(path_of(layer.digest), layer.digest)
            if blob != layer.digest or size != layer.size:
                raise InvalidParameter(
                    f"invalid archive: {layer.digest} has another content or size"
                )
        config = archive.described(manifest.config)
        archive.blob(path_of(manifest.config.digest))
        yield _Found(config, manifest.layers, named[entry.digest], data, media_type)


def _manifest(
    archive: Members, entry: Descriptor, platform: Platform | None
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


def _tell_layers(found: _Found, progress: Progress) -> None:
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


def _add(store: ImageStore, archive: Members, found: _Found, progress: Progress) -> Image:
    before = {name: _holder(store, name) for name in found.names}
    if found.manifest is None:
        image = put_image(store, found.config, found.layers, found.names, arriving=archive.arriving)
    else:
        blob = store.content.put(found.manifest)
        descriptor = Descriptor(found.media_type, blob, len(found.manifest))
        image = store.add(descriptor, found.names, arriving=archive.arriving)
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


# Saving


def save(store: ImageStore, refs: Sequence[str], write: Write) -> None:
    """Writes the images that `refs` mean as one archive: an OCI layout with docker's
    manifest.json beside, as docker ≥ 25 writes it. Layers go out as they are stored; one whose blob
    was dropped is made again (remaking). Everything is resolved, and made, before the first byte.
    """
    wanted: dict[Digest, tuple[Image, list[Reference]]] = {}
    for image, names in (meant for text in refs for meant in _meant(store, text)):
        _, listed = wanted.setdefault(image.id, (image, []))
        listed.extend(name for name in names if name not in listed)
    images = list(wanted.values())
    opened: list[tuple[Digest, int]] = []
    try:
        # Open descriptors outlive a removal by somebody else in the middle of this, and what was made for it.
        with store.writing():
            images = [(whole(store, image), names) for image, names in images]
            for blob in sorted({blob for image, _ in images for blob in _blobs(image)}):
                opened.append((blob, store.content.open(blob)))
        for folder in ("blobs/", "blobs/sha256/"):
            write(tarwriter.header(folder, mode=0o755, kind=tar.DIRECTORY))
        for blob, fd in opened:
            _write_blob(write, path_of(blob), fd)
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
        "Config": path_of(image.id),
        "RepoTags": [name.familiar() for name in names] or None,
        "Layers": [path_of(layer.digest) for layer in layers],
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
