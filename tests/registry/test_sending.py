"""One blob into a registry: whole, in chunks, after cuts, refusals and lost answers."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Iterator

import pytest
import trio

from dockpy.config import RegistrySettings
from dockpy.oci.digest import Digest
from dockpy.registry.client import Repository
from dockpy.registry.connect import connect
from dockpy.registry.errors import RegistryError
from dockpy.registry.sending import CHUNKS, Sending, Source
from dockpy.registry.session import Retries
from dockpy.registry.upload import Uploads
from tests.registry.serving import Serving
from tests.registry.taker import Taker, taking

QUICK = Retries(attempts=3, first=0.01, longest=2.0)
DATA = os.urandom(3 << 20)
DIGEST = "sha256:" + hashlib.sha256(DATA).hexdigest()
PIECE = 256 << 10


class Heard:
    def __init__(self) -> None:
        self.counts: list[int] = []
        self.waits: list[int] = []

    def sent(self, count: int) -> None:
        self.counts.append(count)

    def retrying(self, seconds: int) -> None:
        self.waits.append(seconds)


def send(host: str, data: bytes = DATA, name: str = "a/b") -> Heard:
    heard = Heard()

    async def pieces(offset: int, length: int) -> AsyncIterator[bytes]:
        for at in range(offset, offset + length, PIECE):
            yield data[at : min(at + PIECE, offset + length)]

    async def run() -> None:
        digest = Digest("sha256:" + hashlib.sha256(data).hexdigest())
        with trio.fail_after(20):
            async with connect(host, RegistrySettings(), retries=QUICK, mirrors=False) as registry:
                uploads = Uploads(Repository(registry, name, "pull,push"))
                await Sending(uploads, Source(digest, len(data), pieces), heard).run()

    trio.run(run)
    return heard


@pytest.fixture
def taker() -> Iterator[Taker]:
    with taking(Taker()) as served:
        yield served
        if served.blobs:
            assert served.blobs == {"a/b": {DIGEST: DATA}}


def test_a_blob_goes_in_one_request(taker: Taker) -> None:
    heard = send(taker.host)
    assert [one.split()[0] for one in taker.seen] == ["POST", "PUT"]
    assert heard.counts[-1] == len(DATA) and heard.counts == sorted(heard.counts)


def test_an_empty_blob_too(taker: Taker) -> None:
    send(taker.host, b"")
    assert list(taker.blobs.pop("a/b").values()) == [b""]


def test_what_is_too_large_goes_in_chunks(taker: Taker) -> None:
    taker.most = CHUNKS[2]
    send(taker.host)
    assert [one.split()[2] for one in taker.asked("PATCH")][-3:] == [str(CHUNKS[2])] * 3


def test_chunks_are_not_smaller_than_the_registry_wants(taker: Taker) -> None:
    taker.least, taker.most = (1 << 20) + 5, (1 << 20) + 6
    send(taker.host)
    assert [int(one.split()[2]) for one in taker.asked("PATCH")][-3:] == [
        taker.least,
        taker.least,
        len(DATA) - 2 * taker.least,
    ]


def test_a_registry_that_wants_even_less_is_an_error(taker: Taker) -> None:
    taker.most = 1000
    with pytest.raises(RegistryError, match="413 Request Entity Too Large"):
        send(taker.host)


def test_a_cut_upload_goes_on_where_it_was_cut(taker: Taker) -> None:
    taker.cuts = [1 << 20, 1 << 19, 1 << 19, 1 << 19]  # more often than it tries without progress
    heard = send(taker.host)
    sizes = [int(one.split()[2]) for one in taker.asked("PATCH")]
    assert sizes[0] == len(DATA) - (1 << 20) and sizes[-1] == len(DATA) - (5 << 19)
    assert len(taker.asked("POST")) == 1
    assert heard.waits


def test_a_registry_that_forgot_the_upload_gets_all_again(taker: Taker) -> None:
    taker.cuts, taker.forgets = [1 << 20], True
    send(taker.host)
    assert len(taker.asked("POST")) == 2 and not taker.asked("PATCH")


def test_a_registry_that_loses_what_it_takes_is_given_up(taker: Taker) -> None:
    taker.most, taker.loses = CHUNKS[2], 1000
    send(taker.host)  # slowly, but it goes on
    taker.blobs.clear()
    taker.loses = CHUNKS[2] - 10
    with pytest.raises(RegistryError, match="has 30 of the 1048596 bytes that it was sent"):
        send(taker.host)


def test_an_answer_that_was_lost_costs_no_second_upload(taker: Taker) -> None:
    taker.mute = 1
    send(taker.host)
    assert len(taker.asked("PUT")) == 1 and taker.asked("HEAD", "/blobs/")


def test_a_busy_registry_is_asked_again_and_given_up(taker: Taker) -> None:
    taker.busy = 2
    send(taker.host)
    taker.busy = 100
    with pytest.raises(RegistryError, match="503"):
        send(taker.host)
    assert 100 - taker.busy == QUICK.attempts


def test_our_own_registry_resumes(registry: Serving) -> None:
    send(registry.address, name="sending/a")
    answer = registry.ask("GET", f"/v2/sending/a/blobs/{DIGEST}")
    assert (answer.status, answer.body) == (200, DATA)
