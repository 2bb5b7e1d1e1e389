"""Refreshes and their history. `move` is the one function that changes a refresh's state."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from downriver.core.errors import Fenced
from downriver.core.model import Asset, Refresh, Ticket
from downriver.core.states import ACTIVE, RefreshState, may_move, sources_of
from downriver.store.clock import micros, utc
from downriver.store.mailboxes import Guard
from downriver.store.tables import history, refresh

_ACTIVE: Final = sorted(state.value for state in ACTIVE)
_AT_WORK: Final = (RefreshState.TRIGGERING.value, RefreshState.RUNNING.value)
# A refresh for newer data in one of these states also shows the older data.
_COVERS: Final = (*_ACTIVE, RefreshState.SUCCEEDED.value)
_MUTABLE: Final = (
    "state", "epoch", "attempts", "due_at", "intent_at", "deadline_at", "started_at", "ended_at",
    "ticket", "reason", "url",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Move:
    """A change of state: the refresh as it shall be, and the sentence for its history.

    The move happens only if the row is still in `before` and still carries epoch `held`.
    """

    before: RefreshState
    held: int
    after: Refresh
    note: str
    at: datetime


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """One line of a refresh's history."""

    seq: int
    refresh_id: str
    at: datetime
    from_state: str | None
    to_state: str
    epoch: int
    note: str


@dataclass(frozen=True, slots=True)
class RefreshRow:
    """A refresh with its place in the listing."""

    seq: int
    refresh: Refresh


# -- moving ---------------------------------------------------------------------------------------


def move(conn: Connection, moves: Sequence[Move]) -> list[bool]:
    """Make the moves that may still be made, each with its history row; False for the others.

    Raises Fenced when rows changed between the look and the write (only possible on Postgres): the
    transaction is undone and the caller looks again.
    """
    for item in moves:
        if not may_move(item.before, item.after.state):
            raise ValueError(f"core/states.py has no move from {item.before} to {item.after.state}")
    standing = _standing(conn, [item.after.id for item in moves])
    results = [standing.get(item.after.id) == (item.before.value, item.held) for item in moves]
    chosen = [item for item, ok in zip(moves, results, strict=True) if ok]
    by_target: dict[RefreshState, list[Move]] = {}
    for item in chosen:
        by_target.setdefault(item.after.state, []).append(item)
    for target, group in by_target.items():
        updated = conn.execute(_UPDATES[target], [_update_values(item) for item in group])
        if updated.rowcount != len(group):
            raise Fenced("Refreshes changed under this transaction; it is undone.")
    if chosen:
        conn.execute(history.insert(), [_history_values(item) for item in chosen])
    return results


def remark(conn: Connection, item: Refresh, note: str, *, at: datetime) -> None:
    """A line in the history of a refresh whose state stays: what was tried, found or waited for."""
    values = _history_values(Move(item.state, item.epoch, item, note, at))
    conn.execute(history.insert().values(values))


def _standing(conn: Connection, ids: Sequence[str]) -> dict[str, tuple[str, int]]:
    found: dict[str, tuple[str, int]] = {}
    for start in range(0, len(ids), 500):
        query = sa.select(refresh.c.id, refresh.c.state, refresh.c.epoch).where(
            refresh.c.id.in_(ids[start : start + 500])
        )
        found.update({row.id: (row.state, row.epoch) for row in conn.execute(query)})
    return found


def _update_for(target: RefreshState) -> sa.Update:
    return (
        refresh.update()
        .where(
            refresh.c.id == sa.bindparam("b_id"),
            refresh.c.epoch == sa.bindparam("b_held"),
            # Spelt out: an IN list expands at execution, which an executemany cannot do.
            sa.or_(*(refresh.c.state == state.value for state in sorted(sources_of(target)))),
        )
        .values({name: sa.bindparam(f"v_{name}", type_=refresh.c[name].type) for name in _MUTABLE})
    )


_UPDATES: Final = {target: _update_for(target) for target in RefreshState if sources_of(target)}


def _update_values(item: Move) -> dict[str, Any]:
    values = _values(item.after)
    return {"b_id": item.after.id, "b_held": item.held} | {f"v_{name}": values[name] for name in _MUTABLE}


def _history_values(item: Move) -> dict[str, Any]:
    return {
        "refresh_id": item.after.id,
        "at": micros(item.at),
        "from_state": item.before.value,
        "to_state": item.after.state.value,
        "epoch": item.after.epoch,
        "note": item.note,
    }


# -- asking for refreshes -------------------------------------------------------------------------


def insert(conn: Connection, wanted: Sequence[Refresh], *, note: str) -> list[bool]:
    """Queue refreshes that are not here yet (by id); False for those that are.

    A queued refresh of the same asset for older data is superseded; if a refresh for newer data is
    waiting, at work or done, the new one is stored as superseded at once.
    """
    known = set(_standing(conn, [item.id for item in wanted]))
    results: list[bool] = []
    for item in wanted:
        results.append(item.id not in known)
        if item.id in known:
            continue
        known.add(item.id)
        newer = _covering(conn, item)
        if newer is None:
            _supersede_older(conn, item)
            _insert_one(conn, item, note)
        else:
            covered = replace(
                item,
                state=RefreshState.SUPERSEDED,
                ended_at=item.created_at,
                reason=f"Refresh {newer} of the same {item.asset.kind} is for newer data.",
            )
            _insert_one(conn, covered, covered.reason or "")
    return results


def _covering(conn: Connection, item: Refresh) -> str | None:
    query = (
        sa.select(refresh.c.id)
        .where(
            _same_asset(item),
            refresh.c.wanted_at > micros(item.wanted_at),
            refresh.c.state.in_(_COVERS),
        )
        .limit(1)
    )
    return conn.execute(query).scalar()


def _supersede_older(conn: Connection, item: Refresh) -> None:
    query = sa.select(refresh).where(
        _same_asset(item),
        refresh.c.state == RefreshState.QUEUED.value,
        refresh.c.wanted_at <= micros(item.wanted_at),
    )
    reason = f"Refresh {item.id} of the same {item.asset.kind} is for newer data."
    move(
        conn,
        [
            Move(
                RefreshState.QUEUED,
                old.epoch,
                replace(old, state=RefreshState.SUPERSEDED, ended_at=item.created_at, reason=reason),
                reason,
                item.created_at,
            )
            for old in map(_refresh, conn.execute(query).mappings())
        ],
    )


def _same_asset(item: Refresh) -> sa.ColumnElement[bool]:
    return (refresh.c.connection == item.connection) & (refresh.c.asset_key == item.asset.key)


def _insert_one(conn: Connection, item: Refresh, note: str) -> None:
    conn.execute(refresh.insert().values(id=item.id, **_values(item)))
    conn.execute(
        history.insert().values(
            refresh_id=item.id,
            at=micros(item.created_at),
            from_state=None,
            to_state=item.state.value,
            epoch=item.epoch,
            note=note,
        )
    )


def waiting_for(conn: Connection, asset: Asset) -> Refresh | None:
    """The queued refresh of an asset, if there is one: asking twice by hand joins it."""
    query = sa.select(refresh).where(
        refresh.c.connection == asset.connection,
        refresh.c.asset_key == asset.key,
        refresh.c.state == RefreshState.QUEUED.value,
    )
    row = conn.execute(query.limit(1)).mappings().first()
    return None if row is None else _refresh(row)


def latest_for_run(conn: Connection, source: str, run_id: str) -> dict[tuple[str, str], Refresh]:
    """The newest refresh of every asset that a run has caused, by (connection, asset key)."""
    query = sa.select(refresh).where(refresh.c.source == source, refresh.c.run_id == run_id).order_by(refresh.c.seq)
    found = [_refresh(row) for row in conn.execute(query).mappings()]
    return {(item.connection, item.asset.key): item for item in found}


# -- the connection driver's side -----------------------------------------------------------------


def take_over(conn: Connection, guard: Guard, connection: str) -> list[Refresh]:
    """Mark everything at work at the tool as ours (our epoch) and return it; rows keep their state.

    The returned refreshes carry the epoch they had before, so the caller can tell those in doubt.
    """
    guard.check(conn)
    at_work = (refresh.c.connection == connection) & refresh.c.state.in_(_AT_WORK)
    query = sa.select(refresh).where(at_work).order_by(refresh.c.due_at, refresh.c.seq)
    found = [_refresh(row) for row in conn.execute(query).mappings()]
    conn.execute(refresh.update().where(at_work).values(epoch=guard.epoch))
    return found


def due_queued(conn: Connection, connection: str, *, now: datetime, limit: int) -> list[Refresh]:
    """Queued refreshes whose time has come, the longest waiting first."""
    query = (
        sa.select(refresh)
        .where(
            refresh.c.connection == connection,
            refresh.c.state == RefreshState.QUEUED.value,
            refresh.c.due_at <= micros(now),
        )
        .order_by(refresh.c.due_at, refresh.c.seq)
        .limit(limit)
    )
    return [_refresh(row) for row in conn.execute(query).mappings()]


def next_due(conn: Connection, connection: str) -> datetime | None:
    """When the earliest queued refresh of a connection is due."""
    query = sa.select(sa.func.min(refresh.c.due_at)).where(
        refresh.c.connection == connection, refresh.c.state == RefreshState.QUEUED.value
    )
    return utc(conn.execute(query).scalar())


def tickets_of(conn: Connection, connection: str, asset_key: str, *, other_than: str) -> set[str]:
    """The tool's run ids that other refreshes of this asset already follow or followed."""
    query = sa.select(refresh.c.ticket).where(
        refresh.c.connection == connection,
        refresh.c.asset_key == asset_key,
        refresh.c.id != other_than,
        refresh.c.ticket.is_not(None),
    )
    return {ticket["id"] for ticket in conn.execute(query).scalars()}


# -- reading --------------------------------------------------------------------------------------


def list_refreshes(
    conn: Connection,
    *,
    limit: int,
    before: int | None = None,
    dashboard: str | None = None,
    states: Iterable[RefreshState] = (),
) -> list[RefreshRow]:
    """The newest refreshes first; `before` is the `seq` of the last one already seen."""
    query = sa.select(refresh).order_by(refresh.c.seq.desc()).limit(limit)
    if before is not None:
        query = query.where(refresh.c.seq < before)
    if names := [state.value for state in states]:
        query = query.where(refresh.c.state.in_(names))
    if dashboard is not None:
        # The names are a JSON list: a quoted match is exact, because names hold no quotes.
        query = query.where(sa.cast(refresh.c.dashboards, sa.Text).contains(f'"{dashboard}"', autoescape=True))
    return [RefreshRow(row["seq"], _refresh(row)) for row in conn.execute(query).mappings()]


def get_refresh(conn: Connection, refresh_id: str) -> Refresh | None:
    """One refresh by its id."""
    row = conn.execute(sa.select(refresh).where(refresh.c.id == refresh_id)).mappings().one_or_none()
    return None if row is None else _refresh(row)


def history_of(conn: Connection, refresh_id: str) -> list[HistoryRow]:
    """Every step of a refresh, oldest first."""
    query = sa.select(history).where(history.c.refresh_id == refresh_id).order_by(history.c.seq)
    return [HistoryRow(**{**row, "at": utc(row["at"])}) for row in conn.execute(query).mappings()]


def count_by_state(conn: Connection) -> dict[tuple[str, str], int]:
    """How many refreshes stand where, by (connection, state)."""
    query = sa.select(refresh.c.connection, refresh.c.state, sa.func.count()).group_by(
        refresh.c.connection, refresh.c.state
    )
    return {(row[0], row[1]): row[2] for row in conn.execute(query)}


# -- rows and dataclasses -------------------------------------------------------------------------


def _values(item: Refresh) -> dict[str, Any]:
    asset, ticket = item.asset, item.ticket
    return {
        "connection": item.connection,
        "asset_key": asset.key,
        "asset": {
            "kind": asset.kind,
            "ref": asset.ref,
            "parameters": dict(asset.parameters),
            "title": asset.title,
            "url": asset.url,
        },
        "dashboards": list(item.dashboards),
        "source": item.source,
        "run_id": item.run_id,
        "plan_id": item.plan_id,
        "state": item.state.value,
        "epoch": item.epoch,
        "attempts": item.attempts,
        "created_at": micros(item.created_at),
        "wanted_at": micros(item.wanted_at),
        "due_at": micros(item.due_at),
        "intent_at": micros(item.intent_at),
        "deadline_at": micros(item.deadline_at),
        "started_at": micros(item.started_at),
        "ended_at": micros(item.ended_at),
        "ticket": None
        if ticket is None
        else {
            "id": ticket.id,
            "created_at": micros(ticket.created_at),
            "url": ticket.url,
            "data": dict(ticket.data),
        },
        "reason": item.reason,
        "url": item.url,
    }


def _refresh(row: RowMapping) -> Refresh:
    ticket = row["ticket"]
    return Refresh(
        id=row["id"],
        connection=row["connection"],
        asset=Asset(connection=row["connection"], **row["asset"]),
        state=RefreshState(row["state"]),
        created_at=utc(row["created_at"]),
        wanted_at=utc(row["wanted_at"]),
        due_at=utc(row["due_at"]),
        epoch=row["epoch"],
        attempts=row["attempts"],
        source=row["source"],
        run_id=row["run_id"],
        plan_id=row["plan_id"],
        dashboards=tuple(row["dashboards"]),
        intent_at=utc(row["intent_at"]),
        deadline_at=utc(row["deadline_at"]),
        started_at=utc(row["started_at"]),
        ended_at=utc(row["ended_at"]),
        ticket=None
        if ticket is None
        else Ticket(ticket["id"], utc(ticket["created_at"]), ticket["url"], ticket["data"]),
        reason=row["reason"],
        url=row["url"],
    )
