"""The webhook door: `POST /hooks/{source}`.

Exact bytes → size and time limits → signature → meaning → one durable insert → 2xx. It is a bare ASGI
application, because every delivery passes here and a router's comforts cost more than the work itself.

| answer | when |
|---|---|
| 200 `accepted`, `test`, `kept` | stored durably (`kept`: an event of a type that nothing follows from) |
| 200 `duplicate` | this event is stored already; nothing changed |
| 400 | the signature is right, the body cannot be used: recorded as rejected |
| 401 | the signature is missing, misspelled or wrong: recorded as rejected |
| 404, 405 | no such source; no such method |
| 408, 413 | the body is too slow, too big: recorded as rejected, the connection is closed |
| 503 + Retry-After | the database cannot store it now, or too many bodies are arriving at once |

What is recorded of a rejected delivery holds neither its body nor its headers. How many are recorded a
second is limited, since anybody can cause them; the others are counted in the log.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from downriver.core.errors import BadInput, StoreError
from downriver.core.model import EventKind
from downriver.sources.base import Refused
from downriver.store.events import NewEvent, NewRejection, insert_events, insert_rejections
from downriver.store.mailboxes import source_mailbox
from downriver.web.answers import CLOSE, JSON, PROBLEM, TEXT, answer, problem
from downriver.web.body import DEFAULT_LIMITS, BodyReader, Fault, Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from starlette.types import Receive, Scope, Send

    from downriver.core.model import Event
    from downriver.sources.base import Source
    from downriver.store.db import Store
    from downriver.web.answers import RawHeaders

log = structlog.get_logger("downriver.ingress")

PREFIX: Final = "/hooks/"
_KEPT_HEADERS: Final[tuple[str, ...]] = ("content-type", "user-agent", "date", "x-request-id", "traceparent")
"""The only headers that are stored: an allow-list, since proxies add credentials under names of their own."""
_UNKNOWN: Final = b"There is no such webhook address here.\n"
_RETRY_SOON: Final = (b"retry-after", b"5")


class _Allowance:
    """So many at once, and then so many a second; the others are counted."""

    __slots__ = ("_at", "_burst", "_left", "_rate", "spared")

    def __init__(self, rate: float, burst: int) -> None:
        self._rate, self._burst = rate, burst
        self._left, self._at = float(burst), 0.0
        self.spared = 0

    def take(self, now: float) -> bool:
        """Whether there is one left at `now` (seconds of any steady clock)."""
        self._left = min(self._burst, self._left + (now - self._at) * self._rate) if self._at else self._left
        self._at = now
        if self._left < 1:
            self.spared += 1
            return False
        self._left -= 1
        return True


class Ingress:
    """ASGI application for everything under `/hooks/`.

    `poke` is called with a mailbox's name after each new event was committed; it must not raise or
    block. `clock` gives the time of arrival (UTC).
    """

    def __init__(
        self,
        *,
        sources: Mapping[str, Source],
        store: Store,
        poke: Callable[[str], None],
        clock: Callable[[], datetime],
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._sources = {name: (source, source_mailbox(name)) for name, source in sources.items()}
        self._store = store
        self._poke = poke
        self._clock = clock
        self._reader = BodyReader(limits)
        self._allowance = _Allowance(limits.rejections_per_second, limits.rejections_at_once)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        name: str = scope["path"][len(PREFIX) :].removesuffix("/")
        found = self._sources.get(name)
        method = scope["method"]
        if found is None:
            # An unread body would be read to its end to reuse the connection, however long it is.
            await answer(send, 404, _UNKNOWN, TEXT, [CLOSE] if method not in ("GET", "HEAD") else ())
        elif method == "POST":
            await self._deliver(*found, scope, receive, send)
        elif method in ("GET", "HEAD"):
            text = f"This is the webhook address of source {name}: dbt POSTs its events here.\n"
            await answer(send, 200, text.encode(), TEXT)
        else:
            detail = f"{method} is not for this address: events are sent with POST."
            body = problem(405, "method_not_allowed", detail)
            await answer(send, 405, body, PROBLEM, [(b"allow", b"GET, HEAD, POST"), CLOSE])

    async def _deliver(self, source: Source, mailbox: str, scope: Scope, receive: Receive, send: Send) -> None:
        headers = _mapping(scope["headers"])
        at = self._clock()
        body = await self._reader.read(receive, headers.get("content-length"))
        if body is None:
            log.info("delivery cut off by its sender", source=source.name, remote=_remote(scope, headers))
            return
        event = body if isinstance(body, Fault) else _judge(source, headers, body, at)
        if isinstance(event, Fault):
            await self._record(source.name, event, at, _remote(scope, headers))
            await _refuse(send, event)
            return
        try:
            fresh = await self._store.batch(insert_events, event)
        except StoreError as error:
            log.error(  # noqa: TRY400 - the sentence says it all
                "event not stored; its sender was told to send it again",
                source=source.name,
                event_id=event.event.event_id,
                reason=str(error),
            )
            detail = "The event could not be stored, so it is not acknowledged: send it again."
            await answer(send, 503, problem(503, "not_stored", detail), PROBLEM, [_RETRY_SOON])
            return
        if fresh:
            self._poke(mailbox)
        await answer(send, 200, _receipt(event.event, fresh=fresh), JSON)

    # -- recording --------------------------------------------------------------------------------

    async def _record(self, source: str, fault: Fault, at: datetime, remote: str) -> None:
        """Record a rejected delivery, in the log and the database, as far as the allowance goes."""
        if not self._allowance.take(asyncio.get_running_loop().time()):
            return
        spared, self._allowance.spared = self._allowance.spared, 0
        if spared:
            log.warning("more deliveries were rejected than are recorded", unrecorded=spared)
        row = NewRejection(
            source=source,
            reason=fault.code,
            detail=fault.detail,
            status=fault.status,
            size=fault.size,
            fingerprint=fault.fingerprint,
            remote=remote,
            received_at=at,
        )
        log.warning(
            "delivery rejected",
            source=source,
            reason=fault.code,
            status=fault.status,
            size=fault.size,
            fingerprint=fault.fingerprint,
            remote=remote,
        )
        try:
            await self._store.batch(insert_rejections, row)
        except StoreError as error:
            # The refusal stands all the same; a record of it is promised to nobody.
            log.error("rejection not recorded", source=source, reason=str(error))  # noqa: TRY400


def _judge(source: Source, headers: Mapping[str, str], body: bytes, at: datetime) -> NewEvent | Fault:
    """The event that a whole body is, if its signature is right and it can be used."""
    verdict = source.verify(headers, body)
    if isinstance(verdict, Refused):
        return Fault(401, verdict.code, verdict.detail, len(body), _fingerprint(body))
    try:
        event = source.parse(body, at)
    except BadInput as error:
        return Fault(400, error.code, str(error), len(body), _fingerprint(body))
    kept = {name: headers[name] for name in _KEPT_HEADERS if name in headers}
    return NewEvent(event, body, kept, verdict.key_fingerprint)


def _fingerprint(body: bytes) -> str:
    """Tells whether two rejected bodies were the same, and nothing else about them."""
    return hashlib.sha256(body).hexdigest()[:16]


async def _refuse(send: Send, fault: Fault) -> None:
    extra: RawHeaders = []
    if fault.status == 401:
        extra.append((b"www-authenticate", b"Signature"))
    elif fault.status != 400:  # the body was not read to its end
        extra.append(CLOSE)
    if fault.status == 503:
        extra.append(_RETRY_SOON)
    await answer(send, fault.status, problem(fault.status, fault.code, fault.detail), PROBLEM, extra)


def _mapping(raw: RawHeaders) -> dict[str, str]:
    """Headers by lower-case name, without the white space that HTTP allows around a value.

    A repeated header's values are joined with commas (RFC 9110 §5.3): two signatures are no signature.
    """
    headers: dict[str, str] = {}
    for raw_name, raw_value in raw:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1").strip(" \t")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _remote(scope: Scope, headers: Mapping[str, str]) -> str:
    """Who knocked: the peer's address, and whom a proxy in front says it stands for (unverified)."""
    client = scope.get("client")
    host = client[0] if client else "local socket"
    forwarded = headers.get("x-forwarded-for", "")[:100]
    return f"{host} (for {forwarded})" if forwarded.isascii() and forwarded.isprintable() and forwarded else host


def _receipt(event: Event, *, fresh: bool) -> bytes:
    if event.kind is EventKind.TEST:
        status = "test"
    elif not fresh:
        status = "duplicate"
    else:
        status = "kept" if event.kind is EventKind.OTHER else "accepted"
    return msgspec.json.encode({"status": status, "event": event.event_id})
