"""`downriver demo`: stand-ins, service and one dbt run, in one process, on the embedded database."""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

import structlog
import uvloop
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from downriver.app import Link, Parts, Service
from downriver.connectors.mode import SPEC as MODE
from downriver.connectors.mode import ModeConfig
from downriver.core.model import Asset, Dashboard, Refresh, Rule
from downriver.core.states import RefreshState
from downriver.sandbox import JobRun, ModeReport, NewSubscription, RunShape, Sandbox, running
from downriver.sources.registry import source_spec
from downriver.store import events, plans, refreshes
from downriver.store.refreshes import HistoryRow

REPORT: Final = "9d2da37fa91e"
JOB: Final = 278164


def run_demo(*, stay: bool) -> int:
    """Run it, show it; 0 when the dashboard ended fresh."""
    # The demo says itself what happens; the log would say it twice.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    return uvloop.run(_demo(Console(), stay=stay))


async def _demo(console: Console, *, stay: bool) -> int:
    began = time.perf_counter()

    def say(text: str) -> None:
        console.print(f"[dim]{time.perf_counter() - began:6.2f}s[/dim]  {text}", highlight=False)

    with tempfile.TemporaryDirectory(prefix="downriver-demo-") as home:
        async with running() as sandbox:
            sandbox.mode.put_report(
                ModeReport(token=REPORT, name="Weekly revenue", shape=RunShape(phases=((1.5, "enqueued"),)))
            )
            say(f"stand-ins: the dbt platform at {sandbox.dbt.url}, Mode at {sandbox.mode.url}")
            return await _serve_and_run(console, say, sandbox, Path(home), stay=stay)


async def _serve_and_run(
    console: Console, say: Callable[[str], None], sandbox: Sandbox, home: Path, *, stay: bool
) -> int:
    secret = "demo-webhook-key"  # noqa: S105  (opens nothing: both ends live in this process)
    async with Service(_parts(sandbox, home, secret)) as service, service.server("127.0.0.1", 0) as web:
        await service.until_ready()
        say(f"Downriver at {web.url}, its SQLite file in {home}")
        account = sandbox.dbt.account
        account.subscribe(NewSubscription(client_url=f"{web.url}/hooks/analytics", secret=secret))
        run = account.finish_job(JobRun(job=JOB))
        say(f"dbt finished run {run.id} of job {JOB} and sends its signed webhook")
        refresh = await _follow(service, say)
        await _summary(console, service, refresh)
        if stay:
            say("Still running; Ctrl-C ends it.")
            await asyncio.Event().wait()
        return 0 if refresh.state is RefreshState.SUCCEEDED else 1


def _parts(sandbox: Sandbox, home: Path, secret: str) -> Parts:
    kind = source_spec("dbt_platform")
    credential = sandbox.settings.mode.credentials[0]
    mode = ModeConfig(
        workspace=sandbox.settings.mode.workspace,
        token=SecretStr(credential.token),
        secret=SecretStr(credential.secret),
        base_url=sandbox.mode.url,
    )
    asset = Asset("mode", "report", REPORT, {"location": "San Francisco"})
    return Parts(
        home=home,
        sources={"analytics": kind.build("analytics", kind.config(webhook_secret=SecretStr(secret)))},
        links={"mode": Link(MODE, mode, requests_per_second=MODE.limits.requests_per_second)},
        dashboards=(Dashboard("weekly_revenue", (asset,), Rule("analytics", (str(JOB),))),),
    )


async def _follow(service: Service, say: Callable[[str], None]) -> Refresh:
    """Say each step of the first refresh as it happens; returns it when it has ended."""
    told = 0
    async with asyncio.timeout(60):
        while True:
            rows = await service.store.read(lambda conn: refreshes.list_refreshes(conn, limit=1))
            if rows:
                refresh = rows[0].refresh
                steps = await _steps(service, refresh)
                for step in steps[told:]:
                    say(f"weekly_revenue: [bold]{step.to_state}[/bold]  {step.note}")
                told = len(steps)
                if refresh.ended_at is not None:
                    return refresh
            await asyncio.sleep(0.02)


async def _steps(service: Service, refresh: Refresh) -> list[HistoryRow]:
    return await service.store.read(lambda conn: refreshes.history_of(conn, refresh.id))


async def _summary(console: Console, service: Service, refresh: Refresh) -> None:
    event = (await service.store.read(lambda conn: events.list_events(conn, limit=1)))[0]
    found = await service.store.read(lambda conn: plans.get_plan(conn, refresh.plan_id or ""))
    steps = await _steps(service, refresh)
    table = Table("what", "which", "after", "said", title="event → plan → refresh → outcome")
    table.add_row("event", event.event_id, "0 ms", f"{event.type}, {event.run_status}")
    if found is not None:
        plan, decisions = found
        for item in decisions:
            table.add_row("plan", plan.id, _after(event.received_at, plan.created_at),
                          f"{item.dashboard}: {item.action}, {item.reason}")  # fmt: skip
    for step in steps:
        kind = "outcome" if step.to_state == refresh.state.value else "refresh"
        table.add_row(kind, refresh.id, _after(event.received_at, step.at), f"{step.to_state}: {step.note}")
    console.print(table)
    ended = refresh.ended_at
    fresh = f"fresh as of {ended:%H:%M:%S} UTC" if ended and refresh.state is RefreshState.SUCCEEDED else "not fresh"
    console.print(f"weekly_revenue is {fresh}.", highlight=False)


def _after(start: datetime, end: datetime) -> str:
    return f"{(end - start).total_seconds() * 1000:,.0f} ms"
