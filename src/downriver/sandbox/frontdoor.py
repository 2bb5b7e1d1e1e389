"""The front door of a stand-in: one ASGI application per port.

It sends `/_sandbox/…` to the control API, asks the fault board about every other request, acts the
faults out, lets the stand-in answer, and keeps count. Stand-ins route with a `match` over the path,
not with a router: an unknown path *or method* must get the vendor's own 404, and the benches send
thousands of requests a second through here.
"""

from __future__ import annotations

import re
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import anyio.to_thread
import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response
from starlette.types import Receive, Scope, Send

from downriver.sandbox.faults import Fault, FaultBoard

CONTROL = "/_sandbox"
TRANSPORT = "downriver.sandbox.transport"
"""Key in the ASGI scope's extensions under which the server hands over the connection itself."""

HTML_PAGE = "<!doctype html><html><head><title>Sign in</title></head><body>Please sign in.</body></html>"
# What varies in a path: Mode tokens, numeric ids, dbt webhook and event ids.
_VARYING = re.compile(r"(?<=/)(?:[0-9a-f]{12}|[0-9]+|w(?:su|ev)_[0-9A-Za-z]+)(?=/|$)")


def reply(
    payload: object,
    status: int = 200,
    *,
    media_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A JSON answer."""
    return Response(msgspec.json.encode(payload), status, headers, media_type)


class Refused(Exception):
    """Raised inside a stand-in to answer at once with `response`."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status_code)
        self.response = response


@dataclass(slots=True)
class Seen:
    """One request as the stand-in saw it. `status` 0: no answer was sent (cut, or the caller left)."""

    at: float
    """Seconds since the epoch."""
    method: str
    path: str
    query: str
    status: int = 0
    faults: tuple[str, ...] = ()
    """Kinds of the faults that hit it."""


class RequestLog:
    """What a stand-in saw: every request counted, the newest `keep` of them in full."""

    def __init__(self, keep: int = 20_000) -> None:
        self.counts: Counter[tuple[str, str, int]] = Counter()
        """Keyed by (method, path with its varying parts as `*`, status)."""
        self.recent: deque[Seen] = deque(maxlen=keep)
        self.in_flight = 0
        self.peak_in_flight = 0

    def reset(self) -> None:
        self.counts.clear()
        self.recent.clear()
        self.peak_in_flight = self.in_flight

    def opened(self, seen: Seen) -> None:
        self.recent.append(seen)
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)

    def closed(self, seen: Seen) -> None:
        self.in_flight -= 1
        self.counts[seen.method, _VARYING.sub("*", seen.path), seen.status] += 1

    def count(self, method: str = "*", path: str = "*", status: int | None = None) -> int:
        """How many finished requests match; `path` is an exact counted path (`/api/acme/reports/*/runs`)."""
        return sum(
            number
            for (a_method, a_path, a_status), number in self.counts.items()
            if method in ("*", a_method) and path in ("*", a_path) and status in (None, a_status)
        )

    def rows(self) -> Iterator[dict[str, object]]:
        """The counts as JSON-able rows, the most frequent first."""
        for (method, path, status), number in self.counts.most_common():
            yield {"method": method, "path": path, "status": status, "count": number}


class StandIn(Protocol):
    """What the front door, the control API and the server need of a stand-in. One file per vendor."""

    name: str
    """Short word: its place in the control API and in the ready line (`mode`, `dbt`)."""
    url: str
    """Where it is served, without a trailing slash; set when the port is known."""
    faults: FaultBoard
    log: RequestLog

    async def handle(self, request: Request) -> Response:
        """Answer one request of the vendor's API."""

    def error_body(self, status: int) -> tuple[str, str]:
        """Body and media type the vendor would send with this error status."""

    async def control(self, request: Request, rest: tuple[str, ...]) -> Response | None:
        """Answer `/_sandbox/<name>/<rest…>`, or `None` when there is no such control."""

    def describe(self) -> dict[str, object]:
        """Address and credentials, for the ready line."""

    def curl(self) -> tuple[str, ...]:
        """Example calls for a person."""

    def reset(self) -> None:
        """Forget everything that happened and every change; settings and seeds as at the start."""

    async def stop(self) -> None:
        """Let go of what is held open (outgoing deliveries, temporary files)."""


class FrontDoor:
    """ASGI application of one port: control API, faults, log, then the stand-in."""

    def __init__(self, standin: StandIn, control: Callable[[Request], Awaitable[Response]]) -> None:
        self._standin = standin
        self._control = control

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"the sandbox speaks HTTP only, not {scope['type']!r}")
        path: str = scope["path"]
        request = Request(scope, receive)
        if path == CONTROL or path.startswith(CONTROL + "/"):
            response = await self._control(request)
            await response(scope, receive, send)
            return
        standin = self._standin
        seen = Seen(time.time(), scope["method"], path, scope["query_string"].decode("latin-1"))
        standin.log.opened(seen)
        try:
            faults = standin.faults.take(seen.method, path) if standin.faults.any else ()
            if faults:
                seen.faults = tuple(fault.kind for fault in faults)
                await self._act_out(faults, request, send, seen)
            else:
                answer = await standin.handle(request)
                seen.status = answer.status_code
                await answer(scope, receive, send)
        except ClientDisconnect:
            seen.status = 0
        finally:
            standin.log.closed(seen)

    async def _act_out(self, faults: tuple[Fault, ...], request: Request, send: Send, seen: Seen) -> None:
        """Answer (or not) a request that faults have hit."""
        board = self._standin.faults
        ending = faults[-1] if faults[-1].kind != "latency" else None
        # Read it all first: the caller has sent everything, cannot know whether we acted, and a request
        # that has arrived is worked even when the caller has given up meanwhile.
        await request.body()
        for fault in faults:
            if fault.kind == "latency" and not fault.after_effect:
                await board.hold(fault.seconds)
        worked: Response | None = None
        if ending is None or ending.after_effect or ending.kind == "truncate":
            worked = await self._standin.handle(request)
        for fault in faults:
            if fault.kind == "latency" and fault.after_effect:
                await board.hold(fault.seconds)
        if ending is not None and ending.kind == "cut":
            await _cut(request)
        elif ending is not None and ending.kind == "truncate":
            assert worked is not None
            await _truncate(worked, request, send)
        else:
            answer = worked if ending is None else self._false_answer(ending)
            assert answer is not None
            seen.status = answer.status_code
            await answer(request.scope, request.receive, send)

    def _false_answer(self, fault: Fault) -> Response:
        if fault.kind == "html":
            return Response(fault.body or HTML_PAGE, 200, media_type="text/html")
        body, media_type = self._standin.error_body(fault.status)
        headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
        return Response(body if fault.body is None else fault.body, fault.status, headers, media_type)


def _transport(request: Request) -> Any:
    try:
        return request.scope["extensions"][TRANSPORT]
    except KeyError:
        raise RuntimeError(
            "a fault wants to cut the connection, but this server does not hand it over; "
            "serve the sandbox with downriver.sandbox.running() or serve()"
        ) from None


async def _gone(request: Request) -> None:
    """Wait until the server has noticed that the connection is gone, so that it sends nothing itself."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _cut(request: Request) -> None:
    _transport(request).abort()
    await _gone(request)


async def _truncate(answer: Response, request: Request, send: Send) -> None:
    """Promise the whole of `answer`, send half of it, close."""
    if isinstance(answer, FileResponse):
        body = await anyio.to_thread.run_sync(Path(answer.path).read_bytes)
    else:
        body = bytes(answer.body)
    headers = [pair for pair in answer.raw_headers if pair[0] != b"content-length"]
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": answer.status_code, "headers": headers})
    await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
    _transport(request).close()
    await _gone(request)
