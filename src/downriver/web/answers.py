"""Small answers, whole: problem documents (RFC 9457), plain texts, and the headers every answer carries."""

from __future__ import annotations

import traceback
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = structlog.get_logger("downriver.web")

JSON: Final = b"application/json"
PROBLEM: Final = b"application/problem+json"
TEXT: Final = b"text/plain; charset=utf-8"

RawHeaders = list[tuple[bytes, bytes]]

SAFE_HEADERS: Final[RawHeaders] = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
]
"""For what is not a page. A page brings its own policy, which then counts."""

CLOSE: Final = (b"connection", b"close")


async def answer(
    send: Send, status: int, body: bytes, content_type: bytes, extra: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    """Send one whole answer."""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", content_type),
                (b"content-length", b"%d" % len(body)),
                *SAFE_HEADERS,
                *extra,
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})


def problem(status: int, code: str, detail: str) -> bytes:
    """A problem document: `code` is a short stable word, `detail` a sentence for a person."""
    return msgspec.json.encode(
        {
            "type": "about:blank",
            "title": HTTPStatus(status).phrase,
            "status": status,
            "code": code,
            "detail": detail,
        }
    )


class SafeHeaders:
    """Around an ASGI application: the safe headers, where it set none of its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve `scope`."""

        async def send_safe(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message.get("headers", [])
                present = {name for name, _ in headers}
                missing = (pair for pair in SAFE_HEADERS if pair[0] not in present)
                message = {**message, "headers": [*headers, *missing]}
            await send(message)

        await self._app(scope, receive, send_safe)


class ErrorPage:
    """Around an ASGI application: whatever it fails of becomes a bare 500.

    The one place in this room that catches every exception. The caller gets a sentence, the log gets
    the trace (as text, so that no log formatter adds the local variables, among which are headers).
    When half an answer is out already, the server refuses a second one and cuts the connection.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve `scope`."""
        try:
            await self._app(scope, receive, send)
        except Exception as error:
            if scope["type"] != "http":
                raise
            log.error(  # noqa: TRY400 - see above: the trace as text
                "request failed",
                method=scope["method"],
                path=scope["path"],
                trace="".join(traceback.format_exception(error)),
            )
            detail = "Something went wrong in Downriver itself; its log has the details."
            await answer(send, 500, problem(500, "internal", detail), PROBLEM, [CLOSE])
