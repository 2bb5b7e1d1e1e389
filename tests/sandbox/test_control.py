"""The control API, as another process uses it, and the sandbox as a process of its own."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from pathlib import Path

import aiohttp
import msgspec
import pytest

from downriver.sandbox import Sandbox, running
from downriver.sandbox.frontdoor import Seen

from .conftest import Client, Receiver, basic

REPORT = "9d2da37fa91e"


async def test_the_overview_names_every_stand_in(client: Client) -> None:
    got = (await client.control("GET", "")).json
    assert set(got) == {"mode", "dbt"}
    assert got["mode"]["url"] == client.box.mode.url
    assert got["dbt"]["account_id"] == client.box.dbt.account.settings.account_id


async def test_every_port_serves_the_control_api_of_the_whole_sandbox(client: Client) -> None:
    one = await client.call("GET", client.box.mode.url + "/_sandbox/dbt/runs")
    other = await client.call("GET", client.box.dbt.url + "/_sandbox/dbt/runs")
    assert (one.status, one.body) == (200, other.body)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/nobody/requests"),
        ("GET", "/mode/nothing"),
        ("DELETE", "/mode/runs"),
        ("POST", "/mode/runs/000000000000/end"),
        ("POST", "/mode/reports/000000000000/next"),
        ("POST", "/dbt/runs/1/end"),
        ("POST", "/dbt/deliveries/wev_none/again"),
        ("DELETE", "/mode/faults/99"),
        ("DELETE", "/mode/faults/all"),
    ],
)
async def test_unknown_controls_are_404_with_a_sentence(client: Client, method: str, path: str) -> None:
    body = {"shape": "quick"} if path.endswith("/next") else None
    got = await client.control(method, path, json=body)
    assert got.status == 404
    assert len(got.json["error"]) > 5


@pytest.mark.parametrize(
    ("method", "path", "body", "complaint"),
    [
        ("POST", "/mode/faults", b'{"kind": "explode"}', "explode"),
        ("POST", "/mode/faults", b"{", "truncated"),
        ("POST", "/mode/faults", b"\xff", "malformed"),
        ("POST", "/mode/settings", b'{"rate_limits": 3}', "rate_limits"),
        ("PUT", "/mode/reports/XYZ", b"{}", "12 lowercase hex digits"),
        ("PUT", f"/mode/reports/{REPORT}", b'{"shape": "nope"}', "no run shape 'nope'"),
        ("POST", f"/mode/reports/{REPORT}/next", b"{}", "shape"),
        ("POST", "/dbt/finish", b'{"status": "fine"}', "fine"),
        ("POST", "/dbt/finish", b'{"steps": [{"directory": "/does/not/exist"}]}', "no directory"),
        ("PUT", "/dbt/jobs/abc", b"{}", "a job id is a number"),
        ("PUT", "/dbt/jobs/7", b'{"nam": "x"}', "nam"),
        ("POST", "/dbt/subscriptions", b"{}", "client_url"),
        ("GET", "/mode/requests?limit=many", b"", "whole number"),
    ],
)
async def test_mistakes_are_400_and_name_the_field(
    client: Client, method: str, path: str, body: bytes, complaint: str
) -> None:
    got = await client.control(method, path, data=body)
    assert got.status == 400
    assert complaint in got.json["error"]


async def test_faults_over_the_control_api(client: Client) -> None:
    armed = await client.control("POST", "/mode/faults", json={"kind": "status", "status": 500, "times": 2})
    assert armed.status == 201
    assert (await client.mode("GET", "/api/verify")).status == 500
    shown = (await client.control("GET", "/mode/faults")).json
    assert shown["fired"] == {"status": 1}
    assert shown["armed"] == [
        {"id": armed.json["id"], "fired": 1, "fault": {"kind": "status", "status": 500, "times": 2}}
    ]
    assert (await client.control("DELETE", f"/mode/faults/{armed.json['id']}")).status == 200
    assert (await client.mode("GET", "/api/verify")).status == 200
    await client.control("POST", "/mode/faults", json={"kind": "cut"})
    await client.control("DELETE", "/mode/faults")
    assert (await client.mode("GET", "/api/verify")).status == 200


async def test_what_a_stand_in_saw(client: Client) -> None:
    await client.mode("GET", "/api/verify", auth="")
    run = (await client.run(REPORT)).json
    await client.mode("GET", run["_links"]["self"]["href"])
    await client.mode("GET", run["_links"]["self"]["href"] + "?x=1")
    seen = (await client.control("GET", "/mode/requests?limit=2")).json
    assert (seen["total"], seen["in_flight"], seen["peak_in_flight"]) == (4, 0, 1)
    assert {(row["method"], row["path"], row["status"]): row["count"] for row in seen["counts"]} == {
        ("GET", "/api/verify", 401): 1,
        ("POST", "/api/acme/reports/*/runs", 202): 1,
        ("GET", "/api/acme/reports/*/runs/*", 200): 2,
    }
    newest = [msgspec.convert(one, Seen) for one in seen["recent"]]
    assert [(one.path, one.query) for one in newest] == [
        (run["_links"]["self"]["href"], ""),
        (run["_links"]["self"]["href"], "x=1"),
    ]
    assert client.box.mode.log.count("GET", "/api/acme/reports/*/runs/*") == 2
    (seen_run,) = (await client.control("GET", "/mode/runs")).json
    assert {"run", "report", "parameters", "state", "created_at", "ended_at"} <= set(seen_run)


async def test_the_peak_of_requests_in_flight(client: Client) -> None:
    await client.control("POST", "/mode/faults", json={"kind": "latency", "seconds": 0.05})
    await asyncio.gather(*(client.mode("GET", "/api/verify") for _ in range(7)))
    assert (await client.control("GET", "/mode/requests")).json["peak_in_flight"] == 7


async def test_reset_forgets_everything(client: Client, receiver: Receiver) -> None:
    await client.run(REPORT)
    await client.control("POST", "/mode/settings", json={"rate_limit": 1})
    await client.control("POST", "/mode/faults", json={"kind": "status"})
    await client.control("PUT", f"/mode/reports/{REPORT}", json={"archived": True})
    await client.control("POST", "/dbt/subscriptions", json={"client_url": receiver.url})
    await client.control("POST", "/dbt/finish")
    assert (await client.control("POST", "/reset")).json == {"reset": ["dbt", "mode"]}
    assert (await client.control("GET", "/mode/runs")).json == []
    assert (await client.control("GET", "/dbt/runs")).json == []
    assert (await client.control("GET", "/dbt/subscriptions")).json == []
    assert (await client.control("GET", "/mode/requests")).json["total"] == 0
    assert (await client.control("GET", "/mode/settings")).json["rate_limit"] == 40
    assert (await client.run(REPORT)).status == 202


async def test_a_job_from_start_to_delivery_over_the_control_api(client: Client, receiver: Receiver) -> None:
    wanted = {"client_url": receiver.url, "secret": "test-secret", "event_types": ["job.run.completed"]}
    made = await client.control("POST", "/dbt/subscriptions", json=wanted)
    assert (made.status, made.json["secret"]) == (201, "test-secret")
    job = await client.control("PUT", "/dbt/jobs/900", json={"name": "Mine", "project_name": "P"})
    assert job.json["id"] == 900
    steps = [{"command": "dbt build", "artifacts": {"run_results.json": {"results": []}}}]
    run = (await client.control("POST", "/dbt/finish", json={"job": 900, "steps": steps})).json
    assert (run["job_name"], run["status_humanized"]) == ("Mine", "Success")
    assert run["steps"][3] == {
        "index": 4,
        "name": "Invoke dbt with `dbt build`",
        "status": 10,
        "files": ["run_results.json"],
    }
    await client.control("POST", "/dbt/settled")
    (seen,) = (await client.control("GET", "/dbt/runs")).json
    assert [event["state"] for event in seen["events"]] == ["delivered"]
    assert len(receiver.got) == 1
    begun = (await client.control("POST", "/dbt/begin", json={"job": 900})).json
    ended = await client.control("POST", f"/dbt/runs/{begun['run']}/end", json={"status": "error"})
    assert ended.json["status_humanized"] == "Error"
    assert (await client.control("POST", f"/dbt/runs/{begun['run']}/end")).status == 409
    assert 900 in [one["id"] for one in (await client.control("GET", "/dbt/jobs")).json]
    changed = await client.control("POST", "/dbt/settings", json={"policy": {"timeout": 1.0}})
    assert changed.json["policy"]["timeout"] == 1.0


async def test_two_sandboxes_side_by_side_and_a_taken_port(box: Sandbox) -> None:
    async with running() as other:
        assert other.mode.url != box.mode.url
        port = int(other.mode.url.rpartition(":")[2])
        with pytest.raises(OSError, match=f"mode stand-in cannot listen on 127.0.0.1:{port}"):
            async with running(mode_port=port):
                raise AssertionError("two sandboxes on one port")
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", port))


async def test_leaving_does_not_wait_for_hanging_requests() -> None:
    loop = asyncio.get_running_loop()
    async with aiohttp.ClientSession() as session:
        async with running() as box:
            await session.post(box.control_url + "/mode/faults", json={"kind": "latency", "seconds": 600})
            hanging = asyncio.create_task(session.get(box.mode.url + "/api/verify"))
            await asyncio.sleep(0.05)
            begun = loop.time()
        assert loop.time() - begun < 1
        (answer,) = await asyncio.gather(hanging, return_exceptions=True)
        assert isinstance(answer, aiohttp.ClientError | aiohttp.ClientResponse)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_sandbox_as_a_process(number: signal.Signals) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "downriver.sandbox",
        "--instant",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parent,
    )
    try:
        assert process.stdout is not None
        ready = msgspec.json.decode(await asyncio.wait_for(process.stdout.readline(), 15))
        mode = ready["mode"]
        headers = {"Authorization": basic(mode["token"], mode["secret"])}
        async with aiohttp.ClientSession(headers=headers) as session:
            url = f"{mode['url']}/api/{mode['workspace']}/reports/abcdefabcdef/runs"
            async with session.post(url, json={"parameters": {}}) as answer:
                assert answer.status == 202
            async with session.get(f"{ready['control']}/mode/runs") as answer:
                assert [run["state"] for run in await answer.json()] == ["succeeded"]
            await session.post(f"{ready['control']}/mode/faults", json={"kind": "cut"})
            with pytest.raises(aiohttp.ClientError):  # the fast event loop can cut, too
                await session.post(url, json={"parameters": {}})
            process.send_signal(number)
            out, err = await asyncio.wait_for(process.communicate(), 10)
        assert (process.returncode, out, err) == (0, b"", b"")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_the_process_says_what_is_wrong() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for options, code, complaint in (
            (["--dbt-port", port], 1, f"dbt stand-in cannot listen on 127.0.0.1:{port}"),
            (["--settings", '{"mod": {}}'], 2, "unknown field `mod`"),
        ):
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "downriver.sandbox",
                *options,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            _, err = await asyncio.wait_for(process.communicate(), 15)
            assert process.returncode == code
            assert complaint in err.decode()


def test_the_banner_is_for_people() -> None:
    box = Sandbox()
    box.mode.url, box.dbt.url = "http://127.0.0.1:1", "http://127.0.0.1:2"
    banner = box.banner()
    for needed in ("curl -s -u b0a7c0ffee42:", "/api/acme/reports/9d2da37fa91e/runs", "/_sandbox/mode/faults"):
        assert needed in banner
