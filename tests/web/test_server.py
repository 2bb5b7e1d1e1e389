"""The server in front of the application: heads that are too large or too slow."""

import asyncio
import socket

import pytest
import uvicorn

from downriver.web.server import server_config


async def test_a_head_without_end_is_refused(service):
    async with service.wire() as wire:
        await wire.send(b"GET /healthz HTTP/1.1\r\nhost: x\r\n")
        asking = asyncio.create_task(wire.answer())
        sent = 0
        while not asking.done() and sent < 10_000_000:
            try:
                await wire.send(b"x-%d: " % sent + b"a" * 4000 + b"\r\n")
            except ConnectionError:
                break
            sent += 4000
            await asyncio.sleep(0)
        answer = await asyncio.wait_for(asking, 3)
        assert answer.status == 400
        assert b"too large" in answer.body
        assert sent < 1_000_000
    assert (await service.call("GET", "/healthz")).status == 200


@pytest.mark.parametrize("begin", [b"", b"GET /heal", b"POST /hooks/analytics HTTP/1.1\r\nhost: x\r\nx-a: b"])
async def test_a_head_that_does_not_come_ends_the_connection(serve, begin):
    async with serve(head_seconds=0.2) as service:
        async with service.wire() as wire:
            await wire.send(begin)
            assert await wire.closed()
        async with service.wire() as wire:  # and so for the second request of a connection
            await wire.send(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            assert (await wire.answer()).status == 200
            await wire.send(begin or b"G")
            assert await wire.closed()


async def test_a_quick_head_and_a_long_wait_between_requests_are_well(serve):
    async with serve(head_seconds=0.1) as service, service.wire() as wire:
        for _ in range(3):
            await wire.send(b"GET /healthz HTTP/1.1\r\n")
            await asyncio.sleep(0.03)
            await wire.send(b"host: x\r\n\r\n")
            assert (await wire.answer()).status == 200
            await asyncio.sleep(0.15)


@pytest.mark.parametrize("garbage", [b"\x16\x03\x01\x02\x00\x01\x00", b"hello\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"])
async def test_what_is_no_http_is_refused(service, garbage):
    async with service.wire() as wire:
        await wire.send(garbage)
        assert (await wire.answer()).status == 400
        assert await wire.closed()


async def test_a_websocket_is_not_spoken_here(service):
    answer = await service.call("GET", "/healthz", {"upgrade": "websocket", "sec-websocket-version": "13",
                                                    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ=="})  # fmt: skip
    assert answer.status == 200


async def test_the_whole_server_starts_answers_and_stops(service):
    server = uvicorn.Server(server_config(service.app, host="127.0.0.1", port=0))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        while not server.started:
            await asyncio.sleep(0.005)
        service.port = listening.getsockname()[1]
        answer = await service.call("GET", "/healthz")
        server.should_exit = True
        await serving
    assert answer.status == 200
    assert "date" in answer.headers
    assert "server" not in answer.headers
