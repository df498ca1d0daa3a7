"""Which names there are, and which blobs, manifests, tags and referrers each has: small files in folders.

    repositories/<name>/_blobs/<algorithm>/<hex>                          empty: the blob may be read here
    repositories/<name>/_manifests/<algorithm>/<hex>                      a Record
    repositories/<name>/_tags/<tag>                                       the digest
    repositories/<name>/_referrers/<algorithm>/<hex>/<algorithm>.<hex>    empty: subject, then who refers

No path component of a name begins with `_`. Written in an order that may be cut anywhere: what is pointed
at comes first and goes last. A blob is kept for as long as some repository has it; the uses are counted
in memory, at the start from the folders, so one process serves a folder (main holds its lock).
Everything blocks; names, tags and digests come checked (routes).
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from dockpy import files
from dockpy.errors import InvalidParameter, NotFound
from dockpy.oci.descriptor import Descriptor
from dockpy.oci.digest import Digest, algorithm_of, digest, digest_of, hasher, hex_of
from dockpy.registry.blobs import BlobStore, Upload
from dockpy.registry.directory import place_file
from dockpy.registry.manifests import LIMIT, Record, check, record_from_json
from dockpy.registry.refusals import Refusal

_RECORD_LIMIT = LIMIT * 2  # its annotations are the manifest's
_TOUCHED = 60.0  # seconds between two times that a blob's use is noted


class Repositories:
    def __init__(self, root: str, blobs: BlobStore) -> None:
        self.blobs = blobs
        self._root = f"{root}/repositories"
        self._tmp = f"{root}/tmp"
        self._lock = threading.RLock()
        self._uses: Counter[Digest] = Counter()
        for folder in (self._root, self._tmp):
            os.makedirs(folder, mode=0o700, exist_ok=True)
        for name in self._folders(""):
            for kind in ("_blobs", "_manifests"):
                self._uses.update(self._digests(f"{self._root}/{name}/{kind}"))
        for blob in list(blobs.digests()):
            if not self._uses[blob]:  # cut between the blob and its name, or between name and blob
                blobs.remove(blob)

    # -------------------------------------------------------------------------------- paths

    def _place(self, name: str, kind: str, value: Digest) -> str:
        return f"{self._root}/{name}/{kind}/{algorithm_of(value)}/{hex_of(value)}"

    def _folders(self, name: str) -> Iterator[str]:
        """All repositories at and below `name`."""
        folder = f"{self._root}/{name}" if name else self._root
        entries = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
        if name and any(entry in ("_blobs", "_manifests", "_tags") for entry in entries):
            yield name
        for entry in entries:
            if not entry.startswith("_"):
                yield from self._folders(f"{name}/{entry}" if name else entry)

    def _digests(self, folder: str) -> Iterator[Digest]:
        for algorithm in ("sha256", "sha512"):
            try:
                names = os.listdir(f"{folder}/{algorithm}")
            except FileNotFoundError:
                continue
            for name in names:
                yield digest(f"{algorithm}:{name}")

    def _exists(self, name: str) -> bool:
        return any(
            os.path.isdir(f"{self._root}/{name}/{kind}") for kind in ("_manifests", "_blobs")
        )

    def _make(self, path: str) -> None:
        """The folder of `path`, each new level of it durable."""
        missing = []
        folder = os.path.dirname(path)
        while not os.path.isdir(folder):
            missing.append(folder)
            folder = os.path.dirname(folder)
        for folder in reversed(missing):
            os.mkdir(folder, 0o700)
            files.sync_folder(os.path.dirname(folder))

    def _write(self, path: str, data: bytes) -> None:
        self._make(path)
        place_file(self._tmp, path, data)

    def _mark(self, path: str) -> None:
        """An empty file."""
        self._make(path)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
        files.sync_folder(os.path.dirname(path))

    def _erase(self, path: str) -> None:
        os.unlink(path)
        files.sync_folder(os.path.dirname(path))

    # -------------------------------------------------------------------------------- blobs

    def blob_size(self, name: str, blob: Digest) -> int:
        path = self._place(name, "_blobs", blob)
        try:
            if time.time() - os.stat(path).st_mtime > _TOUCHED:
                os.utime(path)  # a client that has been told so will not push it: see sweep()
            return self.blobs.size(blob)
        except FileNotFoundError:
            raise _unknown_blob(blob) from None
        except NotFound:
            raise _unknown_blob(blob) from None

    def open_blob(self, name: str, blob: Digest) -> tuple[int, int]:
        """(descriptor, size); the caller closes it."""
        self.blob_size(name, blob)
        try:
            fd = self.blobs.open(blob)
        except NotFound:
            raise _unknown_blob(blob) from None
        return fd, os.fstat(fd).st_size

    def mount(self, name: str, blob: Digest) -> bool:
        """Whether some repository had `blob`; then `name` has it too.

        Whoever may read one repository here may read all, so it does not matter which one has it.
        """
        with self._lock:
            if not self._uses[blob] or not self.blobs.has(blob):
                return False
            self._link(name, blob)
            return True

    def finish(self, upload: Upload, expected: Digest) -> None:
        """Refusal DIGEST_INVALID where `upload` is not what it should be; it is gone then."""
        try:
            self.blobs.seal(upload, expected)  # slow: the disk
        except InvalidParameter as error:
            raise Refusal("DIGEST_INVALID", str(error)) from None
        with self._lock:
            self.blobs.commit(upload, expected)
            self._link(upload.name, expected)

    def _link(self, name: str, blob: Digest) -> None:
        path = self._place(name, "_blobs", blob)
        if os.path.exists(path):
            os.utime(path)  # in use: see sweep()
        else:
            self._mark(path)
            self._uses[blob] += 1

    def remove_blob(self, name: str, blob: Digest) -> None:
        with self._lock:
            self.blob_size(name, blob)
            self._unlink(name, "_blobs", blob)

    def _unlink(self, name: str, kind: str, value: Digest) -> None:
        self._erase(self._place(name, kind, value))
        self._uses[value] -= 1
        if self._uses[value] <= 0:
            del self._uses[value]
            self.blobs.remove(value)

    # ---------------------------------------------------------------------------- manifests

    def resolve(self, name: str, tag: str, value: Digest | None) -> tuple[Digest, Record]:
        """The manifest that `tag` or the digest `value` names."""
        if value is None:
            try:
                value = digest(
                    files.read_bytes(f"{self._root}/{name}/_tags/{tag}", 200).decode("ascii")
                )
            except (FileNotFoundError, NotADirectoryError):
                raise self._unknown_manifest(name, tag) from None
        try:
            return value, self._record(name, value)
        except FileNotFoundError:
            raise self._unknown_manifest(name, tag or value) from None

    def _record(self, name: str, value: Digest) -> Record:
        path = self._place(name, "_manifests", value)
        return record_from_json(json.loads(files.read_bytes(path, _RECORD_LIMIT)))

    def manifest(self, name: str, value: Digest) -> bytes:
        try:
            return self.blobs.read(value, LIMIT)
        except NotFound:
            raise self._unknown_manifest(name, value) from None

    def put_manifest(
        self,
        name: str,
        tags: Sequence[str],
        value: Digest | None,
        data: bytes,
        content_type: str,
        *,
        whole: bool = True,
    ) -> tuple[Digest, Record]:
        """Keeps a manifest. `whole`: all that it refers to has to be here."""
        state = hasher(value)
        state.update(data)
        found = digest_of(state)
        if value is not None and found != value:
            raise Refusal("DIGEST_INVALID", f"the manifest has digest {found}, not {value}")
        checked = check(data, content_type)
        with self._lock:
            if whole:
                self._check_needs(name, checked.needs)
            self.blobs.put(data, found)
            path = self._place(name, "_manifests", found)
            new = not os.path.exists(path)
            self._write(path, json.dumps(checked.record.to_json()).encode())
            self._uses[found] += new
            if checked.record.subject is not None:
                self._mark(self._referrer(name, checked.record.subject, found))
            for tag in tags:
                self.point(name, tag, found)
        return found, checked.record

    def point(self, name: str, tag: str, value: Digest) -> None:
        """Makes `tag` name a manifest that is here."""
        self._write(f"{self._root}/{name}/_tags/{tag}", value.encode())

    def _check_needs(self, name: str, needs: Iterable[tuple[str, Descriptor]]) -> None:
        """What the manifest refers to is in this repository, and as long as it says."""
        for kind, entry in needs:
            try:
                if kind == "blobs":
                    size = self.blob_size(name, entry.digest)
                else:
                    size = self._record(name, entry.digest).size
            except (Refusal, FileNotFoundError):
                raise Refusal(
                    "MANIFEST_BLOB_UNKNOWN",
                    f"{name} has no {kind[:-1]} {entry.digest}, which the manifest refers to",
                    status=400,  # as docker's registry
                    detail={"digest": entry.digest},
                ) from None
            if size != entry.size:
                raise Refusal(
                    "MANIFEST_INVALID",
                    f"{entry.digest} has {size} bytes, not {entry.size} as the manifest says",
                )

    def size_in_manifests(self, name: str, blob: Digest) -> int | None:
        """What some manifest of the repository says of the size of `blob`."""
        for value in self._digests(f"{self._root}/{name}/_manifests"):
            try:
                record = self._record(name, value)
                if blob in record.blobs:
                    needs = check(self.manifest(name, value), record.media_type).needs
                    return next(entry.size for _, entry in needs if entry.digest == blob)
            except (FileNotFoundError, Refusal):
                continue  # removed meanwhile
        return None

    def remove_tag(self, name: str, tag: str) -> None:
        with self._lock:
            try:
                self._erase(f"{self._root}/{name}/_tags/{tag}")
            except FileNotFoundError:
                raise self._unknown_manifest(name, tag) from None

    def remove_manifest(self, name: str, value: Digest) -> None:
        """With the tags that name it; what it refers to goes at the next sweep."""
        with self._lock:
            _, record = self.resolve(name, "", value)
            for tag in self._tags(name):
                if self._tagged(name, tag) == value:
                    self._erase(f"{self._root}/{name}/_tags/{tag}")
            if record.subject is not None:
                files.unlink_if_exists(self._referrer(name, record.subject, value))
            self._unlink(name, "_manifests", value)

    def _referrer(self, name: str, subject: Digest, value: Digest) -> str:
        return f"{self._place(name, '_referrers', subject)}/{value.replace(':', '.')}"

    def _unknown_manifest(self, name: str, reference: str) -> Refusal:
        if not self._exists(name):
            return Refusal(
                "NAME_UNKNOWN", f"repository {name} is not known here", detail={"name": name}
            )
        return Refusal(
            "MANIFEST_UNKNOWN", f"{name} has no manifest {reference}", detail={"tag": reference}
        )

    # ---------------------------------------------------------------------------- listings

    def names(self) -> list[str]:
        return sorted(name for name in self._folders("") if self._has_manifests(name))

    def _has_manifests(self, name: str) -> bool:
        return next(self._digests(f"{self._root}/{name}/_manifests"), None) is not None

    def tags(self, name: str) -> list[str]:
        """In the specification's order: without regard to case."""
        if not self._exists(name):
            raise self._unknown_manifest(name, "")
        return sorted(self._tags(name), key=tag_order)

    def _tags(self, name: str) -> list[str]:
        try:
            return os.listdir(f"{self._root}/{name}/_tags")
        except FileNotFoundError:
            return []

    def _tagged(self, name: str, tag: str) -> str:
        return files.read_bytes(f"{self._root}/{name}/_tags/{tag}", 200).decode("ascii")

    def referrers(self, name: str, subject: Digest) -> Iterator[tuple[Digest, Record]]:
        """By digest; none for a subject that nobody knows."""
        try:
            names = os.listdir(self._place(name, "_referrers", subject))
        except FileNotFoundError:
            return
        for entry in sorted(names):
            value = digest(entry.replace(".", ":"))
            try:
                yield value, self._record(name, value)
            except FileNotFoundError:
                continue  # cut between the record and its mark

    # ------------------------------------------------------------------------------- sweep

    def sweep(self, unused: float) -> int:
        """Forgets blobs that no manifest of their repository has named for `unused` seconds; how many.

        What is pushed before its manifest, and what a client has been told is there, is younger.
        """
        number = 0
        for name in list(self._folders("")):
            with self._lock:
                named: set[Digest] = set()
                for value in self._digests(f"{self._root}/{name}/_manifests"):
                    named.update(self._record(name, value).blobs)
                for blob in list(self._digests(f"{self._root}/{name}/_blobs")):
                    if blob not in named and self._age(name, blob) >= unused:
                        self._unlink(name, "_blobs", blob)
                        number += 1
        return number

    def evict(self, unused: float) -> int:
        """Forgets the blobs that nobody has asked for in so long, whatever names them: of a cache."""
        number = 0
        for name in list(self._folders("")):
            for blob in list(self._digests(f"{self._root}/{name}/_blobs")):
                with self._lock:
                    if self._age(name, blob) >= unused:
                        self._unlink(name, "_blobs", blob)
                        number += 1
        return number

    def fit(self, limit: int, fresh: Digest | None = None) -> int:
        """Forgets, until all that is kept has at most `limit` bytes, the blobs that nobody has asked for longest, and
        then the oldest manifests: of a cache. How many. `fresh` is about to be read, and stays.
        """
        number = 0
        with self._lock:
            sizes: dict[Digest, int] = {}
            for blob in list(self.blobs.digests()):
                with suppress(NotFound):
                    sizes[blob] = self.blobs.size(blob)
            total = sum(sizes.values())
            if total <= limit:
                return 0
            for _, kind, name, value in self._by_use():
                if total <= limit:
                    break
                if value == fresh:
                    continue
                if kind == "_blobs":
                    self._unlink(name, kind, value)
                else:
                    self.remove_manifest(name, value)
                number += 1
                if not self._uses[value]:
                    total -= sizes.pop(value, 0)
        return number

    def _by_use(self) -> list[tuple[float, str, str, Digest]]:
        """(time, kind, repository, digest) of all blobs and then all manifests, each the oldest first."""
        found: dict[str, list[tuple[float, str, str, Digest]]] = {"_blobs": [], "_manifests": []}
        for name in self._folders(""):
            for kind, items in found.items():
                for value in self._digests(f"{self._root}/{name}/{kind}"):
                    used = os.stat(self._place(name, kind, value)).st_mtime
                    items.append((used, kind, name, value))
        return sorted(found["_blobs"]) + sorted(found["_manifests"])

    def _age(self, name: str, blob: Digest) -> float:
        return time.time() - os.stat(self._place(name, "_blobs", blob)).st_mtime


def tag_order(tag: str) -> tuple[str, str]:
    return tag.lower(), tag


def _unknown_blob(blob: Digest) -> Refusal:
    return Refusal("BLOB_UNKNOWN", f"blob {blob} is not in this repository", detail=blob)
