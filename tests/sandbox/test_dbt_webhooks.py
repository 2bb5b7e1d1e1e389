"""Outgoing webhooks: exact bytes, signature, retries, time-out, deactivation, lost and doubled on purpose."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
import time

import msgspec
import pytest

from downriver.sandbox import DeliveryPolicy, JobRun, NewSubscription
from downriver.sandbox.dbt_account import DbtSettingsChange
from downriver.sandbox.dbt_webhooks import Event, EventData, ksuid, precise, sample, sign

from .conftest import Client, Receiver

# A body captured in May 2023 (621 bytes) and its known answer (facts on dbt, section 1.2).
CAPTURED = (
    b'{"accountId":66847,"eventId":"wev_2QSUzWMSv40ow7s8n8TfVPVnYua","timestamp":"2023-05-29T07:52:18.06660617Z",'
    b'"eventType":"job.run.completed","webhookId":"wsu_2QGRb6TLFTOlBXsWjL4kb0RHTWc","webhookName":"Flask app",'
    b'"data":{"jobId":"278164","jobName":"Snowflake Project Job","runId":"155144666","environmentId":"187998",'
    b'"environmentName":"Deployment 1.4","dbtVersion":"1.4.6","projectName":"Snowflake 2","projectId":"241251",'
    b'"runStatus":"Success","runStatusCode":10,"runStatusMessage":"None","runReason":"Kicked off from UI by '
    b'analyst@example.com","runStartedAt":"2023-05-29T07:51:56Z","runFinishedAt":"2023-05-29T07:52:15Z"}}'
)
ANSWER = "79417f2e7f64320e154012b08018d53b72bd2def05f92bee3558c39a9d1ab37b"
SECRET = "test-secret"


def test_the_captured_body_comes_out_byte_for_byte_and_signs_to_the_known_answer() -> None:
    event = Event(
        account_id=66847,
        event_id="wev_2QSUzWMSv40ow7s8n8TfVPVnYua",
        timestamp=precise(1_685_346_738_066_606_170),
        event_type="job.run.completed",
        webhook_id="wsu_2QGRb6TLFTOlBXsWjL4kb0RHTWc",
        webhook_name="Flask app",
        data=EventData(
            job_id="278164",
            job_name="Snowflake Project Job",
            run_id="155144666",
            environment_id="187998",
            environment_name="Deployment 1.4",
            dbt_version="1.4.6",
            project_name="Snowflake 2",
            project_id="241251",
            run_status="Success",
            run_status_code=10,
            run_reason="Kicked off from UI by analyst@example.com",
            run_started_at="2023-05-29T07:51:56Z",
            run_finished_at="2023-05-29T07:52:15Z",
        ),
    )
    body = event.encoded()
    assert body == CAPTURED
    assert len(body) == 621
    assert sign("test-secret", body) == ANSWER


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (1_685_346_738_066_606_170, "2023-05-29T07:52:18.06660617Z"),
        (1_685_346_738_742_843_678, "2023-05-29T07:52:18.742843678Z"),
        (1_685_346_738_500_000_000, "2023-05-29T07:52:18.5Z"),
        (1_685_346_738_000_000_001, "2023-05-29T07:52:18.000000001Z"),
        (1_685_346_738_000_000_000, "2023-05-29T07:52:18Z"),
    ],
)
def test_fractions_have_up_to_nine_digits_without_trailing_zeros(nanoseconds: int, text: str) -> None:
    assert precise(nanoseconds) == text


def test_ids_are_ksuids_that_sort_by_time() -> None:
    ids = [ksuid(at) for at in (1_675_000_000, 1_685_346_738, 1_795_000_000)]
    assert ids == sorted(ids)
    assert all(re.fullmatch("[0-9A-Za-z]{27}", one) for one in ids)
    # The captured event id was made in the second of its timestamp.
    assert ksuid(1_685_346_738)[:4] == "2QSU"


def subscribe(client: Client, receiver: Receiver, **more: object) -> str:
    wanted = msgspec.convert(
        {"client_url": receiver.url, "secret": SECRET, "name": "Flask app", **more}, NewSubscription
    )
    return client.box.dbt.account.subscribe(wanted).id


async def heard(receiver: Receiver, number: int) -> None:
    """Wait until that many webhooks have come in."""
    async with asyncio.timeout(5):
        while len(receiver.got) < number:
            await asyncio.sleep(0.005)


async def finish(client: Client, **asked: object) -> int:
    run = client.box.dbt.account.finish_job(msgspec.convert(asked, JobRun))
    await client.box.dbt.account.settled()
    return run.id


def bodies(receiver: Receiver) -> list[dict[str, object]]:
    return [json.loads(body) for _, body in receiver.got]


async def test_a_finished_job_sends_a_signed_webhook_of_the_captured_shape(
    client: Client, receiver: Receiver
) -> None:
    hook = subscribe(client, receiver, event_types=["job.run.completed"])
    run = await finish(client, job=278164)
    ((headers, body),) = receiver.got
    expected = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    assert headers["Authorization"] == expected
    assert re.fullmatch("[0-9a-f]{64}", headers["Authorization"])
    assert headers["Content-Type"] == "application/json"
    got, model = json.loads(body), json.loads(CAPTURED)
    assert list(got) == list(model)
    assert list(got["data"]) == list(model["data"])
    for mine, theirs in ((got, model), (got["data"], model["data"])):
        assert {key: type(value) for key, value in mine.items()} == {k: type(v) for k, v in theirs.items()}
    assert b": " not in body.replace(b"from UI", b"")
    assert b", " not in body
    assert got["accountId"] == client.box.dbt.account.settings.account_id > 2**32
    assert int(got["data"]["runId"]) == run > 2**32
    assert (got["webhookId"], got["data"]["jobId"]) == (hook, "278164")
    assert re.fullmatch("wev_[0-9A-Za-z]{27}", got["eventId"])
    assert got["data"]["runStatusMessage"] == "None"


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (
            "success",
            [("job.run.started", "Running", 3), ("job.run.completed", "Success", 10)],
        ),
        (
            "error",
            [
                ("job.run.started", "Running", 3),
                ("job.run.errored", "Errored", 20),
                ("job.run.completed", "Errored", 20),
            ],
        ),
        ("cancelled", [("job.run.started", "Running", 3)]),
    ],
)
async def test_which_events_a_run_sends(
    client: Client, receiver: Receiver, status: str, expected: list[tuple[str, str, int]]
) -> None:
    subscribe(client, receiver)
    await finish(client, status=status, artifacts_after=0.05)
    data = [(one["eventType"], one["data"]["runStatus"], one["data"]["runStatusCode"]) for one in bodies(receiver)]
    assert sorted(data) == sorted(expected)
    times = {one["eventType"]: {key for key in one["data"] if key.endswith("At")} for one in bodies(receiver)}
    assert times["job.run.started"] == {"runStartedAt"}
    if status == "success":
        assert times["job.run.completed"] == {"runStartedAt", "runFinishedAt"}
    if status == "error":
        assert "runErroredAt" in times["job.run.errored"]


async def test_errored_comes_at_once_and_completed_after_the_artifacts(client: Client, receiver: Receiver) -> None:
    subscribe(client, receiver, event_types=["job.run.errored", "job.run.completed"])
    account = client.box.dbt.account
    run = account.finish_job(JobRun(status="error", artifacts_after=0.3))
    await heard(receiver, 1)
    assert [one["eventType"] for one in bodies(receiver)] == ["job.run.errored"]
    await account.settled()
    assert [one["eventType"] for one in bodies(receiver)] == ["job.run.errored", "job.run.completed"]
    assert run.artifacts_ready is not None
    assert run.artifacts_ready <= time.time()


async def test_a_run_in_two_moves(client: Client, receiver: Receiver) -> None:
    subscribe(client, receiver)
    account = client.box.dbt.account
    run = account.begin_run(JobRun())
    await account.settled()
    assert [one["eventType"] for one in bodies(receiver)] == ["job.run.started"]
    account.end_run(run, "success")
    await account.settled()
    assert [one["eventType"] for one in bodies(receiver)] == ["job.run.started", "job.run.completed"]


async def test_only_the_subscribed_jobs_and_only_active_hooks(client: Client, receiver: Receiver) -> None:
    subscribe(client, receiver, job_ids=[278165], event_types=["job.run.completed"])
    subscribe(client, receiver, active=False, event_types=["job.run.completed"])
    await finish(client, job=278164)
    assert receiver.got == []
    await finish(client, job=278165)
    assert len(receiver.got) == 1


async def test_every_subscription_gets_its_own_event_id(client: Client, receiver: Receiver) -> None:
    for _ in range(2):
        subscribe(client, receiver, event_types=["job.run.completed"])
    await finish(client)
    assert len({one["eventId"] for one in bodies(receiver)}) == 2


async def test_five_retries_with_the_same_bytes_then_given_up(client: Client, receiver: Receiver) -> None:
    hook = subscribe(client, receiver, event_types=["job.run.completed"])
    receiver.answers = [500, 404, 301, 503, 400, 429]
    await finish(client)
    assert len(receiver.got) == 6
    assert len({body for _, body in receiver.got}) == 1
    (delivery,) = (await client.control("GET", "/dbt/deliveries")).json
    assert [attempt["status"] for attempt in delivery["attempts"]] == [500, 404, 301, 503, 400, 429]
    assert delivery["state"] == "failed"
    assert client.box.dbt.account.webhooks.subscriptions[hook].failures_in_a_row == 1


@pytest.mark.parametrize("status", [200, 201, 204, 299])
async def test_any_2xx_ends_the_retries(client: Client, receiver: Receiver, status: int) -> None:
    subscribe(client, receiver, event_types=["job.run.completed"])
    receiver.answers = [503, status]
    await finish(client)
    (delivery,) = client.box.dbt.account.webhooks.deliveries
    assert delivery.state == "delivered"
    assert [attempt.status for attempt in delivery.attempts] == [503, status]


async def test_an_answer_after_the_time_limit_is_a_failure_and_is_sent_again(
    client: Client, receiver: Receiver
) -> None:
    policy = DeliveryPolicy(timeout=0.25, first_delay=0.0)
    client.box.dbt.account.change(DbtSettingsChange(policy=policy))
    subscribe(client, receiver, event_types=["job.run.completed"])
    receiver.answers = [0.6]
    await finish(client)
    (delivery,) = client.box.dbt.account.webhooks.deliveries
    assert [attempt.status for attempt in delivery.attempts] == [0, 200]
    assert delivery.attempts[0].error == "no answer within 0.25 s"
    assert delivery.attempts[0].seconds > 0.24
    first, second = receiver.got
    assert first[1] == second[1]


async def test_a_dead_address_is_retried_too(client: Client) -> None:
    account = client.box.dbt.account
    account.subscribe(NewSubscription(client_url="http://127.0.0.1:9/hook", event_types=("job.run.completed",)))
    await finish(client)
    (delivery,) = account.webhooks.deliveries
    assert (delivery.state, len(delivery.attempts)) == ("failed", 6)
    assert "ClientConnectorError" in delivery.attempts[0].error


def test_the_documented_policy_is_the_default() -> None:
    policy = DeliveryPolicy()
    assert (policy.timeout, policy.retries, policy.deactivate_after) == (10.0, 5, 1_000)
    assert policy.deactivate_after_days == 7.0
    assert [policy.delay(retry) for retry in range(1, 6)] == [2, 4, 8, 16, 32]


async def test_a_retry_with_a_new_event_id_when_told_so(client: Client, receiver: Receiver) -> None:
    policy = DeliveryPolicy(first_delay=0.0, same_event_id=False)
    client.box.dbt.account.change(DbtSettingsChange(policy=policy))
    subscribe(client, receiver, event_types=["job.run.completed"])
    receiver.answers = [500]
    await finish(client)
    first, second = bodies(receiver)
    assert first.pop("eventId") != second.pop("eventId")
    assert first == second
    for headers, body in receiver.got:
        assert headers["Authorization"] == sign(SECRET, body)


@pytest.mark.parametrize("change", [{"deactivate_after": 3}, {"deactivate_after_days": 0.0}])
async def test_deactivation(client: Client, receiver: Receiver, change: dict[str, object]) -> None:
    policy = msgspec.convert({"retries": 0, **change}, DeliveryPolicy)
    client.box.dbt.account.change(DbtSettingsChange(policy=policy))
    hook = subscribe(client, receiver, event_types=["job.run.completed"])
    needed = 3 if "deactivate_after" in change else 1
    receiver.answers = [500] * needed
    for _ in range(needed):
        assert client.box.dbt.account.webhooks.subscriptions[hook].active
        await finish(client)
    path = f"/api/v3/accounts/{{a}}/webhooks/subscription/{hook}"
    shown = (await client.dbt("GET", path)).json["data"]
    assert (shown["active"], shown["http_status_code"]) == (False, "500")
    assert shown["deactivate_reason"]
    await finish(client)
    assert len(receiver.got) == needed
    # A new address wakes it silently, even when the call says `active: false`.
    change_url = {
        "name": "n",
        "event_types": ["job.run.completed"],
        "client_url": receiver.url + "?x",
        "active": False,
    }
    woken = (await client.dbt("PUT", path, json=change_url)).json["data"]
    assert woken["active"] is True
    assert "deactivate_reason" not in woken


async def test_a_success_ends_the_row_of_failures(client: Client, receiver: Receiver) -> None:
    client.box.dbt.account.change(DbtSettingsChange(policy=DeliveryPolicy(retries=0, deactivate_after=2)))
    hook = subscribe(client, receiver, event_types=["job.run.completed"])
    receiver.answers = [500, 200, 500]
    for _ in range(3):
        await finish(client)
    one = client.box.dbt.account.webhooks.subscriptions[hook]
    assert (one.active, one.failures_in_a_row) == (True, 1)


async def test_lost_on_purpose(client: Client, receiver: Receiver) -> None:
    hook = subscribe(client, receiver, event_types=["job.run.completed"])
    run = await finish(client, webhooks="drop")
    assert receiver.got == []
    (delivery,) = (await client.control("GET", f"/dbt/deliveries?run={run}")).json
    assert (delivery["state"], delivery["attempts"]) == ("dropped", [])
    # The run itself is there, and the platform's own log knows nothing of the event.
    assert (await client.dbt("GET", f"/api/v2/accounts/{{a}}/runs/{run}/")).status == 200
    events = await client.dbt("GET", f"/api/v3/accounts/{{a}}/webhooks/subscription/{hook}/events")
    assert events.json["data"] == []


async def test_doubled_on_purpose(client: Client, receiver: Receiver) -> None:
    subscribe(client, receiver, event_types=["job.run.completed"])
    await finish(client, copies=3)
    assert len(receiver.got) == 3
    assert len({body for _, body in receiver.got}) == 1
    event_id = bodies(receiver)[0]["eventId"]
    again = await client.control("POST", f"/dbt/deliveries/{event_id}/again")
    assert again.status == 201
    await client.control("POST", "/dbt/settled")
    assert receiver.got[3] == receiver.got[0]


async def test_events_and_receipts_of_a_subscription(client: Client, receiver: Receiver) -> None:
    hook = subscribe(client, receiver, event_types=["job.run.completed"])
    receiver.answers = [503]
    await finish(client)
    base = f"/api/v3/accounts/{{a}}/webhooks/subscription/{hook}"
    page = (await client.dbt("GET", f"{base}/events")).json
    (event,) = page["data"]
    assert page["extra"]["pagination"]["total_count"] == 1
    assert (event["trigger_event_type"], event["http_status_code"]) == ("job.run.completed", "200")
    assert event["payload"].encode() == receiver.got[0][1]
    assert event["job_id"] == "278164"
    receipts = (await client.dbt("GET", f"{base}/event/{event['id']}/receipt")).json["data"]
    assert [one["http_status_code"] for one in receipts] == ["503", "200"]
    assert receipts[0]["request_body"] == event["payload"]
    assert receipts[0]["response_body"] == "noted"
    assert int(receipts[0]["dispatched_at"]) == pytest.approx(time.time() * 1e6, abs=5e6)


@pytest.mark.parametrize("event_type", ["job.run.started", "job.run.completed", "job.run.errored"])
async def test_the_test_event_is_the_documented_sample_and_signed(
    client: Client, receiver: Receiver, event_type: str
) -> None:
    hook = subscribe(client, receiver, event_types=[event_type])
    got = await client.dbt("GET", f"/api/v3/accounts/{{a}}/webhooks/subscription/{hook}/test")
    assert got.json["data"] == {"verification_error": None, "verification_status_code": "200"}
    ((headers, body),) = receiver.got
    assert headers["Authorization"] == sign(SECRET, body)
    sent = json.loads(body)
    assert sent["eventType"] == event_type
    ids = (sent["accountId"], sent["data"]["jobId"], sent["data"]["runId"], sent["data"]["projectId"])
    assert ids == (1, "123", "12345", "167194")


async def test_the_test_call_reports_a_bad_answer_once(client: Client, receiver: Receiver) -> None:
    hook = subscribe(client, receiver)
    receiver.answers = [401]
    path = f"/api/v3/accounts/{{a}}/webhooks/subscription/{hook}/test"
    assert (await client.dbt("GET", path)).json["data"]["verification_status_code"] == "401"
    assert len(receiver.got) == 1
    client.box.dbt.account.change(DbtSettingsChange(test_answer="openapi"))
    assert list((await client.dbt("GET", path)).json["data"]) == ["event_id"]


def test_the_started_sample_is_the_documentations_byte_for_byte() -> None:
    documented = (
        b'{"accountId":1,"webhookId":"wsu_12345abcde","eventId":"wev_2L6Z3l8uPedXKPq9D2nWbPIip7Z","timestamp":'
        b'"2023-01-31T19:28:15.742843678Z","eventType":"job.run.started","webhookName":"test","data":{"jobId":"123",'
        b'"jobName":"Daily Job (dbt build)","runId":"12345","environmentId":"1234","environmentName":"Production",'
        b'"dbtVersion":"1.0.0","projectName":"Snowflake Github Demo","projectId":"167194","runStatus":"Running",'
        b'"runStatusCode":3,"runStatusMessage":"None","runReason":"Kicked off from the UI by test@test.com",'
        b'"runStartedAt":"2023-01-31T19:28:07Z"}}'
    )
    assert sample("job.run.started") == documented


async def test_forgetting_breaks_off_deliveries_under_way(client: Client, receiver: Receiver) -> None:
    client.box.dbt.account.change(DbtSettingsChange(policy=DeliveryPolicy(first_delay=60)))
    subscribe(client, receiver, event_types=["job.run.completed"])
    receiver.answers = [500]
    client.box.dbt.account.finish_job(JobRun())
    client.box.dbt.account.finish_job(JobRun(completed_after=60))
    await heard(receiver, 1)
    client.box.reset()
    await asyncio.wait_for(client.box.dbt.account.settled(), 1)
    assert client.box.dbt.account.runs == {}
    assert len(receiver.got) == 1
