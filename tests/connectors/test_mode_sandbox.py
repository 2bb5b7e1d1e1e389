"""The Mode connector over loopback against the sandbox's Mode, which is written from the vendor's documents alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from downriver.connectors.base import Connector, connect
from downriver.connectors.http import Request, Response
from downriver.connectors.mode import SPEC, ModeAsset, ModeConfig
from downriver.connectors.transport import AiohttpTransport
from downriver.core.errors import CallError, InDoubt, Permanent, Transient, Unsupported
from downriver.core.model import Asset, Outcome, StillRunning, Ticket
from downriver.core.states import RefreshState
from downriver.sandbox import SQL_CANARY, Fault, ModeSettings, Sandbox, SandboxSettings, running
from downriver.sandbox.mode import SettingsChange

from .mode_document import check_request

REPORT = "9d2da37fa91e"
PARAMETERS = {"user_id": 123, "location": "San Francisco"}
# Runs take minutes by the stand-in's clock, which the tests put forward.
SLOWLY = SandboxSettings(mode=ModeSettings(time_scale=100.0, rate_limit=None))


@dataclass
class Checked:
    """The real transport, with every request held against Mode's own document first."""

    inner: AiohttpTransport

    async def send(self, request: Request) -> Response:
        check_request(request)
        return await self.inner.send(request)


@dataclass
class Site:
    box: Sandbox
    transport: AiohttpTransport

    def connector(self, **changes: Any) -> Connector:
        known = self.box.mode.describe()
        config = {
            "base_url": known["url"],
            **{key: known[key] for key in ("workspace", "token", "secret")},
            **changes,
        }
        return connect(SPEC, ModeConfig.model_validate(config), Checked(self.transport), timeout=5.0)

    def asset(self, report: str = REPORT, parameters: Mapping[str, Any] = PARAMETERS) -> Asset:
        keys = {"workspace": "acme", "token": "x", "secret": "x", "base_url": self.box.mode.url}
        wanted = ModeAsset.model_validate({"report": report, "parameters": parameters})
        (one,) = SPEC.assets("here", ModeConfig.model_validate(keys), wanted)
        return one

    def advance(self, seconds: float) -> None:
        skew = self.box.mode.settings.clock_skew + seconds
        self.box.mode.change(SettingsChange(clock_skew=skew))

    def fault(self, kind: Any, method: str = "*", **more: Any) -> None:
        self.box.mode.faults.arm(Fault(kind=kind, method=method, **more))

    def runs(self, report: str = REPORT) -> list[dict[str, object]]:
        return self.box.mode.seen_runs(report)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    transport = AiohttpTransport(trust_env=False)
    async with running(SLOWLY) as box:
        yield Site(box, transport)
        await transport.aclose()


async def trigger(site: Site, report: str = REPORT) -> Ticket:
    ticket = await site.connector().trigger(site.asset(report))
    assert isinstance(ticket, Ticket)
    return ticket


async def end(site: Site, report: str) -> tuple[list[StillRunning], Outcome]:
    """Trigger the report and look at it, minute by minute, until it has ended."""
    connector, asset = site.connector(), site.asset(report)
    ticket = await connector.trigger(asset)
    assert isinstance(ticket, Ticket)
    seen: list[StillRunning] = []
    for _ in range(50):
        answer = await connector.look(asset, ticket)
        if isinstance(answer, Outcome):
            return seen, answer
        seen.append(answer)
        site.advance(15)
    raise AssertionError(f"no end after {seen}")


async def test_who_am_i(site: Site) -> None:
    identity = await site.connector().check()
    assert (identity.scope, identity.who) == ("acme", "workspace API token of workspace acme")


async def test_wrong_secret_and_wrong_workspace(site: Site) -> None:
    with pytest.raises(Permanent, match=r"401 unauthorized: .*Check token: and secret:"):
        await site.connector(secret="wrong-secret").check()
    with pytest.raises(Permanent, match='workspace "acme", but the connection says "rivals"'):
        await site.connector(workspace="rivals").check()
    with pytest.raises(Permanent, match=r"404 not_found: account not found\. Check workspace:"):
        await site.connector(workspace="rivals").trigger(site.asset())


async def test_a_run_from_its_trigger_to_its_end(site: Site) -> None:
    seen, outcome = await end(site, REPORT)
    assert {one.word for one in seen} == {"enqueued", "pending"}
    assert all(one.known for one in seen)
    assert outcome.state is RefreshState.SUCCEEDED
    (run,) = site.runs()
    assert run["parameters"] == PARAMETERS
    assert outcome.url == f"{site.box.mode.url}/acme/reports/{REPORT}/runs/{run['run']}"
    assert outcome.ended_at is not None
    status = await site.connector().inspect(site.asset())
    assert status.title == "Weekly revenue"
    assert status.problem is None
    assert status.last_refreshed_at == outcome.ended_at


@pytest.mark.parametrize(
    ("report", "state", "word"),
    [
        ("3a7be19c04d2", RefreshState.SUCCEEDED, "completed"),
        ("5b0c6f2e8a13", RefreshState.FAILED, "failed"),
        ("7d2e8b4a0c35", RefreshState.CANCELLED, "cancelled"),
        ("8e3f9c5b1d46", RefreshState.SUCCEEDED, "succeeded"),
    ],
)
async def test_every_kind_of_end(site: Site, report: str, state: RefreshState, word: str) -> None:
    seen, outcome = await end(site, report)
    assert (outcome.state, outcome.word) == (state, word)
    assert all(one.known == (one.word != "warming_up") for one in seen)


async def test_the_reason_of_a_failure_has_no_sql(site: Site) -> None:
    _, outcome = await end(site, "5b0c6f2e8a13")
    assert "Unknown function date_trunk" in outcome.reason
    assert "SqlUnknownFunction" in outcome.reason
    assert SQL_CANARY not in outcome.reason


async def test_an_unheard_of_state_never_ends(site: Site) -> None:
    ticket = await trigger(site, "9f40ad6c2e57")
    site.advance(86_400)
    answer = await site.connector().look(site.asset("9f40ad6c2e57"), ticket)
    assert answer == StillRunning("on_hold", known=False)


@pytest.mark.parametrize(
    ("report", "words"),
    [("b162cf8e4079", "archived"), ("c273d09f518a", "Manual runs are disabled")],
)
async def test_reports_that_may_not_be_run(site: Site, report: str, words: str) -> None:
    assert words in ((await site.connector().inspect(site.asset(report))).problem or "")
    with pytest.raises(Permanent, match=words):
        await site.connector().trigger(site.asset(report))
    assert site.runs(report) == []


async def test_datasets_are_told_from_reports(site: Site) -> None:
    assert "is a dataset" in ((await site.connector().inspect(site.asset("24f66e1701b6"))).problem or "")
    (note,) = (await site.connector().inspect(site.asset("d384e1a0629b"))).notes
    assert "Customers" in note


async def test_a_report_that_is_not_there(site: Site) -> None:
    nowhere = site.asset("000000000000")
    assert "Check report:" in ((await site.connector().inspect(nowhere)).problem or "")
    with pytest.raises(Permanent, match="report not found"):
        await site.connector().trigger(nowhere)
    with pytest.raises(Permanent, match="404"):
        await site.connector().look(site.asset(), Ticket("000000000000"))


async def test_a_token_that_may_only_look(site: Site) -> None:
    looker = site.box.mode.settings.credentials[1]
    with pytest.raises(Permanent, match=r"403 forbidden: you do not have permission.*workspace API token"):
        await site.connector(token=looker.token, secret=looker.secret).trigger(site.asset())


async def test_there_is_no_cancel(site: Site) -> None:
    ticket = await trigger(site)
    before = site.box.mode.log.count()
    with pytest.raises(Unsupported):
        await site.connector().cancel(site.asset(), ticket)
    assert site.box.mode.log.count() == before


# ---------------------------------------------------------------------- faults


@pytest.mark.parametrize("after_effect", [False, True])
@pytest.mark.parametrize(
    "fault",
    [{"kind": "cut"}, {"kind": "status", "status": 503}, {"kind": "status", "status": 504}, {"kind": "html"}],
    ids=["cut", "503", "504", "html"],
)
async def test_a_lost_answer_is_looked_for_and_adopted(site: Site, fault: dict[str, Any], after_effect: bool) -> None:
    connector, asset = site.connector(), site.asset()
    intent = datetime.now(UTC) - timedelta(seconds=5)
    site.fault(method="POST", after_effect=after_effect, times=1, **fault)
    with pytest.raises(InDoubt):
        await connector.trigger(asset)
    assert len(site.runs()) == after_effect, "one POST, and never a second"
    found = await connector.find_recent(asset, intent)
    assert [ticket.id for ticket in found] == [run["run"] for run in site.runs()]
    if found:
        site.advance(1_000)
        answer = await connector.look(asset, found[0])
        assert isinstance(answer, Outcome)
        assert answer.state is RefreshState.SUCCEEDED


async def test_an_answer_cut_in_half_is_in_doubt(site: Site) -> None:
    site.fault("truncate", "POST", times=1)
    with pytest.raises(InDoubt):
        await site.connector().trigger(site.asset())
    assert len(site.runs()) == 1


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"kind": "cut"}, "connection was closed"),
        ({"kind": "truncate"}, "broke off"),
        ({"kind": "html"}, "web page"),
        ({"kind": "status", "status": 502}, "502: a web page"),
        ({"kind": "status", "status": 500}, "500 internal_server_error"),
    ],
    ids=["cut", "truncate", "html", "502", "500"],
)
async def test_a_look_that_meets_trouble_may_be_tried_again(site: Site, fault: dict[str, Any], words: str) -> None:
    ticket = await trigger(site)
    site.fault(method="GET", times=1, **fault)
    with pytest.raises(Transient, match=words):
        await site.connector().look(site.asset(), ticket)
    assert isinstance(await site.connector().look(site.asset(), ticket), StillRunning)


async def test_a_slow_answer_to_a_trigger_is_in_doubt(site: Site) -> None:
    site.fault("latency", "POST", seconds=30, after_effect=True, times=1)
    config = ModeConfig.model_validate(
        {
            "base_url": site.box.mode.url,
            **{key: site.box.mode.describe()[key] for key in ("workspace", "token", "secret")},
        }
    )
    hurried = connect(SPEC, config, Checked(site.transport), timeout=0.2)
    with pytest.raises(InDoubt, match="time was over"):
        await hurried.trigger(site.asset())
    assert len(site.runs()) == 1


async def test_too_fast_names_the_wait(site: Site) -> None:
    site.box.mode.change(SettingsChange(rate_limit=3, rate_window=60.0))
    connector = site.connector()
    calls: list[CallError | None] = []
    for _ in range(5):
        try:
            await connector.check()
            calls.append(None)
        except Transient as error:
            calls.append(error)
    assert [error is None for error in calls] == [True, True, True, False, False]
    last = calls[-1]
    assert isinstance(last, Transient)
    assert (last.status, last.code) == (429, "rate_limited")
    assert last.retry_after is not None
    assert 50 < last.retry_after <= 60
    with pytest.raises(Transient):
        await connector.trigger(site.asset())
    assert site.runs() == []


# ---------------------------------------------------------------------- recent runs


async def test_recent_runs_over_many_pages(site: Site) -> None:
    connector, asset = site.connector(), site.asset()
    since = datetime.now(UTC) - timedelta(seconds=60)
    ours = []
    for _ in range(35):
        ticket = await connector.trigger(asset)
        assert isinstance(ticket, Ticket)
        ours.append(ticket.id)
        await connector.trigger(site.asset(parameters={"user_id": 7}))
    found = await connector.find_recent(asset, since)
    assert [ticket.id for ticket in found] == ours[::-1]
    assert all(ticket.created_at is not None and ticket.created_at >= since for ticket in found)
    site.advance(600)
    assert await connector.find_recent(asset, datetime.now(UTC) + timedelta(seconds=300)) == ()


async def test_somebody_elses_run_is_left_out_once_we_know_who_we_are(site: Site) -> None:
    world = site.box.mode.world
    since = datetime.now(UTC) - timedelta(seconds=60)
    theirs = world.start(world.holders[REPORT], dict(PARAMETERS), "somebody")
    connector, asset = site.connector(), site.asset()
    assert [one.id for one in await connector.find_recent(asset, since)] == [theirs.token]
    ours = await connector.trigger(asset)
    assert isinstance(ours, Ticket)
    assert [one.id for one in await connector.find_recent(asset, since)] == [ours.id]


async def test_a_purged_run_is_said_to_be_gone(site: Site) -> None:
    ticket = await trigger(site)
    site.advance(1_000)
    site.box.mode.world.runs[ticket.id].purge_started = site.box.mode.world.now()
    with pytest.raises(Permanent, match="has purged the results"):
        await site.connector().look(site.asset(), ticket)
