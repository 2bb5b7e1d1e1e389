"""The main job in one process: a signed webhook, the engine on a real database, Mode's stand-in over loopback."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr

from downriver.connectors.base import connect
from downriver.connectors.mode import SPEC, ModeConfig
from downriver.connectors.transport import AiohttpTransport
from downriver.core.model import Asset, Dashboard, Rule
from downriver.core.states import RefreshState
from downriver.engine.budget import RateBudget
from downriver.engine.connection_driver import ConnectionRuntime
from downriver.engine.engine import Engine
from downriver.engine.policy import Policy
from downriver.sandbox import Fault, ModeReport, RunShape, SandboxSettings, running
from downriver.sources.registry import source_spec
from downriver.store import events, mailboxes, refreshes
from downriver.store.db import Store, make_placement_engine

REPORT = "9d2da37fa91e"
KEY = "test-secret"
FAST = Policy(
    first_look=timedelta(milliseconds=20),
    max_look=timedelta(milliseconds=100),
    retry_first=timedelta(milliseconds=50),
    settle=timedelta(milliseconds=200),
)


def body(event_id: str = "wev_1", run_id: str = "70437497968840", status: str = "Success") -> bytes:
    run = {
        "jobId": "278164",
        "jobName": "Daily Job",
        "runId": run_id,
        "environmentId": "1",
        "environmentName": "Prod",
        "dbtVersion": "1.11",
        "projectName": "p",
        "projectId": "2",
        "runStatus": status,
        "runStatusCode": {"Success": 10, "Errored": 20}[status],
        "runStatusMessage": "None",
        "runReason": "scheduled",
        "runStartedAt": "2023-05-29T07:51:56Z",
        "runFinishedAt": "2023-05-29T07:52:15Z",
    }
    event = {
        "accountId": 66847,
        "eventId": event_id,
        "timestamp": "2023-05-29T07:52:18.06660617Z",
        "eventType": "job.run.completed",
        "webhookId": "wsu_1",
        "webhookName": "w",
        "data": run,
    }
    return json.dumps(event, separators=(",", ":")).encode()


class World:
    def __init__(self, tmp_path, sandbox, policy=FAST):
        self.sandbox, self.home, self.policy = sandbox, tmp_path, policy
        self.url = f"sqlite:///{tmp_path / 'downriver.db'}"
        kind = source_spec("dbt_platform")
        self.source = kind.build("analytics", kind.config(webhook_secret=SecretStr(KEY)))
        self.dashboards = (
            Dashboard("weekly_revenue", (Asset("mode", "report", REPORT),), Rule("analytics", ("278164",))),
        )
        self.transport = AiohttpTransport()

    @asynccontextmanager
    async def engine(self):
        store = Store.open(self.url)
        credential = self.sandbox.settings.mode.credentials[0]
        config = ModeConfig(
            workspace=self.sandbox.settings.mode.workspace,
            token=SecretStr(credential.token),
            secret=SecretStr(credential.secret),
            base_url=self.sandbox.mode.url,
        )
        budget = RateBudget(None)
        runtime = ConnectionRuntime(
            "mode", connect(SPEC, config, self.transport, spend=budget.spend), self.policy, budget
        )
        database = make_placement_engine(self.url)
        engine = Engine(
            store=store,
            database=database,
            home=self.home,
            sources={"analytics": self.source},
            connections={"mode": runtime},
            dashboards=self.dashboards,
            clock=lambda: datetime.now(UTC),
        )
        await engine.start()
        try:
            yield store, engine
        finally:
            await engine.stop()
            store.close()
            database.dispose()

    async def deliver(self, store, engine, raw):
        signature = hmac.new(KEY.encode(), raw, hashlib.sha256).hexdigest()
        verified = self.source.verify({"authorization": signature}, raw)
        news = events.NewEvent(self.source.parse(raw, datetime.now(UTC)), raw, {}, verified.key_fingerprint)
        fresh = await store.batch(events.insert_events, news)
        if fresh:
            engine.poke(mailboxes.source_mailbox("analytics"))
        return fresh


async def ended(store, count=1, seconds=15.0):
    async with asyncio.timeout(seconds):
        while True:
            rows = [r.refresh for r in await store.read(lambda conn: refreshes.list_refreshes(conn, limit=50))]
            if len(rows) >= count and all(row.ended_at for row in rows):
                return rows
            await asyncio.sleep(0.02)


async def test_a_successful_run_refreshes_the_report_once(tmp_path):
    async with running() as sandbox:
        sandbox.mode.put_report(ModeReport(token=REPORT, shape=RunShape(phases=((0.2, "enqueued"),))))
        world = World(tmp_path, sandbox)
        async with world.engine() as (store, engine):
            assert await world.deliver(store, engine, body())
            assert not await world.deliver(store, engine, body())  # a redelivery
            (row,) = await ended(store)
            assert row.state is RefreshState.SUCCEEDED
            assert row.dashboards == ("weekly_revenue",)
            steps = await store.read(lambda conn: refreshes.history_of(conn, row.id))
            assert [step.to_state for step in steps] == ["queued", "triggering", "running", "succeeded"]
            assert await world.deliver(store, engine, body(event_id="wev_2"))  # the same run under another id
            await asyncio.sleep(0.2)
            assert len(await ended(store)) == 1
        await world.transport.aclose()
        assert len(sandbox.mode.seen_runs(REPORT)) == 1


async def test_a_failed_run_refreshes_nothing_and_says_why(tmp_path):
    async with running() as sandbox:
        world = World(tmp_path, sandbox)
        async with world.engine() as (store, engine):
            await world.deliver(store, engine, body(status="Errored"))
            async with asyncio.timeout(10):
                while (row := (await store.read(lambda c: events.list_events(c, limit=1)))[0]).state != "done":
                    await asyncio.sleep(0.02)
            assert "nothing is refreshed" in row.note
            assert await ended(store, count=0) == []
        await world.transport.aclose()


async def test_a_post_whose_answer_was_lost_is_found_and_not_repeated(tmp_path):
    async with running() as sandbox:
        sandbox.mode.put_report(ModeReport(token=REPORT, shape=RunShape(phases=((0.2, "enqueued"),))))
        sandbox.mode.faults.arm(Fault(kind="cut", after_effect=True, method="POST", times=1))
        world = World(tmp_path, sandbox)
        async with world.engine() as (store, engine):
            await world.deliver(store, engine, body())
            (row,) = await ended(store)
            assert row.state is RefreshState.SUCCEEDED
            notes = [step.note for step in await store.read(lambda conn: refreshes.history_of(conn, row.id))]
            assert any("adopted" in note for note in notes)
        await world.transport.aclose()
        assert len(sandbox.mode.seen_runs(REPORT)) == 1


async def test_a_tool_that_is_down_is_tried_again(tmp_path):
    async with running() as sandbox:
        sandbox.mode.put_report(ModeReport(token=REPORT, shape=RunShape(phases=((0.1, "enqueued"),))))
        sandbox.mode.faults.arm(Fault(kind="cut", method="POST", times=2))
        world = World(tmp_path, sandbox)
        async with world.engine() as (store, engine):
            await world.deliver(store, engine, body())
            (row,) = await ended(store)
            assert row.state is RefreshState.SUCCEEDED
        await world.transport.aclose()
        assert len(sandbox.mode.seen_runs(REPORT)) == 1


async def test_a_restart_follows_the_running_run_and_triggers_nothing(tmp_path):
    async with running() as sandbox:
        sandbox.mode.put_report(ModeReport(token=REPORT, shape=RunShape(phases=((3, "enqueued"),))))
        world = World(tmp_path, sandbox)
        async with world.engine() as (store, engine):
            await world.deliver(store, engine, body())
            async with asyncio.timeout(10):
                while not sandbox.mode.seen_runs(REPORT):
                    await asyncio.sleep(0.02)
            await asyncio.sleep(0.1)
        async with world.engine() as (store, _engine):
            (row,) = await ended(store)
            assert row.state is RefreshState.SUCCEEDED
            assert row.attempts == 1
        await world.transport.aclose()
        assert len(sandbox.mode.seen_runs(REPORT)) == 1


def test_looks_grow_and_stop_growing():
    policy = Policy()
    delays = [policy.look_delay(looks) for looks in range(60)]
    assert delays == sorted(delays)
    assert delays[-1] == policy.max_look
    assert replace(policy, first_look=timedelta(0)).look_delay(5) == timedelta(0)


@pytest.mark.parametrize("asked", [None, 30.0])
def test_a_retry_never_comes_before_the_tool_asked(asked):
    for tries in range(1, 50):
        delay = Policy().retry_delay(tries, asked, 0.0)
        assert delay >= timedelta(seconds=asked or 3)
        assert delay <= timedelta(minutes=8)


async def test_many_refreshes_move_together(tmp_path):
    reports = [f"{number:012x}" for number in range(1, 41)]
    async with running(SandboxSettings().instant()) as sandbox:
        world = World(tmp_path, sandbox, replace(FAST, concurrency=40, first_look=timedelta(0)))
        world.dashboards = tuple(
            Dashboard(f"d{token}", (Asset("mode", "report", token),), Rule("analytics")) for token in reports
        )
        async with world.engine() as (store, engine):
            await world.deliver(store, engine, body())
            rows = await ended(store, count=40)
            assert {row.state for row in rows} == {RefreshState.SUCCEEDED}
        await world.transport.aclose()
        assert [len(sandbox.mode.seen_runs(token)) for token in reports] == [1] * 40
