"""Durable acks per second over 64 keep-alive connections, beside a route that does nothing; acks at 200/s.

Every server is a process of its own on the same uvicorn settings; `downriver serve` works the events meanwhile
(plans for every one), `ingress` is its web side and store alone. At 200/s every webhook asks for a refresh.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import uvloop
from bench.world import REPORTS, Row, percentile, process, sandbox, serve, webhook

CONNECTIONS = 64
SECONDS = 3.0
REQUESTS = 60_000
RATE = 200
PACED_SECONDS = 5
_runs = itertools.count(1)


def measure(repeat: int) -> list[Row]:
    """Acks per second of each contender in turn, then ack times at 200/s while refreshes run."""
    rates: dict[str, list[float]] = {}
    halves: list[float] = []
    tails: list[float] = []
    for _ in range(repeat):
        with tempfile.TemporaryDirectory(prefix="downriver-bench-") as folder, ExitStack() as stack:
            home = Path(folder)
            mode = stack.enter_context(sandbox(home))["mode"]
            for name in ("noop", "ingress"):
                command = [sys.executable, "-m", "bench.rivals", name, *([folder] if name == "ingress" else [])]
                with process(command, home / f"{name}.log", awaited="at http") as child:
                    rates.setdefault(name, []).append(uvloop.run(_flood(_port(child.first))))
            with serve(home / "paced", mode) as (_, url):
                times = uvloop.run(_paced(_port(url)))
                halves.append(percentile(times, 0.5) * 1000)
                tails.append(percentile(times, 0.99) * 1000)
            with serve(home / "flooded", mode) as (_, url):
                rates.setdefault("downriver serve", []).append(uvloop.run(_flood(_port(url))))
    rows = [
        Row("acks", f"{name}, {CONNECTIONS} connections", "acks/s", tuple(taken)) for name, taken in rates.items()
    ]
    for name in ("ingress", "downriver serve"):
        shares = tuple(ours / theirs for ours, theirs in zip(rates[name], rates["noop"], strict=True))
        rows.append(Row("acks", f"{name}, share of noop", "x", shares))
    rows.append(Row("acks", f"downriver serve at {RATE}/s, p50", "ms", tuple(halves)))
    rows.append(Row("acks", f"downriver serve at {RATE}/s, p99", "ms", tuple(tails)))
    return rows


def _port(url: str) -> int:
    return int(url.rpartition(":")[2])


def _request(job: int) -> bytes:
    body, signature = webhook(job, next(_runs))
    head = (
        "POST /hooks/a HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        f"authorization: {signature}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class _Client(asyncio.Protocol):
    """One connection that sends the next request as soon as the last is answered."""

    def __init__(self, requests: Iterator[bytes], until: float, done: asyncio.Future[int]) -> None:
        self._requests, self._until, self._done = requests, until, done
        self._buffer, self._acks = b"", 0

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._transport.write(next(self._requests))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end or len(rest) < int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]):
            return
        if head[9:12] != b"200":
            self._done.set_exception(RuntimeError(f"answered {head[:80]!r}"))
            return
        self._buffer = b""
        self._acks += 1
        following = next(self._requests, None) if time.perf_counter() < self._until else None
        if following is None:
            self._done.set_result(self._acks)
            self._transport.close()
        else:
            self._transport.write(following)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(exc or RuntimeError("the server closed the connection"))


async def _flood(port: int) -> float:
    # Signed before the clock runs; job 0 concerns no dashboard.
    requests = iter([_request(0) for _ in range(REQUESTS)])
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    waiting = []
    for _ in range(CONNECTIONS):
        done: asyncio.Future[int] = loop.create_future()
        waiting.append(done)
        await loop.create_connection(lambda d=done: _Client(requests, began + SECONDS, d), "127.0.0.1", port)
    return sum(await asyncio.gather(*waiting)) / (time.perf_counter() - began)


async def _paced(port: int) -> list[float]:
    free: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    for _ in range(16):
        free.put_nowait(await asyncio.open_connection("127.0.0.1", port))
    times: list[float] = []

    async def one(request: bytes, due: float) -> None:
        reader, writer = await free.get()
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(head.partition(b"content-length:")[2].partition(b"\r\n")[0]))
        times.append(time.perf_counter() - due)
        if head[9:12] != b"200":
            raise RuntimeError(f"answered {head[:80]!r}")
        free.put_nowait((reader, writer))

    requests = [_request(number % REPORTS + 1) for number in range(RATE * PACED_SECONDS)]
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number, request in enumerate(requests):
            due = began + number / RATE
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(one(request, due))
    return times
