"""`/healthz` and `/readyz`."""

import asyncio

import pytest

from downriver.core.errors import StoreError
from downriver.web.health import Check, Health, Readiness


async def test_alive_whatever_else(service):
    service.checks[0] = Check("store", ok=False, detail="gone")
    answer = await service.call("GET", "/healthz")
    assert (answer.status, answer.json()) == (200, {"ok": True})
    assert (await service.call("HEAD", "/healthz")).status == 200
    assert (
        await service.call("GET", "/healthz", {"x-forwarded-for": "1.2.3.4"}, host="outside.example")
    ).status == 200
    assert service.asked == [], "it asks nobody"


async def test_ready(service):
    service.checks.append(Check("source:analytics", ok=True, detail="driver is alive"))
    answer = await service.call("GET", "/readyz")
    assert answer.status == 200
    assert answer.json() == {
        "ok": True,
        "checks": [
            {"name": "store", "ok": True, "detail": "writable"},
            {"name": "source:analytics", "ok": True, "detail": "driver is alive"},
        ],
    }


async def test_not_ready_says_which_check_fails_and_why_to_insiders_only(serve):
    async with serve(token="t0ken") as service:
        service.checks.append(Check("connection:mode", ok=False, detail="no driver for 40 s on planted-host"))
        inside = await service.call("GET", "/readyz")
        assert inside.status == 503
        assert inside.json()["checks"][1]["detail"] == "no driver for 40 s on planted-host"
        outside = await service.call("GET", "/readyz", {"x-forwarded-for": "1.2.3.4"})
        assert outside.status == 503
        assert outside.json()["checks"][1] == {"name": "connection:mode", "ok": False}
        token = await service.call("GET", "/readyz", {"x-forwarded-for": "1.2.3.4", "authorization": "Bearer t0ken"})
        assert "planted-host" in token.body.decode()


async def test_many_askers_cost_one_asking(service):
    answers = await asyncio.gather(*(service.call("GET", "/readyz") for _ in range(20)))
    assert {answer.status for answer in answers} == {200}
    assert len(service.asked) == 1


@pytest.mark.parametrize("error", [StoreError("The disk is full: free some space."), None])
async def test_checks_that_fail_or_hang_are_not_ready(error):
    async def readiness():
        if error:
            raise error
        await asyncio.sleep(60)

    health = Health(readiness, None, patience=0.05)
    found = await health.look()
    assert not found.ok
    assert found.checks[0].detail == (
        "The disk is full: free some space." if error else "The checks did not end within 0.05 s."
    )


def test_ready_means_every_check():
    good, bad = Check("a", ok=True, detail=""), Check("b", ok=False, detail="")
    assert Readiness(()).ok
    assert Readiness((good,)).ok
    assert not Readiness((good, bad)).ok
