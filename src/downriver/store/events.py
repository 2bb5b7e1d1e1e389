"""Events and rejected deliveries: what arrived, kept as it came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from downriver.core.model import Event, EventKind, canonical_json
from downriver.store.clock import micros, utc
from downriver.store.tables import event, rejection

_KEEP_REJECTIONS: Final = 10_000
"""Rejections come from anybody, so their number is bounded: the oldest go."""

_DONE_AT_ONCE: Final = {
    EventKind.TEST: "test event: the signature is right; nothing is refreshed",
    EventKind.OTHER: "of no use to this version (an unknown type, or no run named): kept, nothing to do",
}


@dataclass(frozen=True, slots=True)
class NewEvent:
    """A verified delivery to store. `headers` are the harmless ones, `key` says which secret fitted."""

    event: Event
    body: bytes
    headers: Mapping[str, str]
    key: str | None = None


@dataclass(frozen=True, slots=True)
class EventRow:
    """A stored event as listings show it (the body is read by `body_of`)."""

    seq: int
    source: str
    event_id: str
    kind: str
    type: str
    run_id: str | None
    job_id: str | None
    job_name: str | None
    run_status: str | None
    received_at: datetime
    occurred_at: datetime | None
    state: str
    note: str | None
    plan_id: str | None
    replays: int


@dataclass(frozen=True, slots=True)
class NewRejection:
    """A delivery that was refused: why, and a fingerprint of its body; neither body nor headers."""

    source: str
    reason: str
    detail: str
    status: int
    size: int
    fingerprint: str
    remote: str | None
    received_at: datetime


@dataclass(frozen=True, slots=True)
class RejectionRow:
    """A stored rejection; `seq` orders them."""

    seq: int
    source: str
    reason: str
    detail: str
    status: int
    size: int
    fingerprint: str
    remote: str | None
    received_at: datetime


@dataclass(frozen=True, slots=True)
class WaitingEvent:
    """A new event with its body, for its source driver."""

    seq: int
    event_id: str
    received_at: datetime
    replays: int
    body: bytes


_COLUMNS: Final = (
    "source", "event_id", "kind", "type", "run_id", "job_id", "job_name", "run_status", "received_at",
    "occurred_at", "key", "headers", "body", "state", "done_at", "note",
)  # fmt: skip
_CHUNKS: Final = (128, 64, 32, 16, 8, 4, 2, 1)


def _chunk_sql(rows: int, mark: str) -> str:
    one = f"({','.join([mark] * len(_COLUMNS))})"
    return (
        f"INSERT INTO event ({','.join(_COLUMNS)}) VALUES {','.join([one] * rows)} "  # noqa: S608  (our own names)
        "ON CONFLICT (source, event_id) DO NOTHING"
    )


_SQL: Final = {
    dialect: {rows: _chunk_sql(rows, mark) for rows in _CHUNKS}
    for dialect, mark in (("sqlite", "?"), ("postgresql", "%s"))
}
"""Many rows in one statement: an `executemany` gives the interpreter lock away once a row, and under load
the event loop takes it each time (the acks bench shows a fifth to a third more)."""


def insert_events(conn: Connection, rows: Sequence[NewEvent]) -> list[bool]:
    """Store events; False for those that (source, event_id) shows to be here already, which change nothing."""
    newest = conn.execute(sa.select(sa.func.max(event.c.seq))).scalar() or 0
    stored = start = 0
    for size in _CHUNKS:
        while len(rows) - start >= size:
            values: list[Any] = []
            for row in rows[start : start + size]:
                values += _values(row)
            stored += conn.exec_driver_sql(_SQL[conn.dialect.name][size], tuple(values)).rowcount
            start += size
    if stored == len(rows):
        return [True] * len(rows)
    query = sa.select(event.c.source, event.c.event_id).where(event.c.seq > newest)
    fresh = {(row.source, row.event_id) for row in conn.execute(query)}
    results: list[bool] = []
    for row in rows:  # the first of two alike is the one that was stored
        identity = (row.event.source, row.event.event_id)
        results.append(identity in fresh)
        fresh.discard(identity)
    return results


def _values(row: NewEvent) -> tuple[Any, ...]:
    """In the order of `_COLUMNS`."""
    ev, run = row.event, row.event.run
    note = _DONE_AT_ONCE.get(ev.kind)
    at = micros(ev.received_at)
    of_run = (run.run_id, run.job_id, run.job_name, run.status.value) if run else (None, None, None, None)
    return (
        ev.source,
        ev.event_id,
        ev.kind.value,
        ev.type,
        *of_run,
        at,
        micros(ev.occurred_at),
        row.key,
        canonical_json(dict(row.headers)),
        row.body,
        "done" if note else "new",
        at if note else None,
        note,
    )


def insert_rejections(conn: Connection, rows: Sequence[NewRejection]) -> list[None]:
    """Store refused deliveries; the oldest beyond a bound are dropped."""
    conn.execute(
        rejection.insert(),
        [
            {
                "source": row.source,
                "received_at": micros(row.received_at),
                "reason": row.reason,
                "detail": row.detail,
                "status": row.status,
                "size": row.size,
                "fingerprint": row.fingerprint,
                "remote": row.remote,
            }
            for row in rows
        ],
    )
    newest = sa.select(sa.func.max(rejection.c.seq)).scalar_subquery()
    conn.execute(rejection.delete().where(rejection.c.seq <= newest - _KEEP_REJECTIONS))
    return [None] * len(rows)


_LISTED: Final = [column for column in event.c if column.name not in ("body", "headers", "key", "done_at")]


def list_events(conn: Connection, *, limit: int, before: int | None = None) -> list[EventRow]:
    """The newest events first; `before` is the `seq` of the last one already seen."""
    query = sa.select(*_LISTED).order_by(event.c.seq.desc()).limit(limit)
    if before is not None:
        query = query.where(event.c.seq < before)
    return [_event_row(row) for row in conn.execute(query).mappings()]


def find_events(conn: Connection, event_id: str) -> list[EventRow]:
    """Events whose id is, or begins with, `event_id`: all sources, at most 20, newest first."""
    exact = _find(conn, event.c.event_id == event_id)
    return exact or _find(conn, event.c.event_id.startswith(event_id, autoescape=True))


def _find(conn: Connection, condition: sa.ColumnElement[bool]) -> list[EventRow]:
    query = sa.select(*_LISTED).where(condition).order_by(event.c.seq.desc()).limit(20)
    return [_event_row(row) for row in conn.execute(query).mappings()]


def body_of(conn: Connection, seq: int) -> bytes | None:
    """The exact bytes of the delivery, or None when there is no such event."""
    return conn.execute(sa.select(event.c.body).where(event.c.seq == seq)).scalar()


def list_rejections(conn: Connection, *, limit: int, before: int | None = None) -> list[RejectionRow]:
    """The newest rejections first, paged like `list_events`."""
    query = sa.select(rejection).order_by(rejection.c.seq.desc()).limit(limit)
    if before is not None:
        query = query.where(rejection.c.seq < before)
    return [RejectionRow(**{**row, "received_at": utc(row["received_at"])}) for row in conn.execute(query).mappings()]


def waiting_events(conn: Connection, source: str, *, limit: int) -> list[WaitingEvent]:
    """Events of a source that its driver has not worked yet, oldest first."""
    query = (
        sa.select(event.c.seq, event.c.event_id, event.c.received_at, event.c.replays, event.c.body)
        .where(event.c.source == source, event.c.state == "new")
        .order_by(event.c.seq)
        .limit(limit)
    )
    return [
        WaitingEvent(row.seq, row.event_id, utc(row.received_at), row.replays, row.body)
        for row in conn.execute(query)
    ]


def mark_done(conn: Connection, seq: int, *, at: datetime, note: str, plan_id: str | None = None) -> None:
    """The driver has done what the event asked for; `note` says what that was."""
    conn.execute(
        event.update()
        .where(event.c.seq == seq, event.c.state == "new")
        .values(state="done", done_at=micros(at), note=note, plan_id=plan_id)
    )


def request_replay(conn: Connection, seq: int) -> bool:
    """Have the driver work the event again; True when that was possible (it was done, and is about a run)."""
    result = conn.execute(
        event.update()
        .where(event.c.seq == seq, event.c.state == "done", event.c.run_id.is_not(None),
               event.c.kind != EventKind.TEST.value)
        .values(state="new", done_at=None, note="asked for again", replays=event.c.replays + 1)
    )  # fmt: skip
    return bool(result.rowcount)


def _event_row(row: RowMapping) -> EventRow:
    values = dict(row)
    values["received_at"] = utc(values["received_at"])
    values["occurred_at"] = utc(values["occurred_at"])
    return EventRow(**values)
