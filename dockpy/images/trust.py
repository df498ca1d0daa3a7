"""`image verify`: whether an image carries a signature by a given key, as cosign makes them. Nothing is kept.

Followed is cosign's SIGNATURE_SPEC.md: signatures are layers of a manifest that the tag `sha256-<hex>.sig` names
in the image's repository ("Tag-based Discovery"), or a referrer of cosign's artifact type (distribution-spec 1.1); a
layer is the payload (Red Hat's simple signing), its annotation the signature. Beyond the specification, which ignores
it, `docker-reference` must name the repository asked about: else what was signed as `dev/app` could be shown as `app`.
Certificates, transparency logs and sigstore's bundles are not looked at: the key alone decides.

What is verified is a digest: the local image's in that repository, held against what the image is (names of archives
and other stores are only said), or the one in the reference. The tree on disk is `system check`'s.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import trio

from dockpy.config import RegistrySettings
from dockpy.errors import Forbidden, InvalidParameter, NotFound
from dockpy.images.image import Image
from dockpy.images.pull import in_dockers_words
from dockpy.images.signing import PublicKey, Signed, fitting
from dockpy.oci.descriptor import Descriptor
from dockpy.oci.digest import Digest, algorithm_of, hex_of
from dockpy.oci.fields import Fields, parse
from dockpy.oci.manifest import Manifest
from dockpy.oci.reference import Reference, parse_reference
from dockpy.registry.auth import ANONYMOUS, Credentials
from dockpy.registry.client import Fetched, Repository
from dockpy.registry.connect import DIRECT, Access, connect
from dockpy.registry.errors import Denied, NeedsLogin, NotThere, Untrue, plain
from dockpy.registry.session import RETRIES, Retries

SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
ARTIFACT = "application/vnd.dev.cosign.artifact.sig.v1+json"
BUNDLE = "application/vnd.dev.sigstore.bundle"
SIGNATURE = "dev.cosignproject.cosign/signature"
PAYLOAD_TYPE = "cosign container image signature"

PAYLOAD_LIMIT = 64 << 10
SIGNATURE_LIMIT = 8 << 10  # in base64: one of RSA with 16384 bits has 2.7 KiB
SIGNATURES = 100
REFERRERS = 1000
_DEPTH = 4  # indexes in each other
_TOLD = 3  # reasons in one sentence


class NotTrusted(Forbidden):
    """No signature holds; the message names what is wrong with those that are there."""


@dataclass(frozen=True)
class Verified:
    reference: Reference  # by digest
    signatures: int  # of this key


async def verify(
    name: Reference,
    image: Image | None,
    key: PublicKey,
    settings: RegistrySettings,
    credentials: Credentials = ANONYMOUS,
    access: Access = DIRECT,
    retries: Retries = RETRIES,
) -> Verified:
    """`image` is the local one of that name; without one, `name` must have a digest.

    NotFound: no signature. NotTrusted: none that holds. Unavailable: nothing to find out with.
    """
    async with connect(name.domain, settings, credentials, access, retries) as registry:
        repository = Repository(registry, name.path)
        problems: list[str] = []
        try:
            for subject in _subjects(name, image):
                if image is not None and not await _is(repository, subject, image):
                    problems.append(f"the local image is not what {subject} names")
                    continue
                asked = _Asked(repository, name, subject, key)
                holding = await asked.holding()
                if holding:
                    return Verified(name.with_digest(subject), holding)
                problems += asked.problems
        except (NotThere, Denied, NeedsLogin) as error:
            raise in_dockers_words(error, name) from None
    if not problems:
        raise NotFound(f"{name.familiar()} is not signed: no cosign signature was found")
    told = list(dict.fromkeys(problems))
    rest = f"; and {len(told) - _TOLD} more" if len(told) > _TOLD else ""
    raise NotTrusted(f"no signature of {name.familiar()} holds: {'; '.join(told[:_TOLD])}{rest}")


def _subjects(name: Reference, image: Image | None) -> Sequence[Digest]:
    if name.digest:
        return (name.digest,)
    known = [parse_reference(text) for text in image.repo_digests] if image else []
    found = [one.digest for one in known if one.name == name.name and one.digest]
    if not found:
        raise NotFound(
            f"{name.familiar()} has no digest in {name.familiar_name}: it was not pulled from there, nor pushed;"
            " pull it, or name a digest (NAME@sha256:…)"
        )
    return found


async def _is(repository: Repository, subject: Digest, image: Image) -> bool:
    """Whether `subject` names this image: its manifest, one with its config, or an index with it."""
    digest = subject
    for _ in range(_DEPTH):
        if digest == image.descriptor.digest:
            return True
        document = (await repository.manifest(digest)).document
        if isinstance(document, Manifest):
            return document.config.digest == image.id
        if any(one.digest == image.descriptor.digest for one in document.manifests):
            return True
        chosen = document.choose(image.config.platform)
        if chosen is None:
            break
        digest = chosen.digest
    return False


class _Asked:
    """One digest's signatures. `problems` says of each that does not hold why."""

    def __init__(
        self, repository: Repository, name: Reference, subject: Digest, key: PublicKey
    ) -> None:
        self.problems: list[str] = []
        self._repository = repository
        self._name = name
        self._subject = subject
        self._key = key
        self._seen: set[tuple[Digest, str]] = set()

    async def holding(self) -> int:
        """How many hold. Referrers are asked for where the tag has none that does."""
        sources: Sequence[Callable[[], Awaitable[Sequence[Fetched]]]] = (
            self._by_tag,
            self._by_referrers,
        )
        for source in sources:
            layers = self._layers(await source())
            holding = await self._judged(layers)
            if holding:
                return holding
        return 0

    async def _by_tag(self) -> Sequence[Fetched]:
        if algorithm_of(self._subject) != "sha256":
            return ()  # its tag would be too long to be one
        return await self._manifests([f"sha256-{hex_of(self._subject)}.sig"])

    async def _by_referrers(self) -> Sequence[Fetched]:
        listed = await self._repository.referrers(self._subject, limit=REFERRERS)
        ours = [str(one.digest) for one in listed if one.artifact_type == ARTIFACT]
        if not ours and any(one.artifact_type.startswith(BUNDLE) for one in listed):
            self.problems.append(
                "there is a signature in sigstore's bundle format, which is not served: sign with"
                " cosign's --new-bundle-format=false"
            )
        self._check_number(len(ours))
        return await self._manifests(ours)

    async def _manifests(self, references: Sequence[str]) -> Sequence[Fetched]:
        found: list[Fetched] = []
        for reference in references:
            try:
                found.append(await self._repository.manifest(reference))
            except NotThere:
                continue
        return found

    def _layers(self, manifests: Sequence[Fetched]) -> Sequence[Descriptor]:
        found: list[Descriptor] = []
        for manifest in manifests:
            document = manifest.document
            for layer in document.layers if isinstance(document, Manifest) else ():
                one = (layer.digest, layer.annotations.get(SIGNATURE, ""))
                if layer.media_type == SIMPLE_SIGNING and one not in self._seen:
                    self._seen.add(one)
                    found.append(layer)
        self._check_number(len(self._seen))
        return found

    def _check_number(self, count: int) -> None:
        if count > SIGNATURES:
            raise NotTrusted(
                f"{self._name.familiar()} has more than {SIGNATURES} signatures, which nobody looks through"
            )

    async def _judged(self, layers: Sequence[Descriptor]) -> int:
        signed: list[Signed] = []
        for layer in layers:
            try:
                signature = _signature(layer)
                payload = await self._repository.small_blob(layer, PAYLOAD_LIMIT)
            except Untrue as error:
                self.problems.append(f"its payload was tampered with: {error}")
            except (InvalidParameter, NotThere) as error:
                self.problems.append(str(error))
            else:
                signed.append(Signed(payload, signature))
        fits = await trio.to_thread.run_sync(fitting, self._key, signed)
        holding = 0
        for one, is_the_keys in zip(signed, fits):
            if not is_the_keys:
                self.problems.append("it was made by another key, or its payload was changed since")
                continue
            try:
                check(one.payload, self._name, self._subject)
            except (InvalidParameter, NotTrusted) as error:
                self.problems.append(str(error))
            else:
                holding += 1
        return holding


def _signature(layer: Descriptor) -> bytes:
    text = layer.annotations.get(SIGNATURE, "")
    if not text:
        raise InvalidParameter(f"the payload {layer.digest} has no signature with it")
    try:
        if len(text) > SIGNATURE_LIMIT:
            raise ValueError
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidParameter(f"the signature of {layer.digest} is no base64 of one") from None


def check(payload: bytes, name: Reference, subject: Digest) -> None:
    """Whether a payload whose signature holds speaks of this digest in this repository."""
    document = Fields(parse(payload, "its payload"), "its payload")
    critical = Fields(document.raw("critical"), "its payload's critical")
    kind = critical.text("type", "")
    if kind != PAYLOAD_TYPE:
        raise NotTrusted(f"its payload is of another type: {plain(kind) or 'none'}")
    signed = Fields(critical.raw("image"), "its payload's image").text("docker-manifest-digest")
    if signed != subject:
        raise NotTrusted(f"it was made for another image: {plain(signed)}, not {subject}")
    identity = Fields(critical.raw("identity"), "its payload's identity")
    reference = identity.text("docker-reference")
    try:
        repository = parse_reference(reference).name
    except InvalidParameter:
        repository = ""
    if repository != name.name:
        raise NotTrusted(
            f"it was made for another repository: {plain(reference) or 'none'}, not {name.familiar_name}"
        )
