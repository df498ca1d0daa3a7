"""The registry client over real sockets: against a registry of ours that is honest, and one that lies."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import pytest
import trio

from dockpy.config import RegistrySettings
from dockpy.errors import DockpyError, InvalidParameter
from dockpy.oci.descriptor import OCI_INDEX, OCI_LAYER_GZIP, Descriptor
from dockpy.oci.digest import Digest, digest_bytes
from dockpy.oci.manifest import Manifest
from dockpy.registry.auth import ANONYMOUS, Credentials
from dockpy.registry.client import Repository
from dockpy.registry.endpoints import Endpoint, endpoints
from dockpy.registry.errors import Cut, Denied, NeedsLogin, NotThere, RegistryError, Untrue
from dockpy.registry.session import Registry, Retries
from dockpy.transport.client import HttpClient, Timeouts, TooLong, TransportError
from dockpy.transport.tls import TlsContexts
from tests.registry.toy import (
    Toy,
    always,
    cut_after,
    elsewhere,
    endless,
    first,
    redirect_loop,
    serving,
)

T = TypeVar("T")
QUICK = Retries(attempts=3, first=0.01, longest=2.0)


@pytest.fixture
def toy() -> Iterator[Toy]:
    with serving(Toy()) as served:
        served.put_image([b"layer"], [digest_bytes(b"layer")], "latest", "one", "two")
        yield served


def with_repository(
    toy: Toy,
    work: Callable[[Repository], Awaitable[T]],
    credentials: Credentials = ANONYMOUS,
    where: tuple[Endpoint, ...] = (),
) -> T:
    async def run() -> T:
        limits = Timeouts(connect=2, head=2, idle=2, whole=2)
        with trio.fail_after(10):
            async with HttpClient(TlsContexts(), timeouts=limits) as http:
                at = where or endpoints(toy.host, RegistrySettings())
                return await work(Repository(Registry(http, at, credentials, QUICK), "a/b"))

    return trio.run(run)


async def _blob_of(repository: Repository, data: bytes, offset: int = 0, size: int = -1) -> bytes:
    descriptor = Descriptor(OCI_LAYER_GZIP, digest_bytes(data), len(data) if size < 0 else size)
    async with await repository.blob(descriptor, offset) as blob:
        return b"".join([chunk async for chunk in blob.chunks()])


# Honest


def test_a_manifest_and_its_blobs_come_over_one_connection(toy: Toy) -> None:
    async def work(repository: Repository) -> None:
        fetched = await repository.manifest("latest")
        assert fetched.descriptor.digest == digest_bytes(fetched.data)
        assert isinstance(fetched.document, Manifest)
        assert json.loads(await repository.small_blob(fetched.document.config))["os"] == "linux"
        assert (await repository.describe("latest")).digest == fetched.descriptor.digest
        assert await repository.has_blob(fetched.document.layers[0].digest) == 5
        assert await repository.has_blob(Digest("sha256:" + "0" * 64)) is None
        assert await repository.tags() == ["latest", "one", "two"]
        assert await repository.referrers(fetched.descriptor.digest) == ()

    with_repository(toy, work)
    assert all("Authorization" not in one.headers for one in toy.seen)


def test_a_blob_is_resumed_where_ranges_are_known_and_begun_again_where_not(toy: Toy) -> None:
    data = bytes(range(256)) * 100
    toy.put_blob(data)

    async def work(repository: Repository) -> bytes:
        return await _blob_of(repository, data, 1000)

    assert with_repository(toy, work) == data[1000:]
    toy.ranges = False
    assert with_repository(toy, work) == data


def test_what_is_not_there_is_told_in_the_registrys_words(toy: Toy) -> None:
    with pytest.raises(NotThere, match="manifest unknown: manifest unknown"):
        with_repository(toy, lambda repository: repository.manifest("nope"))


# Who asks


def test_a_token_is_fetched_once_with_our_own_scope(toy: Toy) -> None:
    toy.token_realm = f"{toy.url}/token"

    async def work(repository: Repository) -> None:
        await repository.manifest("latest")
        await repository.describe("one")

    with_repository(toy, work, Credentials("me", "secret"))
    [token] = toy.asked("/token")
    assert "scope=repository%3Aa%2Fb%3Apull&account=me" in token.path
    assert "evil" not in token.path


def test_an_identity_token_is_posted(toy: Toy) -> None:
    toy.token_realm = f"{toy.url}/token"
    with_repository(toy, lambda one: one.manifest("latest"), Credentials(identity_token="re&fresh"))
    [token] = toy.asked("/token")
    assert token.method == "POST"
    assert b"grant_type=refresh_token" in token.body
    assert b"refresh_token=re%26fresh" in token.body


def test_wrong_passwords_are_told_as_such(toy: Toy) -> None:
    toy.basic = True
    with_repository(toy, lambda one: one.manifest("latest"), Credentials("me", "secret"))
    for credentials in (Credentials("me", "wrong"), ANONYMOUS):
        with pytest.raises(NeedsLogin, match="unauthorized: authentication required"):
            with_repository(toy, lambda one: one.manifest("latest"), credentials)
    toy.basic, toy.token_realm = False, f"{toy.url}/token"
    with pytest.raises(NeedsLogin, match="incorrect username or password"):
        with_repository(toy, lambda one: one.manifest("latest"), Credentials("me", "wrong"))


def test_credentials_go_to_no_unencrypted_realm_elsewhere(toy: Toy) -> None:
    toy.token_realm = "http://192.0.2.1/token"
    with pytest.raises(
        RegistryError, match=r"sent to http://192.0.2.1/token, which is not encrypted"
    ):
        with_repository(toy, lambda one: one.manifest("latest"), Credentials("me", "secret"))


def test_a_redirect_to_another_host_carries_no_credentials(toy: Toy) -> None:
    data = b"x" * 1000
    toy.basic = True
    with serving(Toy()) as other:
        name = other.put_blob(data)
        toy.lies["/blobs/"] = elsewhere(f"{other.url}/v2/c/d/blobs/{name}")
        got = with_repository(toy, lambda one: _blob_of(one, data), Credentials("me", "secret"))
        assert got == data
        assert all("Authorization" not in one.headers for one in other.seen)


# Patience


def test_failures_that_pass_are_asked_again(toy: Toy) -> None:
    toy.lies["/manifests/"] = first(2, always(503))
    assert with_repository(toy, lambda one: one.manifest("latest"))
    toy.lies["/manifests/"] = first(1, always(429, Retry_After="1"))
    began = trio.run(_now)
    assert with_repository(toy, lambda one: one.manifest("latest"))
    assert trio.run(_now) - began >= 1.0


async def _now() -> float:
    import time

    return time.monotonic()


def test_a_registry_that_stays_broken_or_wants_hours_is_given_up(toy: Toy) -> None:
    toy.lies["/manifests/"] = always(500)
    with pytest.raises(RegistryError, match="unexpected HTTP status: 500 Internal Server Error"):
        with_repository(toy, lambda one: one.manifest("latest"))
    assert len(toy.asked("/manifests/")) == QUICK.attempts
    toy.lies["/manifests/"] = lambda handler: handler.fail(
        429, "TOOMANYREQUESTS", "You have reached your pull rate limit", Retry_After="7200"
    )
    with pytest.raises(
        RegistryError, match="toomanyrequests: You have reached your pull rate limit"
    ):
        with_repository(toy, lambda one: one.manifest("latest"))


def test_nobody_there_is_said_at_once() -> None:
    gone = Toy(port=1)
    with pytest.raises(TransportError, match=r'Get "http://127.0.0.1:1/v2/.*connection refused'):
        with_repository(gone, lambda one: one.manifest("latest"))


def test_a_mirror_is_asked_first_and_may_fail(toy: Toy) -> None:
    with serving(Toy(basic=True)) as mirror:
        settings = RegistrySettings(mirrors=(mirror.url,))
        mirrors = endpoints("docker.io", settings)[:1]
        where = (*mirrors, *endpoints(toy.host, settings))
        assert with_repository(
            toy, lambda one: one.manifest("latest"), Credentials("me", "secret"), where
        )
        assert mirror.asked("/manifests/latest")
        assert all("Authorization" not in one.headers for one in mirror.seen)


# Lies


def test_another_digest_than_asked_for_is_refused(toy: Toy) -> None:
    data = b"not what it should be"
    toy.lies["/manifests/"] = always(200, b'{"schemaVersion": 2, "manifests": []}', OCI_INDEX)
    with pytest.raises(Untrue, match="manifest verification failed for digest"):
        with_repository(toy, lambda one: one.manifest(digest_bytes(data)))


@pytest.mark.parametrize("size", [3, 100])
def test_another_length_than_described_is_refused(toy: Toy, size: int) -> None:
    data = b"0123456789"
    toy.put_blob(data)
    with pytest.raises(Untrue, match=f"has 10 bytes, not the {size} it should"):
        with_repository(toy, lambda one: _blob_of(one, data, size=size))


def test_endless_bodies_end(toy: Toy) -> None:
    toy.lies["/manifests/"] = endless
    with pytest.raises(TooLong, match="longer than 4194304 bytes"):
        with_repository(toy, lambda one: one.manifest("latest"))
    toy.lies["/blobs/"] = endless
    with pytest.raises(Untrue, match="has more bytes"):
        with_repository(toy, lambda one: _blob_of(one, b"x" * 1000))


def test_a_redirect_loop_ends(toy: Toy) -> None:
    toy.lies["/manifests/"] = redirect_loop
    with pytest.raises(RegistryError, match="redirects more than 10 times"):
        with_repository(toy, lambda one: one.manifest("latest"))


def test_a_web_page_is_not_taken_for_a_manifest(toy: Toy) -> None:
    toy.lies["/manifests/"] = always(200, b"<html>Log in to the hotel", "text/html")
    with pytest.raises(RegistryError, match="a web page where a manifest was asked for"):
        with_repository(toy, lambda one: one.manifest("latest"))
    toy.lies["/manifests/"] = always(403, b"<html>no", "text/html")
    with pytest.raises(Denied, match="unexpected HTTP status: 403 Forbidden"):
        with_repository(toy, lambda one: one.manifest("latest"))


def test_a_type_that_the_document_contradicts_is_refused(toy: Toy) -> None:
    _, data = toy.manifests["latest"]
    toy.lies["/manifests/"] = always(200, data, OCI_INDEX)
    with pytest.raises(InvalidParameter, match="differs from the announced"):
        with_repository(toy, lambda one: one.manifest("latest"))


def test_schema_1_is_refused_in_dockers_words(toy: Toy) -> None:
    body = b'{"schemaVersion": 1, "fsLayers": []}'
    toy.lies["/manifests/"] = always(
        200, body, "application/vnd.docker.distribution.manifest.v1+prettyjws"
    )
    with pytest.raises(InvalidParameter, match="schema 1 support has been removed"):
        with_repository(toy, lambda one: one.manifest("latest"))


def test_an_index_of_ten_thousand_is_refused(toy: Toy) -> None:
    entry = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 1}
    entries = [{**entry, "digest": f"sha256:{number:064x}"} for number in range(10_000)]
    toy.put_manifest({"schemaVersion": 2, "manifests": entries}, "many", media_type=OCI_INDEX)
    with pytest.raises(InvalidParameter, match="lists 10000 manifests, more than 1000"):
        with_repository(toy, lambda one: one.manifest("many"))


def test_a_cut_blob_is_no_blob(toy: Toy) -> None:
    data = b"z" * 100_000
    toy.put_blob(data)
    toy.lies["/blobs/"] = cut_after(50_000)
    with pytest.raises(Cut):
        with_repository(toy, lambda one: _blob_of(one, data))


def test_a_registrys_words_cannot_write_to_the_terminal(toy: Toy) -> None:
    toy.lies["/manifests/"] = lambda handler: handler.fail(
        403, "DENIED", "\x1b[2Jgone" + "x" * 9000
    )
    with pytest.raises(DockpyError) as raised:
        with_repository(toy, lambda one: one.manifest("latest"))
    assert "\x1b" not in str(raised.value)
    assert len(str(raised.value)) < 1000
