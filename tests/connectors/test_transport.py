"""The transport against real sockets on loopback: what it says of every break, and that it sends once."""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from downriver.connectors.http import AnswerTooLarge, HttpClient, Request, TransportError
from downriver.connectors.transport import AiohttpTransport
from downriver.core.errors import InDoubt, Transient

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]
SECRET = "Basic c2VjcmV0OndvcmQ="


class Server:
    """Counts connections and requests; each request gets the next of `answers` (the last one stays)."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.connections = 0
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                first, *lines = head.strip().split("\r\n")
                headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                self.requests.append((first, headers, body))
                await (self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(*answers: Answer) -> AsyncIterator[Server]:
    made = Server(*answers)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()


@pytest.fixture
async def transport() -> AsyncIterator[AiohttpTransport]:
    made = AiohttpTransport(trust_env=False, answer_cap=100_000)
    yield made
    await made.aclose()


def says(text: str) -> Answer:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(text.encode())
        await writer.drain()

    return answer


def good(body: str = '{"ok":true}', *headers: str) -> Answer:
    lines = "".join(f"{header}\r\n" for header in headers)
    return says(
        f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{lines}Content-Length: {len(body)}\r\n\r\n{body}"
    )


async def hangs_up(writer: asyncio.StreamWriter) -> None:
    writer.close()


async def resets(writer: asyncio.StreamWriter) -> None:
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    writer.transport.abort()


async def sleeps(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(30)


def request(server: Server, method: str = "GET", **more: Any) -> Request:
    body = b'{"a":1}' if method in ("POST", "PUT") else None
    return Request(method, f"{server.url}/api/x?q=a%2Fb", {"Authorization": SECRET}, body, **{"timeout": 5.0, **more})


async def test_a_request_arrives_as_it_was_made(transport: AiohttpTransport) -> None:
    async with serving(good('{"ok":true}', "X-Two: 2", "Set-Cookie: a=b; Path=/")) as server:
        answer = await transport.send(request(server, "POST"))
        assert (answer.status, answer.body) == (200, b'{"ok":true}')
        assert answer.headers["x-two"] == "2"
        assert 0 < answer.elapsed < 5
        await transport.send(request(server))
        first, second = server.requests
        assert first[0] == "POST /api/x?q=a%2Fb HTTP/1.1"
        assert first[1]["authorization"] == SECRET
        assert first[2] == b'{"a":1}'
        assert "cookie" not in second[1], "cookies are not kept"
        assert server.connections == 1, "the connection is kept alive"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
@pytest.mark.parametrize("fault", [hangs_up, resets], ids=["closed", "reset"])
async def test_a_new_connection_that_breaks_sends_once(
    transport: AiohttpTransport, method: str, fault: Answer
) -> None:
    async with serving(fault, good()) as server:
        with pytest.raises(TransportError, match="connection was closed") as caught:
            await transport.send(request(server, method))
        assert caught.value.reached
        assert len(server.requests) == 1


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
@pytest.mark.parametrize("fault", [hangs_up, resets], ids=["closed", "reset"])
async def test_a_kept_connection_that_breaks_sends_once(
    transport: AiohttpTransport, method: str, fault: Answer
) -> None:
    """The server closes just as the request comes: nobody knows whether it was read, so nobody sends it again."""
    async with serving(good(), fault, good()) as server:
        await transport.send(request(server))
        with pytest.raises(TransportError) as caught:
            await transport.send(request(server, method))
        assert caught.value.reached
        assert len(server.requests) == 2
        assert server.connections == 1
        assert (await transport.send(request(server, method))).status == 200


async def test_a_connection_the_server_closed_in_peace_is_not_used(transport: AiohttpTransport) -> None:
    async with serving(good('{"ok":true}', "Connection: close"), good()) as server:
        await transport.send(request(server))
        assert (await transport.send(request(server, "POST"))).status == 200
        assert server.connections == 2


async def test_the_client_turns_a_break_into_doubt_for_a_post_alone(transport: AiohttpTransport) -> None:
    async with serving(resets) as server:
        client = HttpClient(transport, server.url, {"Authorization": SECRET}, tool="Lighthouse")
        with pytest.raises(InDoubt, match="may have taken effect") as caught:
            await client.post_json("/x", {}, what="start it")
        with pytest.raises(Transient):
            await client.get_json("/x", what="read it")
        assert len(server.requests) == 2
        shown = "".join(traceback.format_exception(caught.value))
        assert "c2VjcmV0" not in shown
        assert caught.value.__context__ is None


async def test_errors_do_not_carry_the_request_along(transport: AiohttpTransport) -> None:
    """aiohttp's errors hold the request's headers; ours must not hold aiohttp's errors."""
    for answer in (hangs_up, says("nonsense\r\n\r\n"), good("x" * 100, "Content-Encoding: gzip")):
        async with serving(answer) as server:
            with pytest.raises(TransportError) as caught:
                await transport.send(request(server))
            assert caught.value.reached
            assert caught.value.__cause__ is None
            assert caught.value.__context__ is None


async def test_nobody_listens(transport: AiohttpTransport) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(TransportError, match=f"no connection to 127.0.0.1:{port}") as caught:
        await transport.send(Request("POST", f"http://127.0.0.1:{port}/x?key=word", {}, b""))
    assert not caught.value.reached
    assert "word" not in str(caught.value)


async def test_a_name_that_does_not_exist(transport: AiohttpTransport) -> None:
    with pytest.raises(TransportError, match=r"nowhere\.invalid cannot be resolved") as caught:
        await transport.send(Request("POST", "http://nowhere.invalid/x", {}, b""))
    assert not caught.value.reached


async def test_no_tls_where_tls_was_wanted(transport: AiohttpTransport) -> None:
    async def plain(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(TransportError, match=f"no TLS connection to 127.0.0.1:{port}") as caught:
        await transport.send(Request("POST", f"https://127.0.0.1:{port}/x", {}, b""))
    assert not caught.value.reached
    server.close()


async def test_a_certificate_nobody_vouches_for_and_one_we_do(transport: AiohttpTransport, tmp_path: Path) -> None:
    files = self_signed(tmp_path)
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(*files)
    made = Server(good())
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=theirs)
    port = server.sockets[0].getsockname()[1]
    call = Request("POST", f"https://127.0.0.1:{port}/x", {"Authorization": SECRET}, b"{}")
    with pytest.raises(
        TransportError, match=r"certificate of 127\.0\.0\.1:\d+ is not accepted: .*self.signed"
    ) as caught:
        await transport.send(call)
    assert not caught.value.reached
    assert made.requests == []
    trusting = AiohttpTransport(trust_env=False, ssl_context=ssl.create_default_context(cafile=str(files[0])))
    assert (await trusting.send(call)).status == 200
    await trusting.aclose()
    server.close()


def self_signed(place: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    chain, secret = place / "chain.pem", place / "key.pem"
    chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    secret.write_bytes(key.private_bytes(*plain))
    return chain, secret


async def test_connecting_takes_too_long() -> None:
    """A listener whose queue is full answers no SYN."""
    with socket.socket() as deaf, socket.socket() as first, socket.socket() as second:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for filler in (first, second):
            filler.setblocking(False)
            filler.connect_ex(deaf.getsockname())
        transport = AiohttpTransport(trust_env=False, connect_timeout=0.1)
        with pytest.raises(TransportError, match="connecting took too long") as caught:
            await transport.send(Request("POST", f"http://127.0.0.1:{deaf.getsockname()[1]}/x", {}, b""))
        assert not caught.value.reached
        await transport.aclose()


async def test_no_free_connection_in_time_is_not_sent() -> None:
    transport = AiohttpTransport(trust_env=False, connections=1, connect_timeout=0.1)
    async with serving(sleeps, good()) as server:
        waiting = asyncio.create_task(transport.send(request(server, timeout=1.0)))
        while not server.requests:
            await asyncio.sleep(0.005)
        with pytest.raises(TransportError, match="connecting took too long") as caught:
            await transport.send(request(server, "POST"))
        assert not caught.value.reached
        assert len(server.requests) == 1
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await transport.aclose()


@pytest.mark.parametrize(
    "answer",
    [sleeps, says("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{"), says("HTTP/1.1 200 OK\r\nConten")],
    ids=["silent", "half a body", "half a head"],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_the_answer_takes_too_long(transport: AiohttpTransport, method: str, answer: Answer) -> None:
    async with serving(answer) as server:
        with pytest.raises(TransportError, match="time was over") as caught:
            await transport.send(request(server, method, timeout=0.15))
        assert caught.value.reached
        assert len(server.requests) == 1


async def test_an_answer_that_breaks_off(transport: AiohttpTransport) -> None:
    async def half(writer: asyncio.StreamWriter) -> None:
        await says("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{")(writer)
        writer.close()

    async with serving(half) as server:
        with pytest.raises(TransportError, match="broke off") as caught:
            await transport.send(request(server, "POST"))
        assert caught.value.reached


async def test_redirects_come_back_as_they_are(transport: AiohttpTransport) -> None:
    async with serving(says("HTTP/1.1 302 Found\r\nLocation: /y\r\nContent-Length: 0\r\n\r\n")) as server:
        answer = await transport.send(request(server))
        assert (answer.status, answer.headers["location"]) == (302, "/y")
        assert len(server.requests) == 1


async def chunks(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(200):
        writer.write(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
        await writer.drain()
    writer.write(b"0\r\n\r\n")


async def bomb(writer: asyncio.StreamWriter) -> None:
    packed = gzip.compress(b"x" * 50_000_000)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed)
    await writer.drain()


@pytest.mark.parametrize("answer", [chunks, bomb, good("x" * 100_001)], ids=["chunked", "packed", "announced"])
async def test_an_answer_larger_than_the_cap_is_cut_off(transport: AiohttpTransport, answer: Answer) -> None:
    async with serving(answer, good()) as server:
        with pytest.raises(AnswerTooLarge) as caught:
            await transport.send(request(server))
        assert caught.value.reached
        assert (await transport.send(request(server))).body == b'{"ok":true}', "the next call is not disturbed"


async def test_packed_answers_are_unpacked(transport: AiohttpTransport) -> None:
    async def packed(writer: asyncio.StreamWriter) -> None:
        body = gzip.compress(b'{"ok":1}' * 1000)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    async with serving(packed) as server:
        assert (await transport.send(request(server))).body == b'{"ok":1}' * 1000


async def test_proxies_come_from_the_environment_once_for_each_host(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(good()) as proxy:
        monkeypatch.setenv("http_proxy", f"http://user:pass@127.0.0.1:{proxy.port}")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        transport = AiohttpTransport()
        target = Request("POST", "http://bi.example.test/x", {"Authorization": SECRET}, b"{}")
        assert (await transport.send(target)).status == 200
        assert (await transport.send(request(proxy))).status == 200  # named by no_proxy
        assert [line for line, _, _ in proxy.requests] == [
            "POST http://bi.example.test/x HTTP/1.1",
            "GET /api/x?q=a%2Fb HTTP/1.1",
        ]
        assert proxy.requests[0][1]["authorization"] == SECRET
        assert "proxy-authorization" in proxy.requests[0][1]
        await transport.aclose()


async def test_a_proxy_that_is_away_or_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(says("HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n")) as proxy:
        monkeypatch.setenv("https_proxy", f"127.0.0.1:{proxy.port}")
        transport = AiohttpTransport()
        with pytest.raises(TransportError, match="proxy refused to connect: 407") as caught:
            await transport.send(Request("POST", "https://bi.example.test/x", {"Authorization": SECRET}, b"{}"))
        assert not caught.value.reached
        assert "authorization" not in proxy.requests[0][1], "credentials for the site are not shown to the proxy"
        await transport.aclose()
    monkeypatch.setenv("https_proxy", f"http://user:pass@127.0.0.1:{proxy.port}")
    transport = AiohttpTransport()
    with pytest.raises(TransportError, match=r"the proxy 127\.0\.0\.1") as caught:
        await transport.send(Request("POST", "https://bi.example.test/x", {}, b"{}"))
    assert not caught.value.reached
    assert "pass" not in str(caught.value)
    await transport.aclose()


async def test_netrc_is_not_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login other password other\n")
    monkeypatch.setenv("NETRC", str(netrc))
    transport = AiohttpTransport()
    async with serving(good()) as server:
        await transport.send(request(server))
        assert server.requests[0][1]["authorization"] == SECRET
    await transport.aclose()


async def test_it_opens_anew_after_closing(transport: AiohttpTransport) -> None:
    await transport.aclose()
    async with serving(good()) as server:
        await transport.send(request(server))
        await transport.aclose()
        await transport.aclose()
        assert (await transport.send(request(server))).status == 200


async def test_another_loop_is_told_so(transport: AiohttpTransport) -> None:
    async with serving(good()) as server:
        await transport.send(request(server))

        def elsewhere() -> None:
            asyncio.run(transport.send(request(server)))

        with pytest.raises(RuntimeError, match="another event loop"):
            await asyncio.to_thread(elsewhere)


async def test_a_cancelled_call_leaves_nothing_behind(transport: AiohttpTransport) -> None:
    async with serving(sleeps, good()) as server:
        call = asyncio.create_task(transport.send(request(server, "POST")))
        while not server.requests:
            await asyncio.sleep(0.005)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert (await transport.send(request(server))).status == 200
        assert server.connections == 2
