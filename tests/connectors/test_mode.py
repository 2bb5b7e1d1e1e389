"""The Mode connector: the contract with every request held against Mode's document, then its own cases."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downriver.connectors.base import AssetStatus, connect
from downriver.connectors.http import Request
from downriver.connectors.mode import PAGES, SPEC, ModeConfig, same_parameters
from downriver.core.errors import InDoubt, Permanent
from downriver.core.model import Asset, Outcome, StillRunning, Ticket
from downriver.core.states import RefreshState
from downriver.testing import ConnectorContract, Exchange, RecentRun, ScriptedTransport

from .mode_document import check_request

REPORT = "9d2da37fa91e"
RUN = "4ec308153383"
PARAMETERS = {"user_id": 123, "location": "San Francisco"}
CONFIG = {"workspace": "acme", "token": "b0a7c0ffee42", "secret": "s3cr3t/with+signs&=%"}
BASE = f"/api/acme/reports/{REPORT}"
SINCE = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


def stamp(moment: datetime | None) -> str | None:
    return None if moment is None else moment.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def report_run(token: str = RUN, state: str = "enqueued", **changes: Any) -> dict[str, Any]:
    """A report run as facts/bi-core.md §2.3 shows one; `links` are added to its links."""
    path = f"{BASE}/runs/{token}"
    links = {
        "self": {"href": path},
        "account": {"href": "/api/acme"},
        "report": {"href": BASE},
        "query_runs": {"href": f"{path}/query_runs"},
        "executed_by": {"href": "/api/robot"},
        "web_external_url": {"href": f"https://app.mode.com/acme/reports/{REPORT}/runs/{token}"},
        **changes.pop("links", {}),
    }
    ended = state in ("succeeded", "completed", "failed", "cancelled")
    return {
        "token": token,
        "state": state,
        "parameters": PARAMETERS,
        "created_at": "2026-03-01T12:00:03.490Z",
        "updated_at": "2026-03-01T12:00:03.490Z",
        "completed_at": "2026-03-01T12:00:09.001Z" if ended else None,
        "purge_started_at": None,
        "purge_completed_at": None,
        "python_state": "none",
        "form_fields": [],
        "is_latest_report_run": True,
        "is_latest_successful_report_run": False,
        "report_has_failures_since_last_success": False,
        "_links": links,
        **changes,
    }


def report(**changes: Any) -> dict[str, Any]:
    return {
        "token": REPORT,
        "id": 2934237,
        "name": "Weekly revenue",
        "type": "Report",
        "archived": False,
        "manual_run_disabled": False,
        "last_successfully_run_at": "2021-12-10T23:12:53.142Z",
        "schedules_count": 0,
        **changes,
    }


def runs_page(runs: Sequence[dict[str, Any]], next_page: str | None = None) -> dict[str, Any]:
    links = {"self": {"href": f"{BASE}/runs"}}
    if next_page:
        links["next_page"] = {"href": next_page}
    return {"pagination": {"total_count": len(runs)}, "_links": links, "_embedded": {"report_runs": list(runs)}}


def query_run(**changes: Any) -> dict[str, Any]:
    return {"token": "aaaaaaaaaaaa", "query_name": "Revenue by week", "state": "succeeded", **changes}


ASSET = {"report": REPORT, "parameters": PARAMETERS}
# Every word of the document's enum; written out here, so that the connector cannot agree with itself alone.
RUNNING = ("pending", "enqueued", "running_notebook")
ENDED = {
    "succeeded": RefreshState.SUCCEEDED,
    "completed": RefreshState.SUCCEEDED,
    "failed": RefreshState.FAILED,
    "cancelled": RefreshState.CANCELLED,
}


class TestModeContract(ConnectorContract):
    spec = SPEC
    config = CONFIG
    asset = ASSET
    running = RUNNING
    ended = ENDED
    run_id = RUN

    def check_request(self, request: Request) -> None:
        check_request(request)

    def check_script(self) -> list[Exchange]:
        body = {"workspace": "acme", "workspace_token": "234112185554", "_links": {"self": {"href": "/api/acme"}}}
        return [Exchange("GET", "/api/verify", body=body)]

    def inspect_script(self) -> list[Exchange]:
        return [Exchange("GET", BASE, body=report())]

    def trigger_script(self) -> list[Exchange]:
        return [Exchange("POST", f"{BASE}/runs", 202, report_run())]

    def look_script(self, word: str) -> list[Exchange]:
        script = [Exchange("GET", f"{BASE}/runs/{RUN}", body=report_run(state=word))]
        if word == "failed":
            queries = [query_run(state="failed", error_message="no such table", error_code="SqlUnknownTable")]
            script.append(Exchange("GET", f"{BASE}/runs/{RUN}/query_runs", body=embedded(queries)))
        return script

    def recent_script(self, runs: Sequence[RecentRun]) -> list[Exchange]:
        rows = [
            report_run(
                run.id, "succeeded", created_at=stamp(run.created_at), parameters=PARAMETERS if run.ours else {"a": 1}
            )
            for run in runs
        ]
        return [Exchange("GET", f"{BASE}/runs", body=runs_page(rows))]


def embedded(queries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"_links": {}, "_embedded": {"query_runs": list(queries)}}


# ---------------------------------------------------------------------- the connector's own cases


def asset(**parameters: Any) -> Asset:
    return Asset("here", "report", REPORT, parameters or PARAMETERS)


def connected(*script: Exchange, **config: Any) -> tuple[Any, ScriptedTransport]:
    transport = ScriptedTransport(*script, on_request=check_request)
    return connect(SPEC, ModeConfig.model_validate({**CONFIG, **config}), transport), transport


async def test_trigger_posts_exactly_the_documented_body() -> None:
    connector, transport = connected(Exchange("POST", f"{BASE}/runs", 202, report_run()))
    ticket = await connector.trigger(asset())
    (request,) = transport.requests
    assert request.url == f"https://app.mode.com{BASE}/runs"
    assert json.loads(request.body or b"") == {"parameters": {"user_id": 123, "location": "San Francisco"}}
    assert ticket == Ticket(
        id=RUN,
        created_at=datetime(2026, 3, 1, 12, 0, 3, 490_000, tzinfo=UTC),
        url=f"https://app.mode.com/acme/reports/{REPORT}/runs/{RUN}",
        data={"state": "enqueued", "executed_by": "/api/robot"},
    )


@pytest.mark.parametrize("status", [200, 201, 202])
async def test_any_2xx_with_a_run_is_a_run(status: int) -> None:
    connector, _ = connected(Exchange("POST", f"{BASE}/runs", status, report_run()))
    assert (await connector.trigger(asset())).id == RUN


async def test_no_parameters_are_sent_as_an_empty_object() -> None:
    connector, transport = connected(Exchange("POST", f"{BASE}/runs", 202, report_run()))
    await connector.trigger(Asset("here", "report", REPORT))
    assert transport.requests[0].body == b'{"parameters":{}}'


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"archived": True}, "archived"),
        ({"archived": "true"}, "archived"),
        ({"manual_run_disabled": True}, "Manual runs are disabled"),
        ({"type": "DatasetReport"}, "dataset"),
    ],
)
async def test_what_stands_against_a_run_is_said_by_inspect_and_by_a_refused_trigger(
    changes: dict[str, Any], words: str
) -> None:
    connector, transport = connected(
        Exchange("GET", BASE, body=report(**changes)),
        Exchange("POST", f"{BASE}/runs", 403, {"id": "forbidden", "message": "no"}),
        Exchange("GET", BASE, body=report(**changes)),
    )
    status: AssetStatus = await connector.inspect(asset())
    assert words in (status.problem or "")
    with pytest.raises(Permanent, match=words) as caught:
        await connector.trigger(asset())
    assert (caught.value.status, caught.value.code) == (403, "forbidden")
    assert len(transport.writes) == 1


async def test_a_refused_trigger_of_a_good_report_keeps_its_own_words() -> None:
    body = {"id": "forbidden", "message": "you may not"}
    connector, _ = connected(Exchange("POST", f"{BASE}/runs", 403, body), Exchange("GET", BASE, body=report()))
    with pytest.raises(Permanent, match=r"Mode answered 403 forbidden: you may not\. .*workspace API token"):
        await connector.trigger(asset())


async def test_inspect_reads_a_recorded_report(recorded_report: dict[str, Any]) -> None:
    path = f"/api/acryltest/reports/{REPORT}"
    transport = ScriptedTransport(Exchange("GET", path, body=recorded_report))
    config = ModeConfig.model_validate({**CONFIG, "workspace": "acryltest"})
    status = await connect(SPEC, config, transport).inspect(Asset("here", "report", REPORT))
    assert status.title == "Report 1"
    assert status.problem is None
    assert status.last_refreshed_at == datetime(2021, 12, 10, 23, 12, 53, 142_000, tzinfo=UTC)
    (note,) = status.notes
    assert "Dataset 1" in note


async def test_schedules_are_noted() -> None:
    connector, _ = connected(Exchange("GET", BASE, body=report(schedules_count="2")))
    (note,) = (await connector.inspect(asset())).notes
    assert "schedule" in note


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        ("account not found", "workspace:"),
        ("report not found", "report:"),
        ("request path not recognized", "base_url:"),
    ],
)
async def test_a_404_says_which_key_to_change(message: str, advice: str) -> None:
    body = {"id": "not_found", "message": message}
    connector, _ = connected(Exchange("POST", f"{BASE}/runs", 404, body), Exchange("GET", BASE, 404, body))
    with pytest.raises(Permanent, match=advice):
        await connector.trigger(asset())
    assert advice in ((await connector.inspect(asset())).problem or "")


async def test_a_422_with_an_object_for_a_message_is_understood() -> None:
    body = {"id": "bad_request", "message": {"parameters": ["user_id is unknown"]}}
    connector, _ = connected(Exchange("POST", f"{BASE}/runs", 422, body), Exchange("GET", BASE, body=report()))
    with pytest.raises(Permanent, match=r"user_id is unknown.*parameters: of the dashboard"):
        await connector.trigger(asset())


async def test_check_refuses_another_workspaces_token() -> None:
    connector, _ = connected(Exchange("GET", "/api/verify", body={"workspace": "rivals"}))
    with pytest.raises(Permanent, match=r'belongs to Mode workspace "rivals".*says "acme"'):
        await connector.check()


async def test_check_reads_the_recorded_answer_and_the_newer_one() -> None:
    recorded = {"workspace": "dummy_workspace", "workspace_token": "234112185554", "_links": {}}
    newer = {"workspace": "Dummy_Workspace", "api_key_scope": "workspace"}
    script = [Exchange("GET", "/api/verify", body=body) for body in (recorded, newer)]
    connector, _ = connected(*script, workspace="dummy_workspace")
    assert (await connector.check()).who == "API token of workspace dummy_workspace"
    assert (await connector.check()).who == "workspace API token of workspace Dummy_Workspace"


# ---------------------------------------------------------------------- how a run ends


async def look(run: dict[str, Any], *more: Exchange) -> StillRunning | Outcome:
    connector, _ = connected(Exchange("GET", f"{BASE}/runs/{RUN}", body=run), *more)
    answer: StillRunning | Outcome = await connector.look(
        asset(), Ticket(RUN, url="https://app.mode.com/from/ticket")
    )
    return answer


def queries(*rows: dict[str, Any], status: int = 200) -> Exchange:
    return Exchange("GET", f"{BASE}/runs/{RUN}/query_runs", status, embedded(rows))


async def test_a_failed_run_names_the_query_and_its_message_without_sql() -> None:
    sql = "SELECT secret_column FROM salaries WHERE name = 'Ada Lovelace' AND id = 7"
    failed = query_run(
        state="failed",
        query_name="Revenue by week",
        error_code="SqlUnknownFunction",
        error_type="generic",
        error_message=f'ERROR: near "{sql}": no such function\nLINE 1: {sql}\n             ^\nHINT: none',
        raw_source=sql,
        rendered_source=sql,
    )
    answer = await look(report_run(state="failed"), queries(query_run(query_name="Fine"), failed))
    assert isinstance(answer, Outcome)
    assert answer.state is RefreshState.FAILED
    assert answer.reason == (
        'The run failed: query "Revenue by week": ERROR: near [SQL] no such function HINT: none (SqlUnknownFunction).'
    )
    assert answer.ended_at == datetime(2026, 3, 1, 12, 0, 9, 1_000, tzinfo=UTC)


async def test_a_failure_whose_reason_cannot_be_read_says_so() -> None:
    answer = await look(report_run(state="failed"), queries(status=500))
    assert isinstance(answer, Outcome)
    assert answer.state is RefreshState.FAILED
    assert answer.reason.startswith("The run failed. Could not read why the run failed: Mode answered 500")


async def test_a_failure_without_any_reason_says_so() -> None:
    answer = await look(report_run(state="failed"), queries(query_run()))
    assert answer == Outcome(
        RefreshState.FAILED,
        "The run failed; Mode gives no reason.",
        "failed",
        datetime(2026, 3, 1, 12, 0, 9, 1_000, tzinfo=UTC),
        f"https://app.mode.com/acme/reports/{REPORT}/runs/{RUN}",
    )


async def test_a_failed_notebook_is_named() -> None:
    answer = await look(report_run(state="failed", python_state="failed"), queries(query_run()))
    assert isinstance(answer, Outcome)
    assert "notebook failed" in answer.reason


async def test_a_long_message_is_cut_and_keeps_one_line() -> None:
    answer = await look(
        report_run(state="failed"), queries(query_run(state="failed", error_message="wrong\n" * 2_000))
    )
    assert isinstance(answer, Outcome)
    assert len(answer.reason) <= 600
    assert "\n" not in answer.reason


@pytest.mark.parametrize(
    ("link", "shown"),
    [
        (f"https://app.mode.com/acme/reports/{REPORT}", True),
        (f"https://modeanalytics.com/acme/reports/{REPORT}", True),
        ("https://gateway.example.test/run", True),
        ("https://evil.example.test/run", False),
        ("javascript:alert(1)", False),
        ("https://app.mode.com@evil.example.test/", False),
        ("http://[broken", False),
        ("/acme/reports/x", False),
        (17, False),
        (None, False),
    ],
)
async def test_only_a_link_to_the_tool_itself_is_shown(link: object, shown: bool) -> None:
    run = report_run(links={"web_external_url": {"href": link}})
    connector, _ = connected(Exchange("POST", f"{BASE}/runs", 202, run), base_url="https://gateway.example.test/api/")
    assert (await connector.trigger(asset())).url == (link if shown else None)


@pytest.mark.parametrize("moment", [None, 17, "yesterday", "", {}])
async def test_a_time_that_cannot_be_read_is_no_time(moment: object) -> None:
    connector, _ = connected(Exchange("POST", f"{BASE}/runs", 202, report_run(created_at=moment)))
    assert (await connector.trigger(asset())).created_at is None


async def test_times_are_utc_whatever_their_offset() -> None:
    connector, _ = connected(
        Exchange("POST", f"{BASE}/runs", 202, report_run(created_at="2026-03-01T05:00:00-07:00"))
    )
    created = (await connector.trigger(asset())).created_at
    assert created == SINCE
    assert created.tzinfo is UTC


# ---------------------------------------------------------------------- recent runs


def listed(number: int, at: datetime, **changes: Any) -> dict[str, Any]:
    return report_run(f"{number:012x}", "succeeded", created_at=stamp(at), **changes)


async def recent(*pages: dict[str, Any], trigger_first: bool = False) -> tuple[list[str], ScriptedTransport]:
    script = [Exchange("GET", f"{BASE}/runs", body=page) for page in pages]
    if trigger_first:
        script.insert(0, Exchange("POST", f"{BASE}/runs", 202, report_run()))
    connector, transport = connected(*script)
    if trigger_first:
        await connector.trigger(asset())
    return [ticket.id for ticket in await connector.find_recent(asset(), SINCE)], transport


async def test_pages_are_followed_until_a_run_is_too_old() -> None:
    first = [listed(100 - n, SINCE + timedelta(seconds=100 - n)) for n in range(30)]
    second = [listed(70 - n, SINCE + timedelta(seconds=5 - n)) for n in range(10)]
    found, transport = await recent(
        runs_page(first, f"{BASE}/runs?page=2&per_page=30"), runs_page(second, f"{BASE}/runs?page=3&per_page=30")
    )
    assert found == [run["token"] for run in first + second[:6]]
    assert [request.url.partition("?")[2] for request in transport.requests] == [
        "page=1&per_page=30",
        "page=2&per_page=30",
    ]


async def test_a_short_page_is_not_the_last_and_a_foreign_link_is_not_followed() -> None:
    found, transport = await recent(
        runs_page([listed(9, SINCE + timedelta(seconds=9))], "https://evil.example.test/steal?page=2&per_page=30"),
        runs_page([listed(8, SINCE + timedelta(seconds=8))]),
    )
    assert found == [f"{9:012x}", f"{8:012x}"]
    assert {request.url.partition("?")[0] for request in transport.requests} == {f"https://app.mode.com{BASE}/runs"}


async def test_pages_are_counted_where_no_link_says_so() -> None:
    pages = [runs_page([listed(n, SINCE + timedelta(seconds=n))]) for n in (9, 8)]
    for page in pages:
        page["pagination"]["total_pages"] = 2
    found, transport = await recent(*pages)
    assert found == [f"{9:012x}", f"{8:012x}"]
    assert len(transport.requests) == 2


async def test_an_empty_last_page_without_a_list_is_understood() -> None:
    found, _ = await recent({"_links": {"self": {"href": ""}}, "_embedded": {}})
    assert found == []


async def test_scheduled_runs_are_never_ours() -> None:
    link = {"report_schedule": {"href": f"{BASE}/schedules/bbbbbbbbbbbb"}}
    found, _ = await recent(runs_page([listed(1, SINCE, links=link), listed(2, SINCE)]))
    assert found == [f"{2:012x}"]


async def test_other_peoples_runs_are_left_out_once_we_know_our_own_name() -> None:
    rows = [
        listed(3, SINCE, links={"executed_by": {"href": "/api/somebody"}}),
        listed(2, SINCE, links={"executed_by": None}),
        listed(1, SINCE),
    ]
    unknown, _ = await recent(runs_page(rows))
    assert unknown == [f"{3:012x}", f"{2:012x}", f"{1:012x}"]
    known, _ = await recent(runs_page(rows), trigger_first=True)
    assert known == [f"{2:012x}", f"{1:012x}"]


async def test_too_many_runs_to_tell_is_doubt_and_not_no() -> None:
    other = {"parameters": {"x": 1}}
    pages = [
        runs_page([listed(n, SINCE, **other)], f"{BASE}/runs?page={n + 1}&per_page=30") for n in range(1, PAGES + 5)
    ]
    with pytest.raises(InDoubt, match=f"newest {PAGES} pages"):
        await recent(*pages)


async def test_a_list_whose_next_page_is_itself_ends() -> None:
    page = runs_page([listed(1, SINCE, parameters={"x": 1})], f"{BASE}/runs?page=1&per_page=30")
    with pytest.raises(InDoubt):
        await recent(page, page)


@pytest.mark.parametrize(
    ("theirs", "ours", "same"),
    [
        ({"a": "123"}, {"a": 123}, True),
        ({"a": 1.0, "b": "x"}, {"b": "x", "a": 1}, True),
        ({"a": [1, "2"]}, {"a": ["1", 2]}, True),
        (None, {}, True),
        ({"a": True}, {"a": 1}, False),
        ({"a": None}, {}, False),
        ({"a": 1, "b": 2}, {"a": 1}, False),
        ([], {}, False),
        ("", {}, False),
    ],
)
def test_parameters_are_compared_by_value(theirs: Any, ours: dict[str, Any], same: bool) -> None:
    assert same_parameters(theirs, ours) is same


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=8), JSON, max_size=4))
def test_parameters_survive_the_way_there_and_back(parameters: dict[str, Any]) -> None:
    async def round_trip() -> None:
        connector, transport = connected(Exchange("POST", f"{BASE}/runs", 202, report_run()))
        await connector.trigger(Asset("here", "report", REPORT, parameters))
        sent = json.loads(transport.requests[0].body or b"")["parameters"]
        assert sent == parameters
        assert same_parameters(sent, parameters)

    asyncio.run(round_trip())


def test_the_states_are_those_of_the_vendors_document() -> None:
    assert set(RUNNING) | set(ENDED) == set(excerpt()["definitions"]["ReportRun"]["properties"]["state"]["enum"])


def test_the_canned_run_has_every_key_the_document_requires() -> None:
    required = excerpt()["definitions"]["ReportRun"]["required"]
    assert set(required) <= set(report_run())


def excerpt() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(__file__).parents[1] / "specs" / "mode-excerpt.json").read_text())
    return found
