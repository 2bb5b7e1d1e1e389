"""The driver of one connection: claims due refreshes, calls the connector, follows each to its end.

One loop per connection, and one entry in a heap per refresh in flight: no task, thread or timer each.
Calls run side by side, at most `parallel_calls`; what they answered is written in batches.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import count
from typing import Final

import structlog
from sqlalchemy.engine import Connection

from downriver.connectors.base import Connector
from downriver.core.errors import CallError, InDoubt, Permanent, StoreError
from downriver.core.model import Outcome, Refresh, StillRunning, Ticket
from downriver.core.states import OUTCOMES, RefreshState
from downriver.engine.budget import RateBudget
from downriver.engine.conclude import Flight, Step, Verb, after_look, after_seek, after_trigger
from downriver.engine.policy import Policy
from downriver.store import refreshes
from downriver.store.db import Store
from downriver.store.mailboxes import Guard
from downriver.store.refreshes import Move

_log = structlog.get_logger("downriver.engine")

Answer = Ticket | Outcome | StillRunning | tuple[Ticket, ...] | CallError

_SLOW_LOOK: Final = 15.0
"""Seconds after which an idle driver looks into its mailbox even if nobody woke it."""
_STORE_PAUSE: Final = 1.0
_FAREWELL: Final = 5.0
"""Seconds that calls under way get to finish when the driver is asked to stop."""


@dataclass(frozen=True, slots=True)
class ConnectionRuntime:
    """A configured connection, ready to be driven."""

    name: str
    connector: Connector
    policy: Policy
    budget: RateBudget


class ConnectionDriver:
    """Works one connection's mailbox until asked to stop, or until it is fenced off."""

    def __init__(
        self,
        runtime: ConnectionRuntime,
        *,
        store: Store,
        guard: Guard,
        wake: asyncio.Event,
        stop: asyncio.Event,
        clock: Callable[[], datetime],
    ) -> None:
        self._runtime = runtime
        self._policy = runtime.policy
        self._store = store
        self._guard = guard
        self._wake = wake
        self._stop = stop
        self._clock = clock
        self._flights: dict[str, Flight] = {}
        self._due: list[tuple[float, int, str]] = []
        self._order = count()
        self._calls: set[asyncio.Task[None]] = set()
        self._answers: list[tuple[Flight, Answer]] = []
        self._next_claim = 0.0

    async def run(self) -> None:
        """Drive. Returns when asked to stop; raises Fenced when another driver has taken over."""
        try:
            await self._take_over()
            while not self._stop.is_set():
                await self._round()
            await self._say_goodbye()
        finally:
            for task in self._calls:
                task.cancel()

    async def _round(self) -> None:
        try:
            self._wake.clear()
            await self._settle()
            await self._claim()
            self._start_calls()
        except StoreError as error:  # nothing is lost: what was not written is done again from memory
            _log.warning("store_unavailable", mailbox=self._guard.mailbox, error=str(error))
            await self._pause(_STORE_PAUSE)
        else:
            await self._park()

    # -- taking work --------------------------------------------------------------------------------

    async def _take_over(self) -> None:
        found = await self._store.write(lambda conn: refreshes.take_over(conn, self._guard, self._runtime.name))
        for item in found:
            mine = replace(item, epoch=self._guard.epoch)
            if item.state is RefreshState.RUNNING:
                self._hold(Flight(mine, Verb.LOOK))
            else:  # the intent was written, the answer was not: look in the tool first
                self._hold(Flight(mine, Verb.SEEK))
        if found:
            _log.info("taken_over", mailbox=self._guard.mailbox, refreshes=len(found))

    async def _claim(self) -> None:
        """Commit the intent for as many due refreshes as there is room for."""
        now = asyncio.get_running_loop().time()
        room = self._policy.concurrency - len(self._flights)
        if room <= 0 or now < self._next_claim:
            return
        busy = {flight.refresh.asset.key for flight in self._flights.values()}
        wall = self._clock()
        due = await self._store.read(
            lambda conn: refreshes.due_queued(conn, self._runtime.name, now=wall, limit=room + len(busy))
        )
        moves = [self._intent(item, wall) for item in _one_per_asset(due, busy)[:room]]
        if moves:
            results = await self._store.write(lambda conn: self._guarded(conn, moves))
            for item, ok in zip(moves, results, strict=True):
                if ok:
                    self._hold(Flight(item.after, Verb.TRIGGER))
        else:
            await self._sleep_until_next_due(wall)

    async def _sleep_until_next_due(self, wall: datetime) -> None:
        upcoming = await self._store.read(lambda conn: refreshes.next_due(conn, self._runtime.name))
        wait = _SLOW_LOOK if upcoming is None else (upcoming - wall).total_seconds()
        # Something due that could not be claimed waits for its asset: the end of that one wakes us.
        wait = _SLOW_LOOK if wait <= 0 else min(wait, _SLOW_LOOK)
        self._next_claim = asyncio.get_running_loop().time() + wait

    def _intent(self, item: Refresh, now: datetime) -> Move:
        after = replace(
            item,
            state=RefreshState.TRIGGERING,
            epoch=self._guard.epoch,
            attempts=item.attempts + 1,
            intent_at=now,
            deadline_at=now + self._policy.timeout,
            due_at=now,
        )
        return Move(item.state, item.epoch, after, "triggering", now)

    def _guarded(self, conn: Connection, moves: list[Move]) -> list[bool]:
        self._guard.check(conn)
        return refreshes.move(conn, moves)

    def _hold(self, flight: Flight, delay: timedelta = timedelta(0)) -> None:
        self._flights[flight.refresh.id] = flight
        due = asyncio.get_running_loop().time() + delay.total_seconds()
        heapq.heappush(self._due, (due, next(self._order), flight.refresh.id))

    # -- calling ------------------------------------------------------------------------------------

    def _start_calls(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._due and self._due[0][0] <= now and len(self._calls) < self._policy.parallel_calls:
            flight = self._flights.get(heapq.heappop(self._due)[2])
            if flight is None:
                continue
            task = asyncio.create_task(self._call(flight))
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)

    async def _call(self, flight: Flight) -> None:
        try:
            answer = await self._ask(flight)
        except CallError as error:
            answer = error
        except Exception as error:  # noqa: BLE001  (the worker loop: a connector's bug must not end the driver)
            answer = _bug(flight, error)
        self._answers.append((flight, answer))
        self._wake.set()

    async def _ask(self, flight: Flight) -> Answer:
        connector, item = self._runtime.connector, flight.refresh
        if flight.verb is Verb.TRIGGER:
            return await connector.trigger(item.asset)
        if flight.verb is Verb.SEEK:
            since = (item.intent_at or item.created_at) - self._policy.clock_skew
            found = await connector.find_recent(item.asset, since)
            taken = await self._store.read(
                lambda conn: refreshes.tickets_of(conn, self._runtime.name, item.asset.key, other_than=item.id)
            )
            return tuple(ticket for ticket in found if ticket.id not in taken)
        if item.ticket is None:
            raise Permanent(f"Refresh {item.id} runs without a ticket.")
        return await connector.look(item.asset, item.ticket)

    # -- writing what was answered ------------------------------------------------------------------

    async def _settle(self) -> None:
        """Write every answer at hand, in one commit, and go on from what was written."""
        answers, self._answers = self._answers, []
        if not answers:
            return
        now = self._clock()
        steps = [(flight, self._step(flight, answer, now)) for flight, answer in answers]
        moves = [
            Move(flight.refresh.state, self._guard.epoch, step.after, step.note or "", now)
            for flight, step in steps
            if step.after.state is not flight.refresh.state
        ]
        remarks = [
            (step.after, step.note)
            for flight, step in steps
            if step.note and step.after.state is flight.refresh.state
        ]
        try:
            lost = await self._write(moves, remarks, now)
        except StoreError:
            self._answers = answers + self._answers
            raise
        for flight, step in steps:
            self._go_on(flight, step, lost)

    async def _write(self, moves: list[Move], remarks: list[tuple[Refresh, str]], now: datetime) -> frozenset[str]:
        """Returns the ids of refreshes that somebody else has moved meanwhile."""
        if not moves and not remarks:
            return frozenset()

        def work(conn: Connection) -> frozenset[str]:
            results = self._guarded(conn, moves)
            for item, note in remarks:
                refreshes.remark(conn, item, note, at=now)
            return frozenset(item.after.id for item, ok in zip(moves, results, strict=True) if not ok)

        return await self._store.write(work)

    def _step(self, flight: Flight, answer: Answer, now: datetime) -> Step:
        jitter = random.random()  # noqa: S311  (spreads retries, hides nothing)
        if flight.verb is Verb.TRIGGER and isinstance(answer, Ticket | Outcome | CallError):
            return after_trigger(flight, answer, self._policy, now=now, jitter=jitter)
        if flight.verb is Verb.SEEK and isinstance(answer, tuple | CallError):
            return after_seek(flight, answer, self._policy, now=now, jitter=jitter)
        if flight.verb is Verb.LOOK and isinstance(answer, StillRunning | Outcome | CallError):
            return after_look(flight, answer, self._policy, now=now, jitter=jitter)
        raise TypeError(f"a connector answered {flight.verb.value} with {type(answer).__name__}")

    def _go_on(self, flight: Flight, step: Step, lost: frozenset[str]) -> None:
        if step.pause:
            self._runtime.budget.pause(step.pause)
        refresh_id = flight.refresh.id
        flight.refresh = step.after
        if step.after.state in OUTCOMES:
            _log.info(
                "refresh_ended",
                refresh=refresh_id,
                outcome=step.after.state.value,
                dashboards=list(step.after.dashboards),
                reason=step.after.reason,
            )
        if step.verb is None or refresh_id in lost:
            del self._flights[refresh_id]
            self._next_claim = 0.0  # there is room again, or something waits for this asset
        else:
            flight.verb = step.verb
            self._hold(flight, step.delay)

    # -- waiting ------------------------------------------------------------------------------------

    async def _park(self) -> None:
        """Sleep until something is due, answered, or somebody pokes."""
        if self._answers or self._stop.is_set():
            return
        now = asyncio.get_running_loop().time()
        times = [self._next_claim or now] if len(self._flights) < self._policy.concurrency else []
        if self._due and len(self._calls) < self._policy.parallel_calls:
            times.append(self._due[0][0])
        timeout = min(times, default=now + _SLOW_LOOK) - now
        if timeout > 0:
            await self._pause(timeout)
        else:
            await asyncio.sleep(0)

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    def poked(self) -> None:
        """Somebody has put work into the mailbox, or it should be looked into."""
        self._next_claim = 0.0
        self._wake.set()

    async def _say_goodbye(self) -> None:
        """Let calls under way finish, so that their tickets are written, then write them."""
        if self._calls:
            await asyncio.wait(self._calls, timeout=_FAREWELL)
        with suppress(StoreError):
            await self._settle()


def _one_per_asset(due: list[Refresh], busy: set[str]) -> list[Refresh]:
    """Those whose asset is not being refreshed already; of two for one asset, the first."""
    chosen: dict[str, Refresh] = {}
    for item in due:
        if item.asset.key not in busy:
            chosen.setdefault(item.asset.key, item)
    return list(chosen.values())


def _bug(flight: Flight, error: Exception) -> CallError:
    """A connector failed in a way it should not: nothing may be concluded from it."""
    _log.error("connector_bug", refresh=flight.refresh.id, verb=flight.verb.value, exc_info=error)
    message = f"Downriver's connector failed with {type(error).__name__} (see the log); please report it."
    return InDoubt(message) if flight.verb is Verb.TRIGGER else Permanent(message)
