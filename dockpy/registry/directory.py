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
from dockpy.oci.digest import Digest, algorithm_of, digest, digest_of, hasher, hex_of
from dockpy.registry.blobs import Upload

_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_WRITTEN_EARLY = 8 << 20  # as in storage.content: the disk works while more arrives


class DirectoryBlobs:
    def __init__(self, root: str) -> None:
        self.root = root
        self._uploads = f"{root}/uploads"
        self._arriving: dict[str, DirectoryUpload] = {}
        for algorithm in ("sha256", "sha512"):
            os.makedirs(f"{root}/blobs/{algorithm}", mode=0o700, exist_ok=True)
        os.makedirs(self._uploads, mode=0o700, exist_ok=True)
        os.makedirs(f"{root}/tmp", mode=0o700, exist_ok=True)
        for entry in os.scandir(f"{root}/tmp"):
            os.unlink(entry.path)
        if not os.path.exists(f"{root}/oci-layout"):
            files.write_atomic(f"{root}/oci-layout", _LAYOUT, 0o644)

    def _path(self, blob: Digest) -> str:
        return f"{self.root}/blobs/{algorithm_of(blob)}/{hex_of(blob)}"

    def has(self, blob: Digest) -> bool:
        return os.path.exists(self._path(blob))

    def size(self, blob: Digest) -> int:
        try:
            return os.stat(self._path(blob)).st_size
        except FileNotFoundError:
            raise _missing(blob) from None

    def open(self, blob: Digest) -> int:
        try:
            return os.open(self._path(blob), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise _missing(blob) from None

    def read(self, blob: Digest, limit: int) -> bytes:
        try:
            data = files.read_bytes(self._path(blob), limit)
        except FileNotFoundError:
            raise _missing(blob) from None
        except ValueError:
            raise InvalidParameter(f"blob {blob} is longer than {limit} bytes") from None
        state = hasher(blob)
        state.update(data)
        if digest_of(state) != blob:
            raise InvalidParameter(f"blob {blob} on disk does not have this digest: push it again")
        return data

    def put(self, data: bytes, blob: Digest) -> None:
        # Also where there is one: a damaged manifest is mended by pushing it again.
        place_file(f"{self.root}/tmp", self._path(blob), data)

    def remove(self, blob: Digest) -> None:
        files.unlink_if_exists(self._path(blob))

    def digests(self) -> Iterator[Digest]:
        for algorithm in ("sha256", "sha512"):
            for name in os.listdir(f"{self.root}/blobs/{algorithm}"):
                try:
                    yield digest(f"{algorithm}:{name}")
                except InvalidParameter:
                    continue  # somebody else's file

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
        if position - self._flushed >= _WRITTEN_EARLY:
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


def _missing(blob: Digest) -> NotFound:
    return NotFound(f"content {blob} is not in the store")
