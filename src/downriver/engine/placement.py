"""Placing drivers on processes with DBOS Transact. The only module that imports dbos.

A driver is a DBOS workflow on one queue, deduplicated by the name of its mailbox, so that exactly one is
queued or running for each. It is coarse on purpose: DBOS places and finds again; what a driver does
is kept in our own tables. DBOS is one per process, and so is a `Placement`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import structlog
from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer, SetEnqueueOptions, error
from sqlalchemy.engine import Engine

_log = structlog.get_logger("downriver.engine")

_QUEUE: Final = "drivers"
_APPLICATION: Final = "downriver"
# Ours, not DBOS's hash of the code: a driver may be taken over by another version of Downriver.
_APPLICATION_VERSION: Final = "1"
_POLL_SECONDS: Final = 1.0  # 50 ms would cost 9 % of a core while idle

Drive = Callable[[str], Awaitable[None]]
_drive: Drive | None = None


@DBOS.workflow(name="drive")
async def _drive_workflow(mailbox: str) -> None:
    """Work a mailbox here until asked to stop or overtaken. Runs on the loop that launched DBOS."""
    if _drive is not None:
        await _drive(mailbox)


class Placement:
    """This process's part in placing drivers: `worker_id` is its name, `drive` works one mailbox."""

    def __init__(self, engine: Engine, *, worker_id: str, drive: Drive) -> None:
        self._engine = engine
        self._worker_id = worker_id
        self._driver = drive

    def launch(self) -> None:
        """Join in. Call on the event loop that shall run the drivers; takes some 50 ms."""
        global _drive  # noqa: PLW0603  (DBOS registers workflows per process, by name)
        _drive = self._driver
        logging.getLogger("dbos").setLevel(logging.ERROR)
        DBOS(
            config=DBOSConfig(
                name=_APPLICATION,
                application_version=_APPLICATION_VERSION,
                executor_id=self._worker_id,
                system_database_url=self._engine.url.render_as_string(hide_password=False),
                system_database_engine=self._engine,
                serializer=DBOSPortableJSONSerializer(),  # only mailbox names go in; never pickle
                log_level="ERROR",
                enable_otlp=False,
            )
        )
        DBOS.launch()

    async def prepare(self) -> None:
        """Make the queue known; it is polled from then on."""
        await DBOS.register_queue_async(_QUEUE, polling_interval_sec=_POLL_SECONDS)

    async def place(self, mailboxes: Iterable[str]) -> None:
        """Have each mailbox driven by somebody, unless somebody drives it or will."""
        for mailbox in mailboxes:
            try:
                with SetEnqueueOptions(deduplication_id=mailbox):
                    await DBOS.enqueue_workflow_async(_QUEUE, _drive_workflow, mailbox)
            except error.DBOSQueueDeduplicatedError:
                continue

    async def release(self, dead_worker_id: str) -> None:
        """Give up the drivers of a process that is dead, so that they can be placed anew."""
        found = await DBOS.list_workflows_async(executor_id=[dead_worker_id], status=["PENDING"])
        if found:
            await DBOS.cancel_workflows_async([item.workflow_id for item in found])
            _log.info("drivers_released", worker=dead_worker_id, drivers=len(found))

    async def stop(self) -> None:
        """Leave. The drivers of this process have been asked to end before."""
        global _drive  # noqa: PLW0603
        await asyncio.to_thread(DBOS.destroy, workflow_completion_timeout_sec=5)
        _drive = None
