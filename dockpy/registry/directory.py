"""A blob store in a folder: an OCI image layout's `blobs/`, and `uploads/` beside it.

    oci-layout  blobs/<algorithm>/<hex>  uploads/<id>/data  uploads/<id>/repository  tmp/

A name below `blobs/` appears by a rename, after the bytes were hashed and synced: whatever kills the
process leaves the whole blob or an upload that can go on. The digest of an upload is computed while it
arrives; after a restart it is read again at the end.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator

from dockpy import files
from dockpy.errors import InvalidParameter, NotFound
from dockpy.linux.disk import start_writing
from dockpy.oci.digest import Digest, algorithm_of, digest_of, hasher
from dockpy.registry.blobs import Upload
from dockpy.storage import layout
from dockpy.storage.layout import WRITTEN_EARLY


class DirectoryBlobs:
    def __init__(self, root: str) -> None:
        self.root = root
        self._uploads = f"{root}/uploads"
        self._arriving: dict[str, DirectoryUpload] = {}
        layout.make(root)
        os.makedirs(self._uploads, mode=0o700, exist_ok=True)
        os.makedirs(f"{root}/tmp", mode=0o700, exist_ok=True)
        for entry in os.scandir(f"{root}/tmp"):
            os.unlink(entry.path)

    def _path(self, blob: Digest) -> str:
        return layout.place(self.root, blob)

    def has(self, blob: Digest) -> bool:
        return os.path.exists(self._path(blob))

    def size(self, blob: Digest) -> int:
        return layout.size_at(self._path(blob), blob)

    def open(self, blob: Digest) -> int:
        return layout.open_at(self._path(blob), blob)

    def read(self, blob: Digest, limit: int) -> bytes:
        return layout.read_at(self._path(blob), blob, limit, "push it again")

    def put(self, data: bytes, blob: Digest) -> None:
        # Also where there is one: a damaged manifest is mended by pushing it again.
        place_file(f"{self.root}/tmp", self._path(blob), data)

    def remove(self, blob: Digest) -> None:
        files.unlink_if_exists(self._path(blob))

    def digests(self) -> Iterator[Digest]:
        return layout.digests(self.root)

    # --------------------------------------------------------------------------- uploads

    def begin(self, name: str, algorithm: str = "sha256") -> DirectoryUpload:
        id = str(uuid.UUID(bytes=os.urandom(16), version=4))
        folder = f"{self._uploads}/{id}"
        os.mkdir(folder, 0o700)
        files.write_atomic(f"{folder}/repository", name.encode(), durable=False)
        os.close(os.open(f"{folder}/data", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
        upload = DirectoryUpload(folder, id, name, 0, algorithm)
        self._arriving[id] = upload
        return upload

    def upload(self, id: str) -> DirectoryUpload:
        found = self._arriving.get(id)
        if found is not None:
            return found
        folder = f"{self._uploads}/{id}"
        try:
            name = files.read_bytes(f"{folder}/repository", 4096).decode()
            size = os.stat(f"{folder}/data").st_size
        except FileNotFoundError:
            raise NotFound(f"no upload {id}") from None
        return self._arriving.setdefault(id, DirectoryUpload(folder, id, name, size))

    def seal(self, upload: Upload, expected: Digest) -> None:
        found = self.upload(upload.id).seal(expected)
        if found != expected:
            self.abort(upload)
            raise InvalidParameter(f"the upload has digest {found}, not {expected}")

    def commit(self, upload: Upload, expected: Digest) -> None:
        path = self._path(expected)
        os.rename(f"{self._uploads}/{upload.id}/data", path)
        files.sync_folder(os.path.dirname(path))
        self.abort(upload)

    def abort(self, upload: Upload) -> None:
        self._arriving.pop(upload.id, None)
        shutil.rmtree(f"{self._uploads}/{upload.id}", ignore_errors=True)

    def expire(self, seconds: float) -> int:
        number = 0
        for entry in list(os.scandir(self._uploads)):
            try:
                touched = os.stat(f"{entry.path}/data").st_mtime
            except FileNotFoundError:  # cut between two steps of begin or commit
                touched = entry.stat().st_mtime
            if time.time() - touched >= seconds:
                self._arriving.pop(entry.name, None)
                shutil.rmtree(entry.path, ignore_errors=True)
                number += 1
        return number


class DirectoryUpload:
    def __init__(
        self, folder: str, id: str, name: str, size: int, algorithm: str = "sha256"
    ) -> None:
        self.folder = folder
        self.id = id
        self.name = name
        self.size = size
        self._hash = hashlib.new(algorithm)
        self._hashed = 0
        self._flushed = size

    def open(self) -> int:
        return os.open(f"{self.folder}/data", os.O_RDONLY | os.O_CLOEXEC)

    def append(self, data: bytes) -> None:
        try:
            fd = os.open(f"{self.folder}/data", os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NotFound(f"no upload {self.id}") from None
        try:
            self._write(fd, data)
        finally:
            os.close(fd)
        if self._hashed == self.size:
            self._hash.update(data)
            self._hashed += len(data)
        self.size += len(data)

    def _write(self, fd: int, data: bytes) -> None:
        position = self.size
        view = memoryview(data)
        try:
            while view:
                written = os.pwrite(fd, view, position)
                position += written
                view = view[written:]
        except OSError:
            os.ftruncate(fd, self.size)
            raise
        if position - self._flushed >= WRITTEN_EARLY:
            start_writing(fd, self._flushed, position - self._flushed)
            self._flushed = position

    def seal(self, expected: Digest) -> Digest:
        """Its digest, of the algorithm of `expected`, with the bytes safe on disk."""
        if algorithm_of(expected) != self._hash.name:
            self._hash, self._hashed = hasher(expected), 0
        fd = os.open(f"{self.folder}/data", os.O_RDONLY | os.O_CLOEXEC)
        try:
            while True:
                data = os.pread(fd, 1 << 20, self._hashed)
                if not data:
                    break
                self._hash.update(data)
                self._hashed += len(data)
            found = digest_of(self._hash)
            if found == expected:
                os.fdatasync(fd)
            return found
        finally:
            os.close(fd)


def place_file(temporary: str, path: str, data: bytes) -> None:
    """`path` with `data`, durable, in one step, and by way of another folder: every name there is one of
    the user's.
    """
    partial = files.write_temporary(f"{temporary}/new", data, 0o644, durable=True)
    os.rename(partial, path)
    files.sync_folder(os.path.dirname(path))
