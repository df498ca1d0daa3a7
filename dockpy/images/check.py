"""`system check` for images: the index, every blob against its digest, every layer's tree against its blob.

Blocking, and lazy: what is found is told one by one, so that a repair is done before the next look.
Beside pulls and removals: whatever is being written or removed is not looked at twice, and is no finding.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial

from dockpy import files
from dockpy.damaged import Finding, Shelf, is_left_over
from dockpy.errors import DockpyError, InvalidParameter, NotFound, Unavailable, sentence
from dockpy.images.store import ImageStore
from dockpy.images.unpack import stored
from dockpy.oci.descriptor import ANNOTATION_IMAGE_NAME, Descriptor
from dockpy.oci.digest import ChainID, DiffID, Digest
from dockpy.oci.image import image_config
from dockpy.oci.manifest import Manifest, manifest_or_index
from dockpy.storage import remove
from dockpy.storage.check import blob_problem, tree_problem
from dockpy.storage.compression import CHUNK
from dockpy.storage.layout import LAYOUT
from dockpy.storage.snapshot import LayerSource, Read

Progress = Callable[[int, int], None]
"""progress(done, total), in bytes."""

AGAIN = "pull or load the image again"


class ImageCheck:
    """`content`: the bytes of layers' files are compared as well. (Those without an archive are in any case.)"""

    def __init__(
        self, images: ImageStore, shelf: Shelf, progress: Progress, *, content: bool = False
    ) -> None:
        self._images = images
        self._content = images.content
        self._shelf = shelf
        self._progress = progress
        self._deep = content
        self._bad: set[Digest] = set()
        self._sources: dict[ChainID, LayerSource] = {}
        self._dropped: dict[
            ChainID, DiffID
        ] = {}  # those whose archive is made again from their tree

    def findings(self) -> Iterator[Finding]:
        yield from self._index()
        yield from self._blobs()
        for entry in self._images.index.entries():
            yield from self._entry(entry)
        yield from self._layers()
        yield from self._unwanted()
        yield from self._temporaries()

    def _index(self) -> Iterator[Finding]:
        path = f"{self._content.root}/index.json"
        problem = self._images.index.problem()
        if problem:
            repair = partial(self._images.index.rewrite, self._shelf)
            yield Finding("record", path, problem, "it is written again", repair)
        layout = f"{self._content.root}/oci-layout"
        try:
            same = files.read_bytes(layout) == LAYOUT
        except (OSError, ValueError):
            same = False
        if not same:
            write = partial(files.write_atomic, layout, LAYOUT, 0o644)
            yield Finding("record", layout, "it is not ours", "it is written again", write)

    def _blobs(self) -> Iterator[Finding]:
        sizes: dict[Digest, int] = {}
        for blob in self._content.digests():
            try:
                sizes[blob] = self._content.size(blob)
            except NotFound:
                continue
        total, done = sum(sizes.values()), 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            self._progress(done, total)

        for blob in sizes:
            try:
                problem = blob_problem(self._content, blob, advance)
            except NotFound:
                continue
            if problem:
                self._bad.add(blob)
                yield Finding(
                    "blob", blob, problem, "it is set aside", partial(self._set_blob_aside, blob)
                )

    def _set_blob_aside(self, blob: Digest) -> None:
        path = self._content.path(blob)
        self._shelf.set_aside(
            path, f"blob-{os.path.basename(path)}", "it is not what its name says"
        )
        self._images.index.forget(blob)

    def _entry(self, entry: Descriptor) -> Iterator[Finding]:
        name = entry.annotations.get(ANNOTATION_IMAGE_NAME) or entry.digest
        try:
            manifest = manifest_or_index(self._content.read(entry.digest), entry.media_type)
            if not isinstance(manifest, Manifest):
                raise InvalidParameter(f"{entry.digest} is an index, not an image")
            config = image_config(self._content.read(manifest.config.digest))
        except DockpyError as error:
            if entry in self._images.index.entries():  # else it has just been removed
                drop = partial(self._images.index.drop, entry, self._shelf)
                yield Finding("image", name, str(error), f"its name is given up: {AGAIN}", drop)
            return
        for layer, chain, diff_id in zip(manifest.layers, config.chain_ids, config.diff_ids):
            if self._content.has(layer.digest) and layer.digest not in self._bad:
                self._sources[chain] = stored(self._content, layer, diff_id)
            elif self._images.has_layer(layer.digest, chain, diff_id) and (
                layer.digest not in self._bad
            ):
                self._dropped.setdefault(chain, diff_id)
            elif entry in self._images.index.entries():
                able = "runs" if self._images.snapshots.has(chain) else "cannot run"
                problem = f"layer {layer.digest} lacks: it {able}, and cannot be saved"
                yield Finding("image", name, problem, AGAIN)

    def _layers(self) -> Iterator[Finding]:
        snapshots = self._images.snapshots
        for chain in snapshots.chains():
            source = self._sources.get(chain)
            if source is None and chain in self._dropped:
                diff_id = self._dropped[chain]
                problem = self._archive_problem(chain, diff_id)
                if problem and chain in snapshots.chains():
                    remedy = "how its archive is made again is forgotten: then " + AGAIN
                    forget = partial(self._images.recipes.remove, diff_id)
                    yield Finding("layer", chain, problem, remedy, forget)
                if problem:
                    continue
                source = LayerSource(partial(self._archive, chain, diff_id), diff_id)
            problem = self._layer_problem(chain, source)
            if not problem or chain not in snapshots.chains():
                continue
            if source is None:
                yield Finding("layer", chain, problem, f"no blob of it is left: {AGAIN}")
                continue
            repair = partial(snapshots.remake, chain, source)
            yield Finding("layer", chain, problem, "it is unpacked again from its blob", repair)

    def _archive(self, chain: ChainID, diff_id: DiffID) -> Read:
        return self._images.recipes.open(diff_id, self._images.snapshots.chain_tree(chain))

    def _archive_problem(self, chain: ChainID, diff_id: DiffID) -> str:
        try:
            read = self._archive(chain, diff_id)
            while read(CHUNK):
                pass
        except NotFound:
            return "" if self._images.recipes.has(diff_id) else "its recipe is gone"
        except (DockpyError, OSError) as error:
            return sentence(error)
        return ""

    def _layer_problem(self, chain: ChainID, source: LayerSource | None) -> str:
        try:
            tree = self._images.snapshots.chain_tree(chain)
            if source is not None:
                deep = self._deep and chain in self._sources
                return tree_problem(source.open(), tree, content=deep)
            if tree.data and not os.path.isdir(tree.data):
                return f"its files are another store's, and {tree.data} is gone"
            return "" if os.path.isdir(tree.path) else "its tree is missing"
        except NotFound:
            return ""  # it has just been removed
        except (InvalidParameter, Unavailable) as error:
            return str(error)

    def _unwanted(self) -> Iterator[Finding]:
        blobs, chains, recipes = self._images.unwanted()
        things: dict[str, str] = {
            **dict.fromkeys(blobs, "a blob"),
            **dict.fromkeys(chains, "a layer"),
        }
        things.update(dict.fromkeys(recipes, "a recipe of a layer"))
        for thing, kind in things.items():
            yield Finding(
                "leftover",
                thing,
                f"{kind} that no image has",
                "it is removed",
                self._images.collect,
            )
        snapshots = self._images.snapshots
        for tree in snapshots.unknown():
            repair = partial(snapshots.discard_unknown, tree)
            yield Finding(
                "leftover", tree, "a tree that belongs to nothing", "it is removed", repair
            )

    def _temporaries(self) -> Iterator[Finding]:
        root = self._content.root
        arriving = [entry.path for entry in os.scandir(f"{root}/ingest")]
        recipes = self._images.recipes.partial_files()
        for path in (*files.partial_files(root), *recipes, *arriving):
            if is_left_over(path) and not os.path.basename(path).startswith(f"{os.getpid()}."):
                repair = partial(remove.remove_path, path)
                yield Finding("leftover", path, "half written", "it is removed", repair)
