"""Events and rejected deliveries: what arrived, kept as it came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from downriver.core.model import Event, EventKind
from downriver.store.clock import micros, utc
from downriver.store.tables import event, rejection

_KEEP_REJECTIONS: Final = 10_000
"""Rejections come from anybody, so their number is bounded: the oldest go."""

_DONE_AT_ONCE: Final = {
    EventKind.TEST: "test event: the signature is right; nothing is refreshed",
    EventKind.OTHER: "event type not known to this version: kept, nothing to do",
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


def insert_events(conn: Connection, rows: Sequence[NewEvent]) -> list[bool]:
    """Store events; False for those that (source, event_id) shows to be here already, which change nothing."""
    known = _known(conn, rows)
    results: list[bool] = []
    fresh: list[dict[str, Any]] = []
    for row in rows:
        identity = (row.event.source, row.event.event_id)
        results.append(identity not in known)
        if identity not in known:
            known.add(identity)
            fresh.append(_values(row))
    if fresh:
        conn.execute(event.insert(), fresh)
    return results


def _known(conn: Connection, rows: Sequence[NewEvent]) -> set[tuple[str, str]]:
    by_source: dict[str, list[str]] = {}
    for row in rows:
        by_source.setdefault(row.event.source, []).append(row.event.event_id)
    known: set[tuple[str, str]] = set()
    for source, ids in by_source.items():
        query = sa.select(event.c.event_id).where(event.c.source == source, event.c.event_id.in_(ids))
        known.update((source, event_id) for event_id in conn.execute(query).scalars())
    return known


def _values(row: NewEvent) -> dict[str, Any]:
    ev, run = row.event, row.event.run
    note = _DONE_AT_ONCE.get(ev.kind)
    return {
        "source": ev.source,
        "event_id": ev.event_id,
        "kind": ev.kind.value,
        "type": ev.type,
        "run_id": run.run_id if run else None,
        "job_id": run.job_id if run else None,
        "job_name": run.job_name if run else None,
        "run_status": run.status.value if run else None,
        "received_at": micros(ev.received_at),
        "occurred_at": micros(ev.occurred_at),
        "key": row.key,
        "headers": dict(row.headers),
        "body": row.body,
        "state": "done" if note else "new",
        "done_at": micros(ev.received_at) if note else None,
        "note": note,
    }


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
