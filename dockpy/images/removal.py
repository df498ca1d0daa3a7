"""One `rmi`, after moby's ImageDelete: what it refuses, and in which order it tells what it did.

To be run within the store's locks. `containers` are those made from the image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dockpy.errors import Conflict
from dockpy.images import naming
from dockpy.images.image import Image
from dockpy.oci.reference import Reference, parse_reference

if TYPE_CHECKING:
    from dockpy.images.store import ImageStore


class Removal:
    def __init__(
        self,
        store: ImageStore,
        image: Image,
        text: str,
        force: bool,
        containers: Sequence[str],
        running: Callable[[str], bool],
    ) -> None:
        self.store, self.image, self.text, self.force = store, image, text, force
        self.containers = tuple(containers)
        self.running = running
        self.records: list[dict[str, str]] = []

    def run(self) -> list[dict[str, str]]:
        names = self.store.names_of(self.image.id, own=True)
        by_name = not naming.is_id_prefix(self.image.id, self.text)
        if by_name:
            if not self.force and naming.single(names) and self.containers:
                raise Conflict(
                    f'conflict: unable to remove repository reference "{self.text}" (must force)'
                    f" - container {self.containers[0][:12]} is using its referenced image"
                    f" {self.image.short_id}"
                )
            given = parse_reference(self.text).tagged()
            given = given.with_digest(given.digest) if given.digest else given
            self._untag(next((name for name in names if name == given), given))
            left = [name for name in names if name != given]
            if not given.digest and not any(
                name.name == given.name and not name.digest for name in left
            ):
                # A repository's digests go with its last tag.
                for name in [name for name in left if name.name == given.name]:
                    self._untag(name)
                    left.remove(name)
            if left:
                return self.records
        elif naming.single(names):
            self._check(references=False)
            for name in names:
                self._untag(name)
        elif not self.force:
            self._check(references=True)
        return self._delete(quiet=by_name)

    def _delete(self, quiet: bool) -> list[dict[str, str]]:
        try:
            self._check(references=True)
        except Conflict:
            # The name is gone already, and a used image stays behind without one, as docker's.
            if quiet and self.containers:
                return self.records
            raise
        for name in self.store.names_of(self.image.id, own=True):
            self._untag(name)
        chains = self.store.delete(self.image)
        self.records.append({"Deleted": self.image.id})
        self.records.extend({"Deleted": chain} for chain in chains)
        return self.records

    def _untag(self, name: Reference) -> None:
        self.store.unname(name)
        self.records.append({"Untagged": name.familiar()})

    def _check(self, references: bool) -> None:
        for container in self.containers:
            if self.running(container):
                self._refuse(
                    "cannot be forced", f"image is being used by running container {container[:12]}"
                )
        if self.force:
            return
        if references and self.store.names_of(self.image.id, own=True):
            self._refuse("must be forced", "image is referenced in multiple repositories")
        if self.containers:
            self._refuse(
                "must be forced",
                f"image is being used by stopped container {self.containers[0][:12]}",
            )

    def _refuse(self, how: str, why: str) -> None:
        raise Conflict(f"conflict: unable to delete {self.image.short_id} ({how}) - {why}")
