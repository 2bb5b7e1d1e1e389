"""The driver of one source: from each new event to its run, its plan and one refresh row per asset."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import structlog
from sqlalchemy.engine import Connection

from downriver.core.errors import BadInput, StoreError
from downriver.core.model import (
    Action,
    Asset,
    Dashboard,
    Event,
    EventKind,
    Plan,
    Refresh,
    Run,
    RunStatus,
    plan_id,
    refresh_id,
)
from downriver.core.planning import plan as make_plan
from downriver.core.states import ACTIVE, RefreshState
from downriver.sources.base import Source
from downriver.store import events, plans, refreshes
from downriver.store.db import Store
from downriver.store.events import WaitingEvent
from downriver.store.mailboxes import Guard, connection_mailbox

_log = structlog.get_logger("downriver.engine")

_BATCH: Final = 200
_SLOW_LOOK: Final = 15.0
_STORE_PAUSE: Final = 1.0
_NOT_AGAIN: Final = ACTIVE | {RefreshState.SUCCEEDED, RefreshState.SUPERSEDED}
"""A replay leaves refreshes in these states alone: they are done, under way, or a newer one does it."""


@dataclass(frozen=True, slots=True)
class Worked:
    """A waiting event and what it means: `plan` when the run has ended and is to be planned."""

    waiting: WaitingEvent
    event: Event | None
    plan: Plan | None
    note: str


class SourceDriver:
    """Works one source's mailbox until asked to stop, or until it is fenced off."""

    def __init__(
        self,
        source: Source,
        dashboards: Sequence[Dashboard],
        *,
        store: Store,
        guard: Guard,
        wake: asyncio.Event,
        stop: asyncio.Event,
        clock: Callable[[], datetime],
        poke: Callable[[str], None],
    ) -> None:
        self._source = source
        self._dashboards = dashboards
        self._store = store
        self._guard = guard
        self._wake = wake
        self._stop = stop
        self._clock = clock
        self._poke = poke

    async def run(self) -> None:
        """Drive. Returns when asked to stop; raises Fenced when another driver has taken over."""
        while not self._stop.is_set():
            self._wake.clear()
            try:
                worked = await self._work_batch()
            except StoreError as error:
                _log.warning("store_unavailable", mailbox=self._guard.mailbox, error=str(error))
                await self._pause(_STORE_PAUSE)
                continue
            if not worked:
                await self._pause(_SLOW_LOOK)

    def poked(self) -> None:
        """Somebody has put an event into the mailbox."""
        self._wake.set()

    async def _pause(self, seconds: float) -> None:
        if self._stop.is_set():
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    async def _work_batch(self) -> int:
        name = self._source.name
        waiting = await self._store.read(lambda conn: events.waiting_events(conn, name, limit=_BATCH))
        if not waiting:
            return 0
        worked = [self._understand(item) for item in waiting]
        now = self._clock()
        asked = await self._store.write(lambda conn: self._settle(conn, worked, now))
        for connection in asked:
            self._poke(connection_mailbox(connection))
        return len(worked)

    def _understand(self, waiting: WaitingEvent) -> Worked:
        try:
            event = self._source.parse(waiting.body, waiting.received_at)
        except BadInput as error:
            return Worked(waiting, None, None, f"cannot be read any more: {error}")
        run = event.run
        if run is None:
            return Worked(waiting, event, None, "says nothing of a run")
        if event.kind is EventKind.RUN_FINISHED:
            return Worked(waiting, event, make_plan(run, self._dashboards), "")
        if event.kind is EventKind.RUN_ERRORED:
            return Worked(waiting, event, None, f"{run.label} failed; nothing is refreshed")
        return Worked(waiting, event, None, f"{run.label}: noted")

    def _settle(self, conn: Connection, worked: Sequence[Worked], now: datetime) -> set[str]:
        """One transaction: runs, plans, decisions, refresh rows, events done. The connections with new work."""
        self._guard.check(conn)
        asked: set[str] = set()
        for item in worked:
            if item.event is not None and item.event.run is not None:
                plans.save_run(conn, item.event.run, at=now)
            if item.plan is None:
                events.mark_done(conn, item.waiting.seq, at=now, note=item.note)
                continue
            note, connections = _carry_out(conn, item.waiting, item.plan, now)
            asked |= connections
            identity = plan_id(item.plan.run.source, item.plan.run.run_id, item.waiting.replays + 1)
            events.mark_done(conn, item.waiting.seq, at=now, note=note, plan_id=identity)
        return asked


def _carry_out(conn: Connection, waiting: WaitingEvent, news: Plan, now: datetime) -> tuple[str, set[str]]:
    """Store the plan and queue its refreshes; the sentence for the event, and the connections concerned."""
    revision = waiting.replays + 1
    earlier = refreshes.latest_for_run(conn, news.run.source, news.run.run_id)
    assets = [
        asset
        for asset in news.assets
        if (old := earlier.get((asset.connection, asset.key))) is None or old.state not in _NOT_AGAIN
    ]
    wanted = [_wanted(news, asset, revision, waiting.received_at, now) for asset in assets]
    ids = {key: old.id for key, old in earlier.items()} | {
        (item.connection, item.asset.key): item.id for item in wanted
    }
    saved = plans.save_plan(conn, news, revision=revision, event_id=waiting.event_id, at=now, refresh_ids=ids)
    if not saved:
        return "this run was planned already", set()
    results = refreshes.insert(conn, wanted, note=f"asked for by {news.run.label}")
    return _summary(news, sum(results)), {item.connection for item in wanted}


def _wanted(plan: Plan, asset: Asset, revision: int, received_at: datetime, now: datetime) -> Refresh:
    run = plan.run
    return Refresh(
        id=refresh_id(run.source, run.run_id, asset, revision),
        connection=asset.connection,
        asset=asset,
        state=RefreshState.QUEUED,
        created_at=now,
        wanted_at=_data_time(run, received_at),
        due_at=now,
        source=run.source,
        run_id=run.run_id,
        plan_id=plan_id(run.source, run.run_id, revision),
        dashboards=_served(plan, asset),
    )


def _served(plan: Plan, asset: Asset) -> tuple[str, ...]:
    return tuple(
        decision.dashboard
        for decision in plan.decisions
        if decision.action is Action.REFRESH
        and any((mine.connection, mine.key) == (asset.connection, asset.key) for mine in decision.assets)
    )


def _data_time(run: Run, received_at: datetime) -> datetime:
    """When the data was new. A sender's clock that runs ahead cannot make it later than the delivery."""
    return min(run.finished_at, received_at) if run.finished_at else received_at


def _summary(plan: Plan, queued: int) -> str:
    if not plan.decisions:
        return f"{plan.run.label}: no dashboard listens to it"
    if plan.run.status is not RunStatus.SUCCESS:
        word = plan.run.status_word or plan.run.status.value
        return f"{plan.run.label} ended as {word}; nothing is refreshed"
    return f"{plan.run.label}: {queued} refresh{'' if queued == 1 else 'es'} asked for"
