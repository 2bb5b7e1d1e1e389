"""Mailboxes and the processes that work them.

A mailbox is `source:<name>` or `connection:<name>`. Whoever starts to work one raises its epoch; every
later write of that driver checks the epoch, so a driver that was paused and overtaken cannot write.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from downriver.core.errors import Fenced
from downriver.store.clock import micros, utc
from downriver.store.tables import event, mailbox, refresh, worker


@dataclass(frozen=True, slots=True)
class Guard:
    """The right to write for a mailbox, as long as nobody has taken it over."""

    mailbox: str
    epoch: int

    def check(self, conn: Connection) -> None:
        """Raise Fenced when the mailbox has a newer epoch. Call inside the transaction that writes."""
        query = sa.select(mailbox.c.epoch).where(mailbox.c.name == self.mailbox)
        if conn.dialect.name != "sqlite":  # SQLite's writer is alone in its transaction anyway
            query = query.with_for_update(read=True)
        epoch = conn.execute(query).scalar()
        if epoch != self.epoch:
            raise Fenced(f"{self.mailbox} was taken over (epoch {epoch}, ours was {self.epoch}).")


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """A process that works mailboxes."""

    id: str
    host: str
    pid: int
    started_at: datetime
    beat_at: datetime


@dataclass(frozen=True, slots=True)
class MailboxRow:
    """A mailbox and who took it last."""

    name: str
    epoch: int
    worker_id: str | None
    taken_at: datetime | None


def source_mailbox(source: str) -> str:
    """The mailbox of a source's events."""
    return f"source:{source}"


def connection_mailbox(connection: str) -> str:
    """The mailbox of a connection's refreshes."""
    return f"connection:{connection}"


def take(conn: Connection, name: str, *, worker_id: str, at: datetime) -> Guard:
    """Take the mailbox over: a new epoch, so whoever worked it before is fenced off."""
    values = {"worker_id": worker_id, "taken_at": micros(at)}
    updated = conn.execute(mailbox.update().where(mailbox.c.name == name).values(epoch=mailbox.c.epoch + 1, **values))
    if not updated.rowcount:
        conn.execute(mailbox.insert().values(name=name, epoch=1, **values))
    epoch = conn.execute(sa.select(mailbox.c.epoch).where(mailbox.c.name == name)).scalar_one()
    return Guard(name, epoch)


def leave(conn: Connection, guard: Guard) -> None:
    """The driver has ended of itself: nobody works the mailbox now (the epoch stays)."""
    conn.execute(
        mailbox.update().where(mailbox.c.name == guard.mailbox, mailbox.c.epoch == guard.epoch).values(worker_id=None)
    )


def list_mailboxes(conn: Connection) -> list[MailboxRow]:
    """Every mailbox ever taken, by name."""
    rows = conn.execute(sa.select(mailbox).order_by(mailbox.c.name)).mappings()
    return [MailboxRow(**{**row, "taken_at": utc(row["taken_at"])}) for row in rows]


def register_worker(conn: Connection, worker_row: WorkerRow) -> None:
    """A process begins."""
    conn.execute(
        worker.insert().values(
            id=worker_row.id,
            host=worker_row.host,
            pid=worker_row.pid,
            started_at=micros(worker_row.started_at),
            beat_at=micros(worker_row.beat_at),
        )
    )


def beat(conn: Connection, worker_id: str, at: datetime) -> bool:
    """The process lives. False: somebody has declared it dead; it must take its mailboxes anew."""
    result = conn.execute(worker.update().where(worker.c.id == worker_id).values(beat_at=micros(at)))
    return bool(result.rowcount)


def remove_worker(conn: Connection, worker_id: str) -> bool:
    """The process has ended, or is declared dead. True for the one caller that removed it."""
    return bool(conn.execute(worker.delete().where(worker.c.id == worker_id)).rowcount)


def list_workers(conn: Connection) -> list[WorkerRow]:
    """Every process not known to have ended."""
    rows = conn.execute(sa.select(worker).order_by(worker.c.started_at, worker.c.id)).mappings()
    return [
        WorkerRow(**{**row, "started_at": utc(row["started_at"]), "beat_at": utc(row["beat_at"])}) for row in rows
    ]


def mailboxes_with_work(conn: Connection, at: datetime) -> set[str]:
    """The mailboxes that hold something to do now."""
    sources = conn.execute(sa.select(event.c.source).where(event.c.state == "new").distinct()).scalars()
    connections = conn.execute(
        sa.select(refresh.c.connection)
        .where(refresh.c.state.in_(("queued", "triggering", "running")), refresh.c.due_at <= micros(at))
        .distinct()
    ).scalars()
    return {source_mailbox(name) for name in sources} | {connection_mailbox(name) for name in connections}
