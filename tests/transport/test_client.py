"""HTTP to other machines over real sockets: TLS with docker's certs.d, proxies, time-outs, kept connections."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest
import trio

from dockpy.errors import DockpyError, Unavailable
from dockpy.http.url import parse_url
from dockpy.transport.client import Body, HttpClient, NoConnection, Timeouts, TransportError
from dockpy.transport.proxies import NONE, Proxies
from dockpy.transport.tls import TlsContexts
from tests.registry.toy import Handler, Toy, always, serving

T = TypeVar("T")
SHORT = Timeouts(connect=1, head=0.5, idle=0.5, whole=1)


def run(
    work: Callable[[HttpClient], Awaitable[T]],
    folders: tuple[str, ...] = (),
    proxies: Proxies = NONE,
) -> T:
    async def all_of_it() -> T:
        with trio.fail_after(10):
            async with HttpClient(TlsContexts(folders), proxies, SHORT) as client:
                return await work(client)

    return trio.run(all_of_it)


async def fetch(client: HttpClient, url: str, *, verify: bool = True) -> tuple[int, bytes]:
    async with await client.request("GET", parse_url(url), verify=verify) as response:
        return response.status, await response.read(1 << 20)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, a server's certificate for 127.0.0.1 by it, a client's."""
    if shutil.which("openssl") is None:
        pytest.skip("this machine lacks openssl")
    folder = tmp_path_factory.mktemp("keys")
    new = ["openssl", "req", "-newkey", "rsa:2048", "-nodes"]

    def openssl(*words: str) -> None:
        subprocess.run(words, cwd=folder, check=True, capture_output=True)

    openssl(*new, "-x509", "-days", "2", "-subj", "/CN=ours", "-keyout", "ca.key", "-out", "ca.crt")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1")
    for who in ("server", "client"):
        openssl(*new, "-subj", f"/CN={who}", "-keyout", f"{who}.key", "-out", f"{who}.csr")
        openssl(
            "openssl", "x509", "-req", "-in", f"{who}.csr", "-CA", "ca.crt", "-CAkey", "ca.key",
            "-CAcreateserial", "-days", "2", "-extfile", "names", "-out", f"{who}.crt",
        )  # fmt: skip
    return folder


def test_an_unknown_authority_is_refused_unless_certs_d_has_it(keys: Path, tmp_path: Path) -> None:
    with serving(Toy(), str(keys / "server.crt"), str(keys / "server.key")) as toy:
        with pytest.raises(NoConnection, match="failed to verify certificate"):
            run(lambda client: fetch(client, f"{toy.url}/v2/"))
        assert run(lambda client: fetch(client, f"{toy.url}/v2/", verify=False))[0] == 200
        folder = tmp_path / toy.host
        folder.mkdir()
        shutil.copy(keys / "ca.crt", folder)
        assert run(lambda client: fetch(client, f"{toy.url}/v2/"), (str(tmp_path),))[0] == 200
        elsewhere = f"https://localhost:{toy.port}/v2/"  # a name that the certificate has not
        with pytest.raises(NoConnection, match="failed to verify certificate"):
            run(lambda client: fetch(client, elsewhere), (str(tmp_path),))


def test_a_clients_certificate_is_shown(keys: Path, tmp_path: Path) -> None:
    ca = str(keys / "ca.crt")
    with serving(Toy(), str(keys / "server.crt"), str(keys / "server.key"), ca) as toy:
        folder = tmp_path / toy.host
        folder.mkdir()
        shutil.copy(ca, folder)
        with pytest.raises(TransportError, match="tls|cut"):
            run(lambda client: fetch(client, f"{toy.url}/v2/"), (str(tmp_path),))
        shutil.copy(keys / "client.crt", folder / "client.cert")
        with pytest.raises(Unavailable, match=r"missing key client.key for client certificate"):
            run(lambda client: fetch(client, f"{toy.url}/v2/"), (str(tmp_path),))
        shutil.copy(keys / "client.key", folder)
        assert run(lambda client: fetch(client, f"{toy.url}/v2/"), (str(tmp_path),))[0] == 200


# Proxies


@contextmanager
def proxy(seen: list[bytes]) -> Iterator[int]:
    """Connects for whoever says CONNECT, and answers what is asked for in absolute form."""
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def serve(client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(65536)
        seen.append(head)
        if not head.startswith(b"CONNECT"):
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nproxy")
            return
        if b"refuse.example" in head:
            client.sendall(b"HTTP/1.1 403 Not you\r\nContent-Length: 0\r\n\r\n")
            return
        port = int(head.split()[1].rpartition(b":")[2])
        far = socket.create_connection(("127.0.0.1", port))
        client.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
        threading.Thread(target=pump, args=(far, client), daemon=True).start()
        pump(client, far)

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()


def test_requests_go_through_proxies(keys: Path) -> None:
    seen: list[bytes] = []
    certificate, key = str(keys / "server.crt"), str(keys / "server.key")
    with proxy(seen) as port, serving(Toy(), certificate, key) as toy:
        through = Proxies(f"http://u:p@127.0.0.1:{port}", f"127.0.0.1:{port}", "direct.example")
        plain = run(lambda client: fetch(client, "http://far.example/x?y=1"), (), through)
        assert plain == (200, b"proxy")
        assert seen[0].startswith(b"GET http://far.example/x?y=1 HTTP/1.1\r\nHost: far.example\r\n")
        assert b"Proxy-Authorization: Basic dTpw\r\n" in seen[0]
        far = f"https://far.example:{toy.port}/v2/"
        assert run(lambda client: fetch(client, far, verify=False), (), through) == (200, b"{}")
        assert seen[1].startswith(f"CONNECT far.example:{toy.port} HTTP/1.1\r\n".encode())
        with pytest.raises(
            NoConnection, match=r"refuses to connect to refuse.example:443: 403 Not you"
        ):
            run(lambda client: fetch(client, "https://refuse.example/"), (), through)


# Time and connections


def test_a_silent_host_and_a_stalled_body_are_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        where = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(
            TransportError, match=r'Get "http://127.0.0.1:[0-9]+/": no answer in time'
        ):
            run(lambda client: fetch(client, where))
    with serving(Toy()) as toy:
        stop = threading.Event()

        def stall(handler: Handler) -> None:
            handler.send_response(200)
            handler.send_header("Content-Length", "10")
            handler.end_headers()
            handler.wfile.write(b"12345")
            stop.wait(5)

        toy.lies["/v2/"] = stall
        with pytest.raises(TransportError, match="no answer in time"):
            run(lambda client: fetch(client, f"{toy.url}/v2/"))
        stop.set()


def answer_and_close(handler: Handler) -> None:
    handler.answer(200, b"{}")
    handler.hang_up()


def test_connections_are_kept_and_replaced_when_the_host_has_closed_them() -> None:
    with serving(Toy()) as toy:

        async def work(client: HttpClient) -> None:
            for _ in range(3):
                assert (await fetch(client, f"{toy.url}/v2/"))[0] == 200
            toy.lies["/v2/"] = answer_and_close
            assert (await fetch(client, f"{toy.url}/v2/"))[0] == 200
            await trio.sleep(0.05)
            assert (await fetch(client, f"{toy.url}/v2/"))[0] == 200

        run(work)


def test_bodies_are_streamed_and_an_early_refusal_is_read() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield b"x" * 1000

    with serving(Toy()) as toy:
        toy.lies["/up"] = always(413, b"too much")

        async def put(client: HttpClient) -> int:
            body = Body(pieces, 4000)
            url = parse_url(f"{toy.url}/up")
            async with await client.request("PUT", url, [("X-A", "b")], body) as response:
                return response.status

        assert run(put) == 413
        assert toy.seen[-1].body == b"x" * 4000


def test_a_header_that_would_end_early_is_no_request() -> None:
    async def inject(client: HttpClient) -> None:
        await client.request("GET", parse_url("http://127.0.0.1:1/"), [("A", "b\r\nC: d")])

    with pytest.raises((ValueError, DockpyError)):
        run(inject)
