"""How uvicorn serves us: nothing trusted from headers, no banner, bounded request heads."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    from starlette.types import ASGIApp

HEAD_BYTES: Final = 64 * 1024
HEAD_SECONDS: Final = 15.0
_KEEP_ALIVE_SECONDS: Final = 75
"""Longer than the 60 s of common load balancers: they must be the ones to close, or requests get lost."""


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's HTTP protocol, with a limit to the size and the time of a request's head.

    uvicorn itself waits for ever for the end of the headers, and takes any number of them.
    """

    head_bytes = HEAD_BYTES
    head_seconds = HEAD_SECONDS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_seen = 0
        self._in_head = True
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A connection: its first request has so long to come."""
        super().connection_made(transport)
        self._watch()

    def on_message_begin(self) -> None:
        """A request's head begins."""
        super().on_message_begin()
        self._in_head, self._head_seen = True, 0

    def on_headers_complete(self) -> None:
        """A request's head has ended."""
        self._in_head = False
        self._unwatch()
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Bytes: when they leave a head unfinished, its limits apply."""
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():
            self._head_seen += len(data)
            if self._head_seen > self.head_bytes:
                self.send_400_response("The request's headers are too large.")
            elif self._head_timer is None:
                self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        self._unwatch()
        super().connection_lost(exc)

    def _watch(self) -> None:
        self._head_timer = self.loop.call_later(self.head_seconds, self._too_slow)

    def _unwatch(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _too_slow(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            self.transport.close()


def server_config(app: ASGIApp, *, host: str, port: int) -> uvicorn.Config:
    """The uvicorn configuration for `app` (`uvicorn.Server(config).serve(sockets)`).

    Forwarded headers are not believed (the API's loopback rule needs the true peer), nothing is logged
    per request, logging is the program's own.
    """
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=BoundedHttp,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=10,
    )
