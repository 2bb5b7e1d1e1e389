"""The engine of one process: places drivers, runs those that fall to it, pokes, beats, takes over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import structlog
from sqlalchemy.engine import Engine as DatabaseEngine

from downriver.core.errors import Fenced, StoreError
from downriver.core.model import Dashboard
from downriver.engine.connection_driver import ConnectionDriver, ConnectionRuntime
from downriver.engine.placement import Placement
from downriver.engine.source_driver import SourceDriver
from downriver.engine.workers import BEAT_SECONDS, SignOfLife
from downriver.sources.base import Source
from downriver.store import mailboxes
from downriver.store.db import Store
from downriver.store.mailboxes import Guard, WorkerRow, connection_mailbox, source_mailbox

_log = structlog.get_logger("downriver.engine")

_WATCH_SECONDS: Final = 0.5
"""How often a process looks whether another one has written to its SQLite file."""
_STOP_SECONDS: Final = 10.0


@dataclass(slots=True)
class _Local:
    """A driver that runs in this process."""

    driver: SourceDriver | ConnectionDriver
    stop: asyncio.Event


class Engine:
    """Everything that works mailboxes in this process."""

    def __init__(
        self,
        *,
        store: Store,
        database: DatabaseEngine,
        home: Path,
        sources: Mapping[str, Source],
        connections: Mapping[str, ConnectionRuntime],
        dashboards: Sequence[Dashboard],
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._sources = {source_mailbox(name): source for name, source in sources.items()}
        self._connections = {connection_mailbox(name): item for name, item in connections.items()}
        self._dashboards = dashboards
        self._clock = clock
        self._sign = SignOfLife(home, clock())
        self._placement = Placement(database, worker_id=self._sign.worker.id, drive=self._drive)
        self._local: dict[str, _Local] = {}
        self._duties: list[asyncio.Task[None]] = []
        self._stopping = False

    @property
    def mailboxes(self) -> tuple[str, ...]:
        """The mailboxes of the configuration."""
        return (*self._sources, *self._connections)

    async def start(self) -> None:
        """Join the workers, take over from dead ones, have every mailbox placed."""
        await self._store.write(lambda conn: mailboxes.register_worker(conn, self._sign.worker))
        self._placement.launch()
        await self._placement.prepare()
        await self._sweep()
        self._duties = [
            asyncio.create_task(self._every(BEAT_SECONDS, self._beat)),
            asyncio.create_task(self._every(_WATCH_SECONDS, self._watch)),
        ]

    async def stop(self) -> None:
        """Let every driver here write what it holds, and leave."""
        self._stopping = True
        for duty in self._duties:
            duty.cancel()
        for local in self._local.values():
            local.stop.set()
            local.driver.poked()
        with suppress(TimeoutError):
            async with asyncio.timeout(_STOP_SECONDS):
                while self._local:
                    await asyncio.sleep(0.02)
        await self._placement.stop()
        with suppress(StoreError):
            await self._store.write(lambda conn: mailboxes.remove_worker(conn, self._sign.worker.id))
        self._sign.end()

    def poke(self, mailbox: str) -> None:
        """Something was put into a mailbox: wake its driver, if it runs here (elsewhere it watches)."""
        local = self._local.get(mailbox)
        if local is not None:
            local.driver.poked()

    async def unattended(self) -> tuple[str, ...]:
        """The configured mailboxes that no living process works right now."""
        rows = await self._store.read(mailboxes.list_mailboxes)
        workers = await self._store.read(mailboxes.list_workers)
        now = self._clock()
        living = {item.id for item in workers if not self._sign.is_dead(item, now)}
        worked = {row.name for row in rows if row.worker_id in living}
        return tuple(name for name in self.mailboxes if name not in worked)

    # -- a driver's life ----------------------------------------------------------------------------

    async def _drive(self, mailbox: str) -> None:
        """The body of the placed workflow: work one mailbox until asked to stop or fenced off."""
        if self._stopping or mailbox not in self.mailboxes or mailbox in self._local:
            return
        worker_id, at = self._sign.worker.id, self._clock()
        guard = await self._store.write(lambda conn: mailboxes.take(conn, mailbox, worker_id=worker_id, at=at))
        local = self._make(mailbox, guard)
        self._local[mailbox] = local
        _log.info("driver_started", mailbox=mailbox, epoch=guard.epoch)
        try:
            await local.driver.run()
            with suppress(StoreError):
                await self._store.write(lambda conn: mailboxes.leave(conn, guard))
        except Fenced as error:
            _log.warning("driver_fenced", mailbox=mailbox, error=str(error))
        finally:
            del self._local[mailbox]

    def _make(self, mailbox: str, guard: Guard) -> _Local:
        wake, stop = asyncio.Event(), asyncio.Event()
        if mailbox in self._sources:
            source = SourceDriver(
                self._sources[mailbox],
                self._dashboards,
                store=self._store,
                guard=guard,
                wake=wake,
                stop=stop,
                clock=self._clock,
                poke=self.poke,
            )
            return _Local(source, stop)
        connection = ConnectionDriver(
            self._connections[mailbox], store=self._store, guard=guard, wake=wake, stop=stop, clock=self._clock
        )
        return _Local(connection, stop)

    # -- duties -------------------------------------------------------------------------------------

    async def _every(self, seconds: float, duty: Callable[[], asyncio.Future[None] | object]) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await duty()  # type: ignore[misc]  # both duties are coroutine functions
            except StoreError as error:
                _log.warning("store_unavailable", duty=duty.__name__, error=str(error))

    async def _beat(self) -> None:
        worker, at = self._sign.worker, self._clock()
        if not await self._store.write(lambda conn: mailboxes.beat(conn, worker.id, at)):
            # Somebody took us for dead: our drivers are fenced off. Sign on again and take part.
            await self._store.write(lambda conn: mailboxes.register_worker(conn, worker))
        await self._sweep()

    async def _sweep(self) -> None:
        """Release what dead processes held, and have every mailbox placed that nobody works."""
        now = self._clock()
        for other in await self._store.read(mailboxes.list_workers):
            if self._sign.is_dead(other, now):
                await self._bury(other)
        await self._placement.place(await self.unattended())

    async def _bury(self, other: WorkerRow) -> None:
        await self._placement.release(other.id)
        await self._store.write(lambda conn: mailboxes.remove_worker(conn, other.id))
        self._sign.forget(other)

    async def _watch(self) -> None:
        """Another process may have put something into a mailbox that is worked here."""
        if await self._store.changed_elsewhere():
            for local in self._local.values():
                local.driver.poked()
