"""A transport that answers from a script and remembers what it was asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import msgspec

from downriver.connectors.http import Request, Response, TransportError


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request that is expected, and what it gets.

    `path` is the request's path without the query. `body` is sent as JSON unless it is bytes. With
    `broken` there is no answer: `"before"` the request could reach the server, or `"after"` it did.
    `aside` marks a request that only prepares the verb under test (a sign-in): faults pass it by.
    """

    method: str
    path: str
    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    broken: str | None = None
    aside: bool = False

    def response(self) -> Response:
        """The answer; its type is JSON unless `headers` say otherwise."""
        body = self.body if isinstance(self.body, bytes) else msgspec.json.encode(self.body)
        headers = {"content-type": "application/json"} | {key.lower(): value for key, value in self.headers.items()}
        return Response(self.status, headers, body)


class ScriptedTransport:
    """A `connectors.http.Transport` without a network.

    The exchanges of one method and path are used up in their order, each once; a request that none is left
    for is an `AssertionError`. `requests` holds all that came, in order; `on_request` sees each first.
    """

    def __init__(self, *script: Exchange, on_request: Callable[[Request], None] | None = None) -> None:
        self.requests: list[Request] = []
        self._script = list(script)
        self._on_request = on_request

    @property
    def unused(self) -> tuple[Exchange, ...]:
        """What has not been asked for yet."""
        return tuple(self._script)

    @property
    def writes(self) -> tuple[Request, ...]:
        """The requests that may change something: all but GET and HEAD."""
        return tuple(request for request in self.requests if request.method not in ("GET", "HEAD"))

    def expect(self, *more: Exchange) -> None:
        """Add to the end of the script."""
        self._script += more

    async def send(self, request: Request) -> Response:
        """The next scripted answer to this method and path."""
        self.requests.append(request)
        if self._on_request is not None:
            self._on_request(request)
        path = urlsplit(request.url).path
        for place, exchange in enumerate(self._script):
            if exchange.method == request.method and exchange.path == path:
                del self._script[place]
                if exchange.broken is not None:
                    raise TransportError("the connection was closed", reached=exchange.broken == "after")
                return exchange.response()
        left = ", ".join(f"{one.method} {one.path}" for one in self._script) or "nothing"
        raise AssertionError(f"nobody expected {request.method} {path}; left in the script: {left}")
