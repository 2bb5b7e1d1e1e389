"""The JSON API over the wire."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

import downriver
from downriver.core.model import Asset, Refresh, Ticket
from downriver.core.states import RefreshState
from downriver.store import refreshes

RUN_URL = "https://bi.example/runs/5"
AT = datetime(2026, 9, 1, 12, 0, tzinfo=UTC)


def wanted(number, dashboard="weekly_revenue", **changes):
    values = {
        "id": f"rf_{number:04}",
        "connection": "mode",
        "asset": Asset(
            "mode", "report", f"token{number}", {"user_id": 123}, "Weekly revenue", "https://bi.example/r"
        ),
        "state": RefreshState.QUEUED,
        "created_at": AT + timedelta(seconds=number),
        "wanted_at": AT,
        "due_at": AT,
        "source": "analytics",
        "run_id": "70437497968840",
        "plan_id": "pl_1",
        "dashboards": (dashboard,),
    }
    return Refresh(**{**values, **changes})


async def stored(service, *items):
    await service.store.write(lambda conn: refreshes.insert(conn, items, note="asked for by run 70437497968840"))


async def pages(service, path, name):
    """Every page of a list, following `next`."""
    found, before = [], None
    while True:
        answer = await service.call("GET", path + (f"&before={before}" if before else ""))
        assert answer.status == 200
        page = answer.json()
        found.append(page[name])
        before = page["next"]
        if before is None:
            return found


async def test_events_newest_first_and_page_by_page(service, kit):
    for number in range(7):
        assert (await service.post(kit.event(f"wev_{number}"))).status == 200
    found = await pages(service, "/api/v1/events?limit=3", "events")
    assert [[row["event_id"][-1] for row in page] for page in found] == [["6", "5", "4"], ["3", "2", "1"], ["0"]]
    first = found[0][0]
    assert first["seq"] == 7
    assert (first["kind"], first["type"], first["state"]) == ("run_finished", "job.run.completed", "new")
    assert (first["run_id"], first["job_name"], first["run_status"]) == (
        "155144666",
        "Snowflake Project Job",
        "success",
    )
    assert datetime.fromisoformat(first["received_at"]) == kit.now
    assert datetime.fromisoformat(first["occurred_at"]) == datetime(2023, 5, 29, 7, 52, 18, 66606, tzinfo=UTC)
    assert "body" not in first
    assert "example.com" not in repr(found), "who started the run is not shown"


async def test_a_page_that_ends_exactly_is_the_last(service, kit):
    for number in range(3):
        await service.post(kit.event(f"wev_{number}"))
    assert [len(page) for page in await pages(service, "/api/v1/events?limit=3", "events")] == [3]
    assert (await service.call("GET", "/api/v1/events?before=1")).json() == {"events": [], "next": None}


async def test_what_arrives_meanwhile_shifts_nothing(service, kit):
    for number in range(4):
        await service.post(kit.event(f"wev_{number}"))
    first = (await service.call("GET", "/api/v1/events?limit=2")).json()
    await service.post(kit.event("wev_new"))
    second = (await service.call("GET", f"/api/v1/events?limit=2&before={first['next']}")).json()
    assert [row["event_id"] for row in first["events"] + second["events"]] == ["wev_3", "wev_2", "wev_1", "wev_0"]


async def test_rejected_deliveries(service, kit):
    for number in range(3):
        await service.post(kit.event(f"wev_{number}"), key="forged")
    await service.post(b"{}")
    found = await pages(service, "/api/v1/rejected?limit=2", "rejected")
    assert [[row["reason"] for row in page] for page in found] == [
        ["event_id_missing", "signature_wrong"],
        ["signature_wrong", "signature_wrong"],
    ]
    row = found[0][0]
    assert (row["source"], row["status"], row["size"], row["remote"]) == ("analytics", 400, 2, "127.0.0.1")
    assert row["detail"].endswith(".")


async def test_refreshes_with_filters(service):
    await stored(service, *(wanted(number) for number in range(4)), wanted(4, "other"))
    found = await pages(service, "/api/v1/refreshes?limit=2", "refreshes")
    assert [[row["id"] for row in page] for page in found] == [
        ["rf_0004", "rf_0003"],
        ["rf_0002", "rf_0001"],
        ["rf_0000"],
    ]
    one = await pages(service, "/api/v1/refreshes?dashboard=other", "refreshes")
    assert [row["id"] for row in one[0]] == ["rf_0004"]
    assert await pages(service, "/api/v1/refreshes?state=running&state=failed", "refreshes") == [[]]
    assert [
        len(page) for page in await pages(service, "/api/v1/refreshes?state=queued&state=failed", "refreshes")
    ] == [5]
    row = found[0][1]
    assert row["asset"]["parameters"] == {"user_id": 123}
    assert row["asset"]["key"].startswith("report:token3?")
    assert (row["run_id"], row["dashboards"], row["state"]) == ("70437497968840", ["weekly_revenue"], "queued")
    assert (row["ticket"], row["ended_at"]) == (None, None)


async def test_one_refresh_with_its_history(service):
    await stored(service, wanted(1))

    def work(conn):
        item = wanted(1)
        for note, state, changes in (
            ("asking Mode", RefreshState.TRIGGERING, {"intent_at": AT}),
            ("Mode made run 5", RefreshState.RUNNING, {"ticket": Ticket("5", AT, RUN_URL, {"x": 1})}),
            ("done", RefreshState.SUCCEEDED, {"ended_at": AT, "reason": "All queries ran.", "url": RUN_URL}),
        ):  # fmt: skip
            after = replace(item, state=state, **changes)
            assert refreshes.move(conn, [refreshes.Move(item.state, item.epoch, after, note, AT)]) == [True]
            item = after

    await service.store.write(work)
    answer = await service.call("GET", "/api/v1/refreshes/rf_0001")
    assert answer.status == 200
    found = answer.json()
    assert (found["state"], found["reason"], found["url"]) == (
        "succeeded",
        "All queries ran.",
        RUN_URL,
    )
    assert found["ticket"] == {"id": "5", "created_at": "2026-09-01T12:00:00Z", "url": RUN_URL}
    assert [(step["from_state"], step["to_state"]) for step in found["history"]] == [
        (None, "queued"), ("queued", "triggering"), ("triggering", "running"), ("running", "succeeded"),
    ]  # fmt: skip
    assert found["history"][1]["note"] == "asking Mode"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/api/v1/refreshes/rf_none", 404, "not_found"),
        ("GET", "/api/v1/nothing", 404, "not_found"),
        ("GET", "/api/v1/events/", 404, "not_found"),
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/docs", 404, "not_found"),
        ("POST", "/api/v1/events", 405, "method_not_allowed"),
        ("GET", "/api/v1/events?limit=0", 422, "invalid"),
        ("GET", "/api/v1/events?limit=501", 422, "invalid"),
        ("GET", "/api/v1/events?limit=x", 422, "invalid"),
        ("GET", "/api/v1/events?before=0", 422, "invalid"),
        ("GET", "/api/v1/events?before=9223372036854775808", 422, "invalid"),
        ("GET", "/api/v1/refreshes?state=nonsense", 422, "invalid"),
        ("GET", "/api/v1/refreshes?dashboard=%00", 422, "invalid"),
        ("GET", "/api/v1/refreshes/%00", 422, "invalid"),
    ],
)
async def test_every_error_is_a_problem_document(service, method, path, status, code):
    answer = await service.call(method, path)
    assert answer.status == status
    assert answer.headers["content-type"] == "application/problem+json"
    found = answer.json()
    assert (found["type"], found["status"], found["code"]) == ("about:blank", status, code)
    assert found["title"]
    assert found["detail"].endswith(".")


async def test_the_parameter_that_is_wrong_is_named(service):
    answer = await service.call("GET", "/api/v1/events?limit=900&before=x")
    assert "`limit`" in answer.json()["detail"]
    assert "`before`" in answer.json()["detail"]


async def test_a_store_that_cannot_be_read_is_503(service):
    with service.store._writer.raw_connection() as raw:
        raw.execute("ALTER TABLE event RENAME TO gone")
    answer = await service.call("GET", "/api/v1/events")
    assert (answer.status, answer.json()["code"]) == (503, "store")
    assert answer.headers["retry-after"]


async def test_openapi_describes_every_route_and_field(service):
    spec = (await service.call("GET", "/api/v1/openapi.json")).json()
    assert spec["info"]["version"] == downriver.__version__
    assert set(spec["paths"]) == {
        "/api/v1/events", "/api/v1/rejected", "/api/v1/refreshes", "/api/v1/refreshes/{refresh_id}",
    }  # fmt: skip
    assert spec["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    for path in spec["paths"].values():
        operation = path["get"]
        assert operation["summary"]
        assert operation["security"] == [{"HTTPBearer": []}]
        assert {"200", "401", "503"} <= set(operation["responses"])
    for name in ("EventOut", "RefreshOut", "RejectionOut", "Problem", "StepOut"):
        assert spec["components"]["schemas"][name]["description"]
