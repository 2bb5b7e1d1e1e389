"""Reading a request's body, within limits of size, time and memory.

A body beyond a limit is not read on: what comes back is a `Fault`, and the connection must be closed.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from starlette.types import Receive


@dataclass(frozen=True, slots=True)
class Limits:
    """What a delivery may cost us. The sender gives up after 10 s anyway (facts/dbt.md §1.4)."""

    body_bytes: int = 2 * 1024 * 1024
    body_seconds: float = 10.0
    """From the headers to the last byte of the body."""
    buffered_bytes: int = 64 * 1024 * 1024
    """Of all bodies that arrive in pieces at one time."""
    rejections_per_second: float = 10.0
    """So many rejected deliveries are recorded, after the first `rejections_at_once`."""
    rejections_at_once: int = 200


DEFAULT_LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True)
class Fault:
    """A delivery that is not taken: the HTTP status, a short word, a sentence."""

    status: int
    code: str
    detail: str
    size: int
    """Bytes of the body, announced or read."""
    fingerprint: str = ""
    """Of the body, if it was read to its end."""


class BodyReader:
    """Reads bodies for one application, in one event loop."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._buffered = 0
        # In order of their deadlines. One timer serves all: one apiece costs more than the reading does.
        self._readings: dict[asyncio.Task[object], float] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def read(self, receive: Receive, declared: str | None) -> bytes | Fault | None:
        """The whole body; a fault when it is too big or too slow; None when the sender went away.

        `declared` is the Content-Length header, which is believed only when it is too large.
        """
        size = int(declared[:20]) if declared is not None and declared.isdecimal() else 0
        if size > self._limits.body_bytes:
            return self._too_big(size)
        task = self._begin()
        try:
            return await self._pieces(receive)
        except asyncio.CancelledError:
            if task in self._readings or task.uncancel() > 0:
                raise  # not, or not only, because its time was up
            seconds = self._limits.body_seconds
            return Fault(408, "body_too_slow", f"The body did not arrive whole within {seconds:g} s.", size)
        finally:
            self._readings.pop(task, None)

    def _begin(self) -> asyncio.Task[object]:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None
        self._readings[task] = loop.time() + self._limits.body_seconds
        if self._timer is None:
            self._timer = loop.call_later(self._limits.body_seconds, self._sweep)
        return task

    def _sweep(self) -> None:
        """End the readings whose time is up; come again when the next one's is."""
        loop = asyncio.get_running_loop()
        self._timer = None
        for task, deadline in list(self._readings.items()):
            if deadline > loop.time():
                self._timer = loop.call_at(deadline, self._sweep)
                return
            del self._readings[task]
            task.cancel()

    async def _pieces(self, receive: Receive) -> bytes | Fault | None:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body: bytes = message.get("body", b"")
        if message.get("more_body"):
            return await self._more(receive, bytearray(body))
        return body if len(body) <= self._limits.body_bytes else self._too_big(len(body))

    async def _more(self, receive: Receive, body: bytearray) -> bytes | Fault | None:
        counted = len(body)
        self._buffered += counted
        try:
            while True:
                if self._buffered > self._limits.buffered_bytes:
                    detail = "Too many large bodies are arriving at once: send it again."
                    return Fault(503, "too_busy", detail, counted)
                message = await receive()
                if message["type"] != "http.request":
                    return None
                piece: bytes = message.get("body", b"")
                counted += len(piece)
                self._buffered += len(piece)
                if counted > self._limits.body_bytes:
                    return self._too_big(counted)
                body += piece
                if not message.get("more_body"):
                    return bytes(body)
        finally:
            self._buffered -= counted

    def _too_big(self, size: int) -> Fault:
        limit = self._limits.body_bytes
        detail = f"The body is larger than the {limit:,} bytes that are taken; dbt's own are below 2,000."
        return Fault(413, "body_too_big", detail, size)
