"""Every kind of fault, over real connections, and what of it the stand-in notes."""

from __future__ import annotations

import asyncio
import time

import aiohttp
import msgspec
import pytest
from starlette.requests import Request

from downriver.sandbox import Fault
from downriver.sandbox.faults import FaultBoard
from downriver.sandbox.frontdoor import FrontDoor

from .conftest import Client

REPORT = "9d2da37fa91e"
RUNS = f"/api/acme/reports/{REPORT}/runs"


def runs_made(client: Client) -> int:
    return len(client.box.mode.seen_runs())


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_status_comes_in_the_vendors_words_and_nothing_happens(client: Client, status: int) -> None:
    client.box.mode.faults.arm(Fault(kind="status", status=status))
    got = await client.run(REPORT)
    assert got.status == status
    assert got.json["id"] in ("rate_limited", "internal_server_error", "service_unavailable")
    assert "Retry-After" not in got.headers
    assert runs_made(client) == 0


@pytest.mark.parametrize("status", [502, 504])
async def test_gateway_statuses_are_html(client: Client, status: int) -> None:
    client.box.dbt.faults.arm(Fault(kind="status", status=status))
    got = await client.dbt("GET", "/api/v2/accounts/{a}/runs/")
    assert got.status == status
    assert got.headers["Content-Type"].startswith("text/html")


@pytest.mark.parametrize("value", [7, "Wed, 21 Oct 2026 07:28:00 GMT"])
async def test_retry_after_is_sent_as_given(client: Client, value: str | int) -> None:
    client.box.mode.faults.arm(Fault(kind="status", status=429, retry_after=value))
    assert (await client.run(REPORT)).headers["Retry-After"] == str(value)


async def test_a_status_after_the_effect_loses_only_the_answer(client: Client) -> None:
    client.box.mode.faults.arm(Fault(kind="status", status=504, after_effect=True, times=1))
    assert (await client.run(REPORT)).status == 504
    assert runs_made(client) == 1
    assert (await client.run(REPORT)).status == 202


@pytest.mark.parametrize(("after_effect", "made"), [(False, 0), (True, 1)])
async def test_a_cut_before_and_after_the_effect(client: Client, after_effect: bool, made: int) -> None:
    client.box.mode.faults.arm(Fault(kind="cut", method="POST", after_effect=after_effect))
    with pytest.raises((aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)):
        await client.run(REPORT)
    assert runs_made(client) == made
    assert (await client.mode("GET", RUNS)).status == 200
    assert client.box.mode.log.count("POST", status=0) == 1


async def test_a_truncated_answer_breaks_off_in_the_middle(client: Client) -> None:
    client.box.mode.faults.arm(Fault(kind="truncate", times=1))
    with pytest.raises(aiohttp.ClientPayloadError):
        await client.run(REPORT)
    assert runs_made(client) == 1


@pytest.mark.parametrize(("after_effect", "made"), [(False, 0), (True, 1)])
async def test_html_with_200(client: Client, after_effect: bool, made: int) -> None:
    client.box.mode.faults.arm(Fault(kind="html", after_effect=after_effect))
    got = await client.run(REPORT)
    assert (got.status, got.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert got.text.startswith("<!doctype html>")
    assert runs_made(client) == made


async def test_a_body_of_ones_own(client: Client) -> None:
    client.box.mode.faults.arm(Fault(kind="status", status=422, body='{"message": {"name": ["is taken"]}}'))
    got = await client.run(REPORT)
    assert (got.status, got.json) == (422, {"message": {"name": ["is taken"]}})


@pytest.mark.parametrize("after_effect", [False, True])
async def test_latency_and_when_the_effect_is(client: Client, after_effect: bool) -> None:
    client.box.mode.faults.arm(Fault(kind="latency", seconds=0.1, after_effect=after_effect))
    begun = time.monotonic()
    calling = asyncio.create_task(client.run(REPORT))
    await asyncio.sleep(0.05)
    assert runs_made(client) == int(after_effect)
    assert (await calling).status == 202
    assert time.monotonic() - begun >= 0.1
    assert runs_made(client) == 1


async def test_a_caller_that_gives_up_does_not_stop_the_effect(client: Client) -> None:
    client.box.mode.faults.arm(Fault(kind="latency", seconds=0.1))
    with pytest.raises(TimeoutError):
        await client.mode("POST", RUNS, json={"parameters": {}}, timeout=aiohttp.ClientTimeout(total=0.03))
    await asyncio.sleep(0.12)
    assert runs_made(client) == 1


async def test_clearing_lets_held_requests_go(client: Client) -> None:
    client.box.mode.faults.arm(Fault(kind="latency", seconds=600))
    calling = asyncio.create_task(client.run(REPORT))
    await asyncio.sleep(0.02)
    assert not calling.done()
    client.box.mode.faults.clear()
    assert (await asyncio.wait_for(calling, 1)).status == 202


async def test_latency_goes_together_with_another_fault(client: Client) -> None:
    client.box.mode.faults.arm(Fault(kind="latency", seconds=0.05))
    client.box.mode.faults.arm(Fault(kind="status", status=503))
    begun = time.monotonic()
    assert (await client.run(REPORT)).status == 503
    assert time.monotonic() - begun >= 0.05
    assert client.box.mode.log.recent[-1].faults == ("latency", "status")


async def test_faults_hit_their_route_and_their_stand_in_only(client: Client) -> None:
    client.box.mode.faults.arm(Fault(kind="status", method="POST", path="*/runs"))
    assert (await client.run(REPORT)).status == 503
    assert (await client.mode("GET", RUNS)).status == 200
    assert (await client.mode("GET", "/api/verify")).status == 200
    assert (await client.dbt("GET", "/api/v2/accounts/{a}/runs/")).status == 200
    assert (await client.control("GET", "")).status == 200


async def test_a_fault_is_hit_before_credentials_are_looked_at(client: Client) -> None:
    client.box.mode.faults.arm(Fault(kind="status", status=503))
    assert (await client.mode("GET", "/api/verify", auth="")).status == 503


def test_times_and_skip_count_requests() -> None:
    board = FaultBoard()
    board.arm(Fault(kind="status", skip=2, times=3))
    hits = [bool(board.take("GET", "/x")) for _ in range(8)]
    assert hits == [False, False, True, True, True, False, False, False]
    assert not board.any
    assert board.fired == {"status": 3}


def test_the_first_armed_fault_wins_and_the_other_waits() -> None:
    board = FaultBoard()
    board.arm(Fault(kind="cut", times=1))
    second = board.arm(Fault(kind="status"))
    assert [fault.kind for fault in board.take("GET", "/")] == ["cut"]
    assert [fault.kind for fault in board.take("GET", "/")] == ["status"]
    assert board.disarm(second)
    assert not board.disarm(second)
    assert board.take("GET", "/") == ()


def test_the_dice_are_seeded() -> None:
    def throw(seed: int) -> list[bool]:
        board = FaultBoard(seed)
        board.arm(Fault(kind="cut", chance=0.3))
        first = [bool(board.take("GET", "/")) for _ in range(300)]
        board.reset()
        board.arm(Fault(kind="cut", chance=0.3))
        assert [bool(board.take("GET", "/")) for _ in range(300)] == first
        return first

    assert 50 < sum(throw(1)) < 130
    assert throw(1) == throw(1) != throw(2)


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"kind": "latency"}, "seconds > 0"),
        ({"kind": "explode"}, "Invalid enum value 'explode'"),
        ({"kind": "cut", "tims": 1}, "unknown field `tims`"),
        ({"kind": "cut", "times": 0}, ">= 1"),
        ({"kind": "status", "status": 99}, ">= 200"),
        ({"kind": "cut", "chance": 1.5}, "<= 1"),
    ],
)
def test_impossible_faults_are_refused(wrong: dict[str, object], complaint: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=complaint):
        msgspec.convert(wrong, Fault)


async def test_cutting_needs_a_server_that_hands_over_the_connection(client: Client) -> None:
    client.box.mode.faults.arm(Fault(kind="cut"))

    async def control(request: Request) -> None:
        raise AssertionError(request.url)

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: object) -> None:
        raise AssertionError(message)

    scope = {"type": "http", "method": "GET", "path": "/api/verify", "query_string": b"", "headers": []}
    with pytest.raises(RuntimeError, match=r"running\(\) or serve\(\)"):
        await FrontDoor(client.box.mode, control)(scope, receive, send)  # type: ignore[arg-type]
