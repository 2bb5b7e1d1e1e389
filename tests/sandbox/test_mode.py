"""Mode's emulator checklist, line by line, over real loopback HTTP."""

from __future__ import annotations

import asyncio
import io
import re
import time

import msgspec
import pytest

from downriver.sandbox import SQL_CANARY, ModeReport, QueryFailure, RunShape, Sandbox
from downriver.sandbox.mode import SettingsChange
from downriver.sandbox.mode_runs import shape_of

from .conftest import Client, basic

REVENUE, NOTEBOOK, FAILING, CANCELLED = "9d2da37fa91e", "3a7be19c04d2", "5b0c6f2e8a13", "7d2e8b4a0c35"
ODD, UNKNOWN, ENDLESS = "8e3f9c5b1d46", "9f40ad6c2e57", "a051be7d3f68"
ARCHIVED, NO_MANUAL = "b162cf8e4079", "c273d09f518a"
DATASET, IMPORTER = "24f66e1701b6", "d384e1a0629b"


async def follow(client: Client, report: str) -> list[str]:
    """Start a run and note every state seen, looking every ten seconds of the stand-in's clock."""
    started = (await client.run(report)).json
    states = [started["state"]]
    for _ in range(20):
        client.advance(10)
        state = (await client.mode("GET", started["_links"]["self"]["href"])).json["state"]
        if state != states[-1]:
            states.append(state)
    return states


@pytest.fixture(autouse=True)
def unlimited(box: Sandbox) -> None:
    box.mode.change(SettingsChange(rate_limit=None))


@pytest.mark.parametrize(
    "auth",
    [
        "",
        basic("b0a7c0ffee42", "wrong"),
        basic("wrong", "sandbox-mode-secret"),
        "Bearer " + basic("b0a7c0ffee42", "sandbox-mode-secret").partition(" ")[2],
        "Basic not-base64!",
        "Basic",
    ],
)
async def test_wrong_credentials_are_401(client: Client, auth: str) -> None:
    got = await client.mode("GET", "/api/verify", auth=auth)
    assert got.status == 401
    assert got.json["id"] == "unauthorized"
    assert isinstance(got.json["message"], str)


async def test_the_scheme_word_may_be_written_in_any_case(client: Client) -> None:
    auth = basic("b0a7c0ffee42", "sandbox-mode-secret").replace("Basic", "basic")
    assert (await client.mode("GET", "/api/verify", auth=auth)).status == 200


async def test_verify_names_the_workspace(client: Client) -> None:
    got = await client.mode("GET", "/api/verify")
    assert (got.status, got.json["workspace"]) == (200, "acme")
    assert got.headers["Content-Type"].startswith("application/hal+json")
    assert got.json["_links"]["self"]["href"] == "/api/acme"


@pytest.mark.parametrize("path", ["/api/elsewhere", f"/api/elsewhere/reports/{REVENUE}", "/api/Acme/nonsense"])
async def test_another_workspace_is_not_found(client: Client, path: str) -> None:
    got = await client.mode("GET", path)
    assert got.status == 404
    assert got.json == {"id": "not_found", "message": "account not found"}


@pytest.mark.parametrize("token", ["000000000000", "2900000"])
async def test_an_unknown_report_or_a_numeric_id_is_not_found(client: Client, token: str) -> None:
    for method, path in (("GET", ""), ("POST", "/runs"), ("GET", "/runs")):
        got = await client.mode(method, f"/api/acme/reports/{token}{path}")
        assert (got.status, got.json["message"]) == (404, "report not found")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", f"/api/acme/reports/{REVENUE}/run"),
        ("DELETE", f"/api/acme/reports/{REVENUE}/runs/{'0' * 12}"),
        ("POST", f"/api/acme/reports/{REVENUE}/runs/{'0' * 12}/cancel"),
        ("PUT", f"/api/acme/reports/{REVENUE}/runs"),
        ("GET", "/api/acme/nonsense"),
        ("GET", f"/api/acme/reports/{REVENUE}/"),
    ],
)
async def test_there_is_no_cancel_and_no_other_route(client: Client, method: str, path: str) -> None:
    got = await client.mode(method, path)
    assert got.status == 404
    assert got.json == {"id": "not_found", "message": "request path not recognized"}


async def test_a_run_goes_from_enqueued_over_pending_to_succeeded(client: Client) -> None:
    assert await follow(client, REVENUE) == ["enqueued", "pending", "succeeded"]


async def test_a_notebook_report_ends_in_completed(client: Client) -> None:
    assert await follow(client, NOTEBOOK) == ["enqueued", "pending", "running_notebook", "completed"]
    (run,) = (await client.mode("GET", f"/api/acme/reports/{NOTEBOOK}/runs")).json["_embedded"]["report_runs"]
    assert run["python_state"] == "succeeded"
    assert run["is_latest_successful_report_run"] is True


@pytest.mark.parametrize(
    ("report", "states"),
    [
        (CANCELLED, ["enqueued", "pending", "cancelled"]),
        (ODD, ["enqueued", "warming_up", "succeeded"]),
        (FAILING, ["enqueued", "pending", "failed"]),
    ],
)
async def test_other_ways_to_go(client: Client, report: str, states: list[str]) -> None:
    assert await follow(client, report) == states


@pytest.mark.parametrize(("report", "state"), [(UNKNOWN, "on_hold"), (ENDLESS, "pending")])
async def test_runs_that_never_end_until_told(client: Client, report: str, state: str) -> None:
    assert await follow(client, report) == ["enqueued", state]
    (seen,) = (await client.control("GET", f"/mode/runs?report={report}")).json
    assert (seen["state"], seen["ended_at"]) == (state, None)
    ended = await client.control("POST", f"/mode/runs/{seen['run']}/end", json={"state": "succeeded"})
    assert ended.json["state"] == "succeeded"
    run = (await client.mode("GET", f"/api/acme/reports/{report}/runs/{seen['run']}")).json
    assert run["state"] == "succeeded"
    assert run["completed_at"] > run["created_at"]
    assert (await client.mode("GET", f"/api/acme/reports/{report}")).json["last_successful_run_token"] == run["token"]


async def test_the_answer_to_a_post_is_202_with_the_run(client: Client) -> None:
    before = time.time()
    got = await client.run(REVENUE, user_id=123, location="San Francisco")
    assert got.status == 202
    run = got.json
    assert re.fullmatch("[0-9a-f]{12}", run["token"])
    assert run["state"] == "enqueued"
    assert run["parameters"] == {"user_id": 123, "location": "San Francisco"}
    assert (run["completed_at"], run["purge_started_at"], run["python_state"]) == (None, None, "none")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", run["created_at"])
    links = {name: link["href"] for name, link in run["_links"].items()}
    assert links["self"] == f"/api/acme/reports/{REVENUE}/runs/{run['token']}"
    assert links["query_runs"] == links["self"] + "/query_runs"
    assert links["executed_by"] == "/api/api_user"
    assert links["web_external_url"].endswith(f"/acme/reports/{REVENUE}/runs/{run['token']}")
    (seen,) = (await client.control("GET", "/mode/runs")).json
    assert before <= seen["created_at"] <= time.time()


async def test_equal_posts_make_two_runs(client: Client) -> None:
    tokens = {(await client.run(REVENUE, a=1)).json["token"] for _ in range(2)}
    assert len(tokens) == 2
    assert len((await client.control("GET", "/mode/runs")).json) == 2


@pytest.mark.parametrize(
    ("body", "status", "slug"),
    [
        (b"", 400, "param_missing"),
        (b"{}", 400, "param_missing"),
        (b'{"location": "x"}', 400, "param_missing"),
        (b'{"parameters": [1]}', 400, "bad_request"),
        (b'{"parameters": {', 400, "bad_request"),
        (b'"text"', 400, "bad_request"),
        (b"\xff\xfe", 400, "bad_request"),
        (b'{"parameters": {"a": "' + b"x" * (1 << 20) + b'"}}', 413, "payload_too_large"),
    ],
)
async def test_bad_bodies_start_nothing(client: Client, body: bytes, status: int, slug: str) -> None:
    url = f"{client.box.mode.url}/api/acme/reports/{REVENUE}/runs"
    headers = {"Authorization": basic("b0a7c0ffee42", "sandbox-mode-secret"), "Content-Type": "application/json"}
    got = await client.call("POST", url, headers, data=io.BytesIO(body))
    assert (got.status, got.json["id"]) == (status, slug)
    assert client.box.mode.seen_runs() == []


async def test_json_that_is_not_declared_as_json_is_not_read(client: Client) -> None:
    url = f"{client.box.mode.url}/api/acme/reports/{REVENUE}/runs"
    headers = {"Authorization": basic("b0a7c0ffee42", "sandbox-mode-secret"), "Content-Type": "text/plain"}
    assert (await client.call("POST", url, headers, data=b'{"parameters": {}}')).json["id"] == "param_missing"


async def test_the_reason_of_a_failure_stands_only_under_query_runs(client: Client) -> None:
    client.box.mode.put_report(
        ModeReport(
            token=FAILING,
            shape=RunShape(final="failed", failure=QueryFailure(error_message="no such column: amuont")),
            queries=("Fine", "Broken"),
        )
    )
    await client.run(FAILING)
    page = await client.mode("GET", f"/api/acme/reports/{FAILING}/runs")
    (run,) = page.json["_embedded"]["report_runs"]
    assert run["state"] == "failed"
    assert run["report_has_failures_since_last_success"] is True
    assert "amuont" not in page.text
    got = await client.mode("GET", run["_links"]["query_runs"]["href"])
    fine, broken = got.json["_embedded"]["query_runs"]
    assert (fine["query_name"], fine["state"], fine["error_message"]) == ("Fine", "succeeded", None)
    assert (broken["query_name"], broken["state"]) == ("Broken", "failed")
    assert (broken["error_code"], broken["error_message"]) == ("SqlUnknownFunction", "no such column: amuont")
    assert SQL_CANARY in broken["raw_source"]
    assert SQL_CANARY in broken["rendered_source"]


async def test_runs_are_listed_newest_first_thirty_a_page_with_next_page(client: Client) -> None:
    made = [(await client.run(REVENUE, n=n)).json["token"] for n in range(65)]
    seen: list[str] = []
    path: str | None = f"/api/acme/reports/{REVENUE}/runs?per_page=500"
    sizes = []
    while path:
        page = (await client.mode("GET", path)).json
        rows = page["_embedded"]["report_runs"]
        sizes.append(len(rows))
        seen += [row["token"] for row in rows]
        assert page["pagination"]["total_count"] == 65
        assert page["pagination"]["total_pages"] == 3
        path = page["_links"].get("next_page", {}).get("href")
    assert sizes == [30, 30, 5]
    assert seen == made[::-1]
    first = (await client.mode("GET", f"/api/acme/reports/{REVENUE}/runs?per_page=2&page=2")).json
    assert [row["token"] for row in first["_embedded"]["report_runs"]] == made[::-1][2:4]
    assert first["_links"]["prev_page"]["href"].endswith("page=1&per_page=2")
    beyond = (await client.mode("GET", f"/api/acme/reports/{REVENUE}/runs?page=9")).json
    assert beyond["_embedded"]["report_runs"] == []


async def test_filter_answers_500_and_state_is_ignored(client: Client) -> None:
    await client.run(REVENUE)
    got = await client.mode("GET", f"/api/acme/reports/{REVENUE}/runs?filter=created_at.gt.2020-01-01T00:00:00Z")
    assert (got.status, got.json["id"]) == (500, "internal_server_error")
    newer = (await client.run(REVENUE)).json["token"]
    page = (await client.mode("GET", f"/api/acme/reports/{REVENUE}/runs?state=failed")).json
    tokens = [row["token"] for row in page["_embedded"]["report_runs"]]
    assert (len(tokens), tokens[0]) == (2, newer)
    page = (await client.mode("GET", f"/api/acme/reports/{REVENUE}/runs?order=asc")).json
    assert [row["token"] for row in page["_embedded"]["report_runs"]] == tokens[::-1]


async def test_the_report_tells_about_its_runs(client: Client) -> None:
    fresh = (await client.mode("GET", f"/api/acme/reports/{REVENUE}")).json
    assert (fresh["token"], fresh["name"], fresh["type"]) == (REVENUE, "Weekly revenue", "Report")
    assert (fresh["archived"], fresh["manual_run_disabled"], fresh["runs_count"]) == (False, False, 0)
    assert (fresh["last_run_at"], fresh["last_successfully_run_at"]) == (None, None)
    first = (await client.run(REVENUE)).json
    client.advance(121)
    second = (await client.run(REVENUE)).json
    seen = (await client.mode("GET", f"/api/acme/reports/{REVENUE}")).json
    assert seen["runs_count"] == 2
    assert seen["last_run_at"] == second["created_at"]
    assert seen["last_successful_run_token"] == first["token"]
    assert first["created_at"] < seen["last_successfully_run_at"] <= second["created_at"]


async def test_an_older_run_that_ends_later_is_not_the_latest_success(client: Client) -> None:
    client.box.mode.next_runs(REVENUE, RunShape(phases=((1.5, "pending"),)))
    client.box.mode.next_runs(REVENUE, "instant")
    old, new = [(await client.run(REVENUE)).json["token"] for _ in range(2)]
    assert (await client.mode("GET", f"/api/acme/reports/{REVENUE}")).json["last_successful_run_token"] == new
    client.advance(151)
    states = {run["run"]: run["state"] for run in client.box.mode.seen_runs()}
    assert states == {old: "succeeded", new: "succeeded"}
    assert (await client.mode("GET", f"/api/acme/reports/{REVENUE}")).json["last_successful_run_token"] == new


@pytest.mark.parametrize("report", [ARCHIVED, NO_MANUAL])
async def test_reports_that_refuse_runs(client: Client, report: str) -> None:
    seen = (await client.mode("GET", f"/api/acme/reports/{report}")).json
    assert [seen["archived"], seen["manual_run_disabled"]] == [report == ARCHIVED, report == NO_MANUAL]
    got = await client.run(report)
    assert (got.status, got.json["id"]) == (403, "forbidden")
    changed = await client.control("PUT", f"/mode/reports/{report}", json={"archived": True, "refuses_runs": False})
    assert changed.status == 200
    assert (await client.run(report)).status == 202


async def test_a_token_that_may_look_but_not_run(client: Client) -> None:
    auth = basic("100c0ffee042", "sandbox-look-only")
    assert (await client.mode("GET", f"/api/acme/reports/{REVENUE}", auth=auth)).status == 200
    got = await client.mode("POST", f"/api/acme/reports/{REVENUE}/runs", auth=auth, json={"parameters": {}})
    assert (got.status, got.json["id"]) == (403, "forbidden")


async def test_datasets_have_runs_of_their_own(client: Client) -> None:
    got = await client.mode("POST", f"/api/acme/datasets/{DATASET}/runs")
    assert (got.status, got.json["state"]) == (202, "enqueued")
    assert got.json["is_latest_dataset_run"] is True
    client.advance(121)
    run = (await client.mode("GET", got.json["_links"]["self"]["href"])).json
    assert run["state"] == "succeeded"
    assert run["is_latest_successful_dataset_run"] is True
    page = (await client.mode("GET", f"/api/acme/datasets/{DATASET}/runs")).json
    assert [row["token"] for row in page["_embedded"]["dataset_runs"]] == [run["token"]]
    assert (await client.mode("GET", run["_links"]["query_runs"]["href"])).status == 200
    report = (await client.mode("GET", f"/api/acme/reports/{IMPORTER}")).json
    assert [one["token"] for one in report["imported_datasets"]] == [DATASET]
    assert (await client.mode("GET", f"/api/acme/datasets/{DATASET}")).json["type"] == "DatasetReport"
    assert (await client.mode("POST", f"/api/acme/datasets/{REVENUE}/runs")).status == 404


async def test_refreshing_imported_datasets_shares_the_path_with_run_report(client: Client) -> None:
    path = f"/api/acme/reports/{IMPORTER}/runs"
    got = await client.mode("POST", path, json={"report": {"dataset_tokens": [{"token": DATASET}]}})
    assert got.status == 202
    (seen,) = client.box.mode.seen_runs()
    assert (seen["report"], tuple(seen["refreshed_datasets"])) == (IMPORTER, (DATASET,))
    for wrong in ([{"token": REVENUE}], ["text"], [{}]):
        assert (await client.mode("POST", path, json={"report": {"dataset_tokens": wrong}})).status == 404


async def test_collections_list_the_reports(client: Client) -> None:
    spaces = (await client.mode("GET", "/api/acme/spaces?filter=all")).json["_embedded"]["spaces"]
    page = (await client.mode("GET", spaces[0]["_links"]["reports"]["href"])).json
    tokens = [report["token"] for report in page["_embedded"]["reports"]]
    assert REVENUE in tokens
    assert DATASET not in tokens
    assert (await client.mode("GET", "/api/acme/spaces/000000000000/reports")).status == 404


async def test_a_purged_run_has_no_results(client: Client) -> None:
    run = (await client.run(REVENUE)).json
    await client.control("POST", f"/mode/runs/{run['token']}/purge")
    got = await client.mode("GET", run["_links"]["self"]["href"])
    assert (got.status, got.json["message"]) == (404, "run results not found")
    page = (await client.mode("GET", f"/api/acme/reports/{REVENUE}/runs")).json
    assert page["_embedded"]["report_runs"][0]["purge_started_at"] is not None


async def test_forty_requests_then_429_with_retry_after(client: Client) -> None:
    client.box.mode.change(SettingsChange(rate_limit=40, rate_window=1.2))
    answers = [await client.mode("GET", "/api/verify") for _ in range(41)]
    assert [one.status for one in answers] == [200] * 40 + [429]
    assert answers[-1].json["id"] == "rate_limited"
    assert answers[-1].headers["Retry-After"] in ("1", "2")
    assert {one.headers["X-RateLimit-Limit"] for one in answers} == {"40"}
    other = await client.mode("GET", "/api/verify", auth=basic("100c0ffee042", "sandbox-look-only"))
    assert other.status == 200
    await asyncio.sleep(1.25)
    assert (await client.mode("GET", "/api/verify")).status == 200


async def test_the_limit_is_on_by_default() -> None:
    from downriver.sandbox import ModeSettings, SandboxSettings

    assert (ModeSettings().rate_limit, ModeSettings().rate_window) == (40, 10.0)
    instant = SandboxSettings().instant().mode
    assert (instant.rate_limit, instant.time_scale, instant.auto_reports) == (None, 0.0, True)


async def test_instant_mode_makes_any_report_and_ends_runs_at_once(client: Client) -> None:
    client.box.mode.change(SettingsChange(time_scale=0.0, auto_reports=True))
    started = (await client.run("abcdefabcdef")).json
    assert started["state"] == "enqueued"
    assert (await client.mode("GET", started["_links"]["self"]["href"])).json["state"] == "succeeded"
    assert (await client.run("not-a-token")).status == 404


async def test_one_shots_are_used_up(client: Client) -> None:
    client.box.mode.change(SettingsChange(time_scale=0.0))
    queued = await client.control("POST", f"/mode/reports/{REVENUE}/next", json={"shape": "failing", "times": 2})
    assert queued.json == {"queued": 2}
    custom = {"shape": {"phases": [[0.0, "enqueued"]], "final": "dreaming"}}
    await client.control("POST", f"/mode/reports/{REVENUE}/next", json=custom)
    for _ in range(4):
        await client.run(REVENUE)
    assert [run["state"] for run in client.box.mode.seen_runs()] == ["failed", "failed", "dreaming", "succeeded"]


async def test_the_clock_can_be_wrong(client: Client) -> None:
    client.box.mode.change(SettingsChange(clock_skew=86_400.0))
    await client.run(REVENUE)
    (seen,) = client.box.mode.seen_runs()
    assert seen["created_at"] - time.time() == pytest.approx(86_400, abs=5)


async def test_the_web_link_leads_to_a_page(client: Client) -> None:
    run = (await client.run(REVENUE)).json
    page = await client.call("GET", run["_links"]["web_external_url"]["href"])
    assert page.status == 200
    assert page.headers["Content-Type"].startswith("text/html")
    assert run["token"] in page.text
    assert "Weekly revenue" in page.text
    assert (await client.call("GET", client.box.mode.url + "/acme/reports/000000000000")).status == 404


def test_shapes() -> None:
    shape = RunShape(phases=((1.0, "a"), (2.0, "b")), final="c")
    assert [shape.state(at) for at in (0.0, 0.99, 1.0, 2.99, 3.0, 1e9)] == ["a", "a", "b", "b", "c", "c"]
    assert (shape.seconds, shape.first, shape.scaled(0).seconds) == (3.0, "a", 0.0)
    assert RunShape(phases=(), final="x").first == "x"
    with pytest.raises(ValueError, match="no run shape 'nope'; known: instant"):
        shape_of("nope")
    with pytest.raises(msgspec.ValidationError, match="no run shape"):
        msgspec.convert({"token": REVENUE, "shape": "nope"}, ModeReport)
