"""Admin API v2 (runs, artifacts, jobs) and the subscription calls of API v3."""

from __future__ import annotations

import asyncio
import json
import re
import time
from pathlib import Path

import aiohttp
import msgspec
import pytest

from downriver.sandbox import Job, JobRun, Step
from downriver.sandbox.dbt_account import DbtSettingsChange
from downriver.sandbox.dbt_runs import FIRST_RUN_ID, Run

from .conftest import Client, Receiver

RUNS = "/api/v2/accounts/{a}/runs/"
HOOKS = "/api/v3/accounts/{a}/webhooks"


def finish(client: Client, **asked: object) -> Run:
    return client.box.dbt.account.finish_job(msgspec.convert(asked, JobRun))


# ------------------------------------------------------------------ access


@pytest.mark.parametrize("word", ["Token", "Bearer"])
async def test_both_words_are_equal(client: Client, word: str) -> None:
    assert (await client.dbt("GET", RUNS, auth=f"{word} dbtc_sandbox_token")).status == 200


@pytest.mark.parametrize("auth", ["", "Token wrong", "dbtc_sandbox_token", "Basic dbtc_sandbox_token", "Token"])
async def test_wrong_tokens_are_401_in_an_envelope(client: Client, auth: str) -> None:
    got = await client.dbt("GET", RUNS, auth=auth)
    assert got.status == 401
    status = got.json["status"]
    assert (status["code"], status["is_success"], status["user_message"]) == (401, False, "Invalid token.")
    assert "developer_message" in status


async def test_permissions(client: Client) -> None:
    viewer, metadata = "Token dbtc_sandbox_job_viewer", "Token dbtc_sandbox_metadata_only"
    assert (await client.dbt("GET", RUNS, auth=viewer)).status == 200
    got = await client.dbt("GET", f"{HOOKS}/subscriptions", auth=viewer)
    assert (got.status, got.json["status"]["code"], got.json["status"]["is_success"]) == (403, 403, False)
    assert (await client.dbt("GET", RUNS, auth=metadata)).status == 403


@pytest.mark.parametrize(
    "path",
    [
        "/api/v2/accounts/1/runs/",
        "/api/v2/accounts/{a}/runs",
        "/api/v2/accounts/{a}/runs/999/",
        "/api/v2/accounts/{a}/runs/abc/",
        "/api/v2/accounts/{a}/nonsense/",
        "/api/v3/accounts/{a}/webhooks/subscriptions/",
        "/api/v3/accounts/{a}/webhooks/subscription/wsu_none",
        "/api/v4/accounts/",
        "/",
    ],
)
async def test_what_is_not_there_is_404(client: Client, path: str) -> None:
    got = await client.dbt("GET", path)
    assert (got.status, got.json["status"]["code"]) == (404, 404)


async def test_runs_cannot_be_written(client: Client) -> None:
    assert (await client.dbt("POST", RUNS, json={})).status == 404


async def test_past_the_limit_everything_is_429_for_the_cool_down(client: Client) -> None:
    client.box.dbt.account.change(DbtSettingsChange(rate_limit=3, cool_down=0.5))
    answers = [await client.dbt("GET", RUNS) for _ in range(5)]
    assert [one.status for one in answers] == [200, 200, 200, 429, 429]
    assert answers[-1].json["status"]["code"] == 429
    assert "Retry-After" not in answers[-1].headers
    client.box.dbt.account.change(DbtSettingsChange(rate_limit=100))
    await asyncio.sleep(0.55)
    assert (await client.dbt("GET", RUNS)).status == 200


# ------------------------------------------------------------------ runs


async def test_a_run_as_the_api_shows_it(client: Client) -> None:
    run = finish(client, job=278164, steps=[{"command": "dbt build"}, {"command": "dbt docs generate"}])
    shown = (await client.dbt("GET", f"{RUNS}{run.id}/")).json["data"]
    assert shown["id"] >= FIRST_RUN_ID > 2**32
    assert (shown["job_definition_id"], shown["job_id"]) == (278164, 278164)
    assert (shown["status"], shown["status_humanized"], shown["is_success"]) == (10, "Success", True)
    assert (shown["is_complete"], shown["is_error"], shown["is_cancelled"]) == (True, False, False)
    assert (shown["artifacts_saved"], shown["has_docs_generated"]) == (True, True)
    assert shown["retrying_run_id"] is None
    for name in ("created_at", "started_at", "finished_at"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{6})?\+00:00", shown[name])
    assert (shown["trigger"], shown["job"], shown["environment"], shown["run_steps"]) == (None, None, None, [])


@pytest.mark.parametrize(
    "asked", ["trigger,job,run_steps", '["trigger","job","run_steps"]', "['trigger', 'job', 'run_steps']"]
)
async def test_related_objects_in_both_spellings(client: Client, asked: str) -> None:
    run = finish(client, steps=[{"command": "dbt build"}], cause_category="ci", github_pull_request_id=7)
    params = {"include_related": asked}
    shown = (await client.dbt("GET", f"{RUNS}{run.id}/", params=params)).json["data"]
    assert shown["trigger"]["cause_category"] == "ci"
    assert shown["trigger"]["github_pull_request_id"] == 7
    assert shown["job"]["execute_steps"] == ["dbt build"]
    assert shown["environment"] is None
    assert [(step["index"], step["name"]) for step in shown["run_steps"]] == [
        (1, "Clone git repository"),
        (2, "Create profile from connection Warehouse"),
        (3, "Invoke dbt with `dbt deps`"),
        (4, "Invoke dbt with `dbt build`"),
    ]
    assert shown["run_steps"][3]["run_step_command"]["dbt_command"] == "dbt build"
    client.box.dbt.account.change(DbtSettingsChange(step_commands=False))
    again = (await client.dbt("GET", f"{RUNS}{run.id}/", params=params)).json["data"]
    assert [step["run_step_command"] for step in again["run_steps"]] == [None] * 4


async def test_a_jobs_own_commands_when_no_steps_are_given(client: Client) -> None:
    run = finish(client, job=70_403_103_922_345, status="error")
    shown = (await client.dbt("GET", f"{RUNS}{run.id}/?include_related=run_steps")).json["data"]
    assert [step["name"] for step in shown["run_steps"][3:]] == [
        "Source freshness",
        "Invoke dbt with `dbt build`",
        "Generate docs",
    ]
    assert (shown["status"], shown["status_humanized"]) == (20, "Error")
    assert shown["has_sources_generated"] is True


async def test_listing_filters_order_and_pages(client: Client) -> None:
    now = time.time()
    # Ids are given at creation: the long run has the lowest id and finishes last.
    long = finish(client, job=278164, finished_at=now, seconds=3600)
    ok = finish(client, job=278165, finished_at=now - 1800, seconds=60)
    bad = finish(client, job=278164, finished_at=now - 1200, status="error")
    gone = finish(client, job=278166, finished_at=now - 600, status="cancelled")

    async def listed(**params: str) -> list[int]:
        return [run["id"] for run in (await client.dbt("GET", RUNS, params=params)).json["data"]]

    assert await listed() == [long.id, ok.id, bad.id, gone.id]
    assert await listed(order_by="-id") == [gone.id, bad.id, ok.id, long.id]
    assert await listed(order_by="-finished_at") == [long.id, gone.id, bad.id, ok.id]
    assert await listed(order_by="created_at") == [long.id, ok.id, bad.id, gone.id]
    assert await listed(job_definition_id="278164") == [long.id, bad.id]
    assert await listed(status="20") == [bad.id]
    for spelled in ("[10,30]", "10,30", "[10, 30]"):
        assert await listed(status__in=spelled) == [long.id, ok.id, gone.id]
    assert await listed(id__gt=str(ok.id)) == [bad.id, gone.id]
    assert await listed(environment_id="187999") == [gone.id]
    assert await listed(pk__in=f"[{ok.id},{bad.id}]") == [ok.id, bad.id]
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now - 1300))
    span = f'["{at}","{time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(now + 60))}"]'
    assert await listed(finished_at__range=span) == [long.id, bad.id, gone.id]
    repeated = await client.dbt("GET", RUNS + "?status__in=10&status__in=20")
    assert [run["id"] for run in repeated.json["data"]] == [long.id, ok.id, bad.id]
    page = (await client.dbt("GET", RUNS, params={"limit": "3", "offset": "2", "order_by": "id"})).json
    assert [run["id"] for run in page["data"]] == [bad.id, gone.id]
    assert page["extra"]["pagination"] == {"count": 2, "total_count": 4}
    assert page["extra"]["order_by"] == "id"
    assert page["status"]["is_success"] is True


@pytest.mark.parametrize("params", [{"order_by": "status"}, {"limit": "x"}, {"finished_at__range": "yesterday"}])
async def test_bad_list_parameters_are_400(client: Client, params: dict[str, str]) -> None:
    finish(client)
    got = await client.dbt("GET", RUNS, params=params)
    assert (got.status, got.json["status"]["is_success"]) == (400, False)


async def test_at_most_a_hundred_rows(client: Client) -> None:
    for _ in range(105):
        finish(client)
    page = (await client.dbt("GET", RUNS, params={"limit": "500"})).json
    assert page["extra"]["pagination"] == {"count": 100, "total_count": 105}


async def test_a_run_under_way(client: Client) -> None:
    run = client.box.dbt.account.begin_run(JobRun())
    shown = (await client.dbt("GET", f"{RUNS}{run.id}/")).json["data"]
    assert (shown["status"], shown["in_progress"], shown["finished_at"]) == (3, True, None)
    assert (await client.dbt("GET", RUNS, params={"finished_at__range": "2020-01-01,2099-01-01"})).json["data"] == []


async def test_a_retry_is_a_new_run_that_names_the_old_one(client: Client) -> None:
    first = finish(client, status="error")
    second = finish(client, retrying_run_id=first.id)
    shown = (await client.dbt("GET", f"{RUNS}{second.id}/")).json["data"]
    assert (shown["retrying_run_id"], shown["id"] > first.id) == (first.id, True)


async def test_jobs(client: Client) -> None:
    jobs = (await client.dbt("GET", "/api/v2/accounts/{a}/jobs/")).json["data"]
    assert [job["id"] for job in jobs][:2] == [278164, 278165]
    one = (await client.dbt("GET", "/api/v2/accounts/{a}/jobs/278166/")).json["data"]
    assert (one["name"], one["job_type"]) == ("CI", "ci")
    client.box.dbt.account.put_job(Job(id=7, name="Made up"))
    assert (await client.dbt("GET", "/api/v2/accounts/{a}/jobs/7/")).json["data"]["name"] == "Made up"
    account = (await client.dbt("GET", "/api/v2/accounts/{a}/")).json["data"]
    assert account["id"] == client.box.dbt.account.settings.account_id


# ------------------------------------------------------------------ artifacts

BUILD = {"args": {"which": "build"}, "results": [{"unique_id": "model.p.a", "status": "success"}]}
DOCS = {"args": {"which": "generate"}, "results": [{"unique_id": "model.p.a", "status": "success"}]}


def with_docs(client: Client, **more: object) -> Run:
    steps = (
        Step(command="dbt build", artifacts={"run_results.json": BUILD, "manifest.json": b"{}"}),
        Step(command="dbt docs generate", artifacts={"run_results.json": DOCS, "catalog.json": "{}"}),
    )
    return client.box.dbt.account.finish_job(msgspec.structs.replace(msgspec.convert(more, JobRun), steps=steps))


async def test_the_default_is_the_last_step(client: Client) -> None:
    run = with_docs(client)
    base = f"{RUNS}{run.id}/artifacts/"
    assert (await client.dbt("GET", f"{base}run_results.json")).json == DOCS
    assert (await client.dbt("GET", f"{base}run_results.json?step=4")).json == BUILD
    assert (await client.dbt("GET", f"{base}run_results.json?step=5")).json == DOCS
    for missing in ("manifest.json", "run_results.json?step=3", "run_results.json?step=6", "run_results.json?step=0"):
        assert (await client.dbt("GET", base + missing)).status == 404
    assert (await client.dbt("GET", base)).json["data"] == ["catalog.json", "run_results.json"]
    assert (await client.dbt("GET", f"{base}?step=4")).json["data"] == ["manifest.json", "run_results.json"]
    assert (await client.dbt("GET", f"{base}?step=1")).status == 404


async def test_late_artifacts_are_404_until_they_are_there(client: Client) -> None:
    run = with_docs(client, artifacts_after=3600)
    path = f"{RUNS}{run.id}/artifacts/run_results.json"
    for late in (path, f"{path}?step=4", f"{RUNS}{run.id}/artifacts/"):
        assert (await client.dbt("GET", late)).status == 404
    assert (await client.dbt("GET", f"{RUNS}{run.id}/")).json["data"]["artifacts_saved"] is False
    run.artifacts_ready = time.time()
    assert (await client.dbt("GET", path)).status == 200
    assert (await client.dbt("GET", f"{RUNS}{run.id}/")).json["data"]["artifacts_saved"] is True


async def test_a_failed_run_has_artifacts_too(client: Client) -> None:
    run = with_docs(client, status="error")
    assert (await client.dbt("GET", f"{RUNS}{run.id}/artifacts/run_results.json?step=4")).json == BUILD


async def test_a_directory_is_taken_over_as_it_was(client: Client, tmp_path: Path) -> None:
    (tmp_path / "compiled").mkdir()
    (tmp_path / "run_results.json").write_text('{"first": 1}')
    (tmp_path / "compiled" / "a.sql").write_text("select 1")
    run = finish(client, steps=[{"command": "dbt build", "directory": str(tmp_path)}])
    (tmp_path / "run_results.json").write_text('{"second": 2}')
    base = f"{RUNS}{run.id}/artifacts/"
    assert (await client.dbt("GET", f"{base}run_results.json")).json == {"first": 1}
    assert (await client.dbt("GET", f"{base}compiled/a.sql")).text == "select 1"
    secret = tmp_path.parent / "secret.txt"
    secret.write_text("secret")
    assert (await client.dbt("GET", f"{base}..%2Fsecret.txt")).status == 404
    with pytest.raises(ValueError, match="no directory"):
        finish(client, steps=[{"command": "dbt build", "directory": str(tmp_path / "none")}])


async def test_a_big_file_is_served_from_its_place(client: Client, tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.json"
    manifest.write_bytes(b'{"x": "' + b"y" * 3_000_000 + b'"}')
    steps = (Step(command="dbt build", artifacts={"manifest.json": manifest}),)
    run = client.box.dbt.account.finish_job(JobRun(steps=steps))
    path = f"{RUNS}{run.id}/artifacts/manifest.json"
    got = await client.dbt("GET", path)
    assert got.body == manifest.read_bytes()
    assert got.headers["Content-Type"] == "application/json"
    client.box.dbt.account.change(DbtSettingsChange(gzip_artifacts=True))
    packed = await client.dbt("GET", path)
    assert packed.headers["Content-Encoding"] == "gzip"
    assert int(packed.headers["Content-Length"]) < 100_000
    assert packed.body == manifest.read_bytes()
    await client.control("POST", "/dbt/faults", json={"kind": "truncate", "path": "*/manifest.json"})
    client.box.dbt.account.change(DbtSettingsChange(gzip_artifacts=False))
    with pytest.raises(aiohttp.ClientPayloadError):
        await client.dbt("GET", path)


async def test_artifacts_of_a_job_are_those_of_its_latest_run_that_has_them(client: Client) -> None:
    with_docs(client, job=278164)
    finish(client, job=278164)
    got = await client.dbt("GET", "/api/v2/accounts/{a}/jobs/278164/artifacts/run_results.json")
    assert got.json == DOCS
    assert (await client.dbt("GET", "/api/v2/accounts/{a}/jobs/278165/artifacts/run_results.json")).status == 404


async def test_an_artifact_put_later_by_another_process(client: Client) -> None:
    run = finish(client, steps=[{"command": "dbt build"}])
    put = await client.control("PUT", f"/dbt/runs/{run.id}/steps/4/artifacts/sources.json", data=b'{"results": []}')
    assert put.status == 201
    assert (await client.dbt("GET", f"{RUNS}{run.id}/artifacts/sources.json")).text == '{"results": []}'
    assert (await client.control("PUT", f"/dbt/runs/{run.id}/steps/9/artifacts/x", data=b"")).status == 404


# ------------------------------------------------------------------ subscriptions

WANTED = {
    "event_types": ["job.run.completed"],
    "name": "Downriver",
    "client_url": "https://example.com/hooks/analytics",
    "active": True,
    "description": "d",
    "job_ids": [123, 321],
}


async def test_the_secret_is_shown_once(client: Client) -> None:
    made = await client.dbt("POST", f"{HOOKS}/subscriptions", json=WANTED)
    assert (made.status, made.json["status"]["code"]) == (201, 201)
    data = made.json["data"]
    secret = data["hmac_secret"]
    assert re.fullmatch("wsu_[0-9A-Za-z]{27}", data["id"])
    assert data["account_identifier"].startswith("act_")
    assert (data["job_ids"], data["event_types"]) == (["123", "321"], ["job.run.completed"])
    assert (data["http_status_code"], data["active"], data["account_id"]) == (
        "0",
        True,
        str(client.box.dbt.account.settings.account_id),
    )
    assert re.fullmatch(r"\d{16}", data["created_at"])
    assert "dispatched_at" not in data
    one = await client.dbt("GET", f"{HOOKS}/subscription/{data['id']}")
    page = await client.dbt("GET", f"{HOOKS}/subscriptions")
    put = await client.dbt("PUT", f"{HOOKS}/subscription/{data['id']}", json={**WANTED, "name": "Other"})
    for later in (one, page, put):
        assert later.status == 200
        assert secret not in later.text
        assert "hmac_secret" not in later.text
    assert put.json["data"]["name"] == "Other"
    assert page.json["extra"]["pagination"]["total_count"] == 1
    assert page.json["extra"]["filters"] == {"offset": 0, "limit": 10}


async def test_job_ids_may_come_back_as_numbers(client: Client) -> None:
    client.box.dbt.account.change(DbtSettingsChange(job_ids_as="numbers"))
    made = await client.dbt("POST", f"{HOOKS}/subscriptions", json={**WANTED, "job_ids": ["123"]})
    assert made.json["data"]["job_ids"] == [123]


async def test_pages_of_subscriptions_are_ten(client: Client) -> None:
    for _ in range(12):
        await client.dbt("POST", f"{HOOKS}/subscriptions", json=WANTED)
    assert len((await client.dbt("GET", f"{HOOKS}/subscriptions")).json["data"]) == 10
    rest = await client.dbt("GET", f"{HOOKS}/subscriptions", params={"limit": "10", "offset": "10"})
    assert len(rest.json["data"]) == 2


@pytest.mark.parametrize("missing", ["active", "client_url", "event_types", "name"])
async def test_required_keys(client: Client, missing: str) -> None:
    body = {key: value for key, value in WANTED.items() if key != missing}
    got = await client.dbt("POST", f"{HOOKS}/subscriptions", json=body)
    assert got.status == 400
    assert missing in got.json["status"]["developer_message"]


@pytest.mark.parametrize(
    "wrong",
    [{"event_types": []}, {"event_types": ["job.run.cancelled"]}, {"client_url": "ftp://x"}, {"active": "yes"}],
)
async def test_wrong_values(client: Client, wrong: dict[str, object]) -> None:
    assert (await client.dbt("POST", f"{HOOKS}/subscriptions", json={**WANTED, **wrong})).status == 400
    assert client.box.dbt.account.webhooks.subscriptions == {}


async def test_a_deleted_subscription_hears_nothing_more(client: Client, receiver: Receiver) -> None:
    made = await client.dbt(
        "POST", f"{HOOKS}/subscriptions", json={**WANTED, "job_ids": [], "client_url": receiver.url}
    )
    hook = made.json["data"]["id"]
    finish(client)
    await client.box.dbt.account.settled()
    assert json.loads(receiver.got[0][1])["webhookId"] == hook
    shown = (await client.dbt("GET", f"{HOOKS}/subscription/{hook}")).json["data"]
    assert shown["http_status_code"] == "200"
    assert re.fullmatch(r"\d{16}", shown["dispatched_at"])
    gone = await client.dbt("DELETE", f"{HOOKS}/subscription/{hook}")
    assert gone.json == {"data": {"id": hook}, "status": {"code": 200, "is_success": True}}
    finish(client)
    await client.box.dbt.account.settled()
    assert len(receiver.got) == 1
    assert (await client.dbt("DELETE", f"{HOOKS}/subscription/{hook}")).status == 404


async def test_deprecated_event_paths_are_not_served(client: Client) -> None:
    for path in ("event/wev_x", "event/wev_x/receipts", "receipt/x"):
        assert (await client.dbt("GET", f"{HOOKS}/{path}")).status == 404
