"""How fast a queue empties: 5,000 refreshes of as many reports, one process on SQLite, instant Mode stand-in.

Every refresh is triggered, looked at once, moved twice, each move with its history, all committed.
The stand-in is a process of its own; the clock runs from waking the driver until all have succeeded.
"""

from __future__ import annotations

import asyncio
import json
import logging
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog
import uvloop
from bench.world import Row, call, report, sandbox
from pydantic import SecretStr

from downriver.app import Link, Parts, Service, now
from downriver.connectors.mode import SPEC as MODE
from downriver.connectors.mode import ModeConfig
from downriver.core.model import Asset, Refresh
from downriver.core.states import RefreshState
from downriver.engine.policy import Policy
from downriver.store import mailboxes, refreshes

COUNT = 5_000
POLICY = Policy(first_look=timedelta(0), concurrency=256, parallel_calls=64)


def measure(repeat: int) -> list[Row]:
    """Refreshes per second, one value per repeat."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    rates = []
    for _ in range(repeat):
        with tempfile.TemporaryDirectory(prefix="downriver-bench-") as home, sandbox(Path(home)) as known:
            rates.append(COUNT / uvloop.run(_drain(Path(home), known["mode"])))
            _nothing_twice(known["mode"]["url"])
    return [Row("drain", f"{COUNT:,} queued refreshes", "refreshes/s", tuple(rates))]


async def _drain(home: Path, mode: dict[str, Any]) -> float:
    options = ModeConfig(
        workspace=mode["workspace"],
        token=SecretStr(mode["token"]),
        secret=SecretStr(mode["secret"]),
        base_url=mode["url"],
    )
    parts = Parts(home=home / "data", sources={}, links={"mode": Link(MODE, options, POLICY)}, dashboards=())
    async with Service(parts) as service:
        await service.until_ready()
        queued = [_queued(number) for number in range(1, COUNT + 1)]
        await service.store.write(lambda conn: refreshes.insert(conn, queued, note="bench"))
        began = time.perf_counter()
        service.engine.poke(mailboxes.connection_mailbox("mode"))
        async with asyncio.timeout(30):
            while True:
                await asyncio.sleep(0.02)
                standing = await service.store.read(refreshes.count_by_state)
                if standing.get(("mode", RefreshState.SUCCEEDED.value), 0) == COUNT:
                    return time.perf_counter() - began


def _queued(number: int) -> Refresh:
    at = now()
    asset = Asset("mode", "report", report(number))
    return Refresh(f"rf_bench{number}", "mode", asset, RefreshState.QUEUED, created_at=at, wanted_at=at, due_at=at)


def _nothing_twice(url: str) -> None:
    counts = json.loads(call(url, "GET", "/_sandbox/mode/requests?limit=0")[1])["counts"]
    posts = sum(row["count"] for row in counts if row["method"] == "POST")
    if posts != COUNT:
        raise RuntimeError(f"{posts} triggers for {COUNT} refreshes")
