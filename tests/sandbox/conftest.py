"""A sandbox served in the test's own loop, a client that talks to it over loopback, a webhook receiver."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from downriver.sandbox import DbtSettings, DeliveryPolicy, ModeSettings, Sandbox, SandboxSettings, running
from downriver.sandbox.mode import SettingsChange

# Runs take minutes (by the stand-in's clock, which the tests put forward), retries of webhooks no time.
FAST = SandboxSettings(
    mode=ModeSettings(time_scale=100.0),
    dbt=DbtSettings(policy=DeliveryPolicy(timeout=5.0, first_delay=0.01, delay_factor=1.0)),
)


@dataclass
class Reply:
    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        import msgspec

        return msgspec.json.decode(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


@dataclass
class Client:
    """Plain HTTP with the right credentials unless told otherwise."""

    box: Sandbox
    session: aiohttp.ClientSession

    async def call(self, method: str, url: str, headers: dict[str, str] | None = None, **more: Any) -> Reply:
        async with self.session.request(method, url, headers=headers, allow_redirects=False, **more) as got:
            return Reply(got.status, got.headers, await got.read())

    async def mode(self, method: str, path: str, *, auth: str | None = None, **more: Any) -> Reply:
        if auth is None:
            known = self.box.mode.describe()
            auth = basic(str(known["token"]), str(known["secret"]))
        return await self.call(method, self.box.mode.url + path, {"Authorization": auth}, **more)

    async def run(self, report: str, **parameters: object) -> Reply:
        return await self.mode("POST", f"/api/acme/reports/{report}/runs", json={"parameters": parameters})

    async def dbt(self, method: str, path: str, *, auth: str = "Token dbtc_sandbox_token", **more: Any) -> Reply:
        path = path.replace("{a}", str(self.box.dbt.account.settings.account_id))
        return await self.call(method, self.box.dbt.url + path, {"Authorization": auth}, **more)

    def advance(self, seconds: float) -> None:
        """Put the clock of the Mode stand-in forward."""
        skew = self.box.mode.settings.clock_skew + seconds
        self.box.mode.change(SettingsChange(clock_skew=skew))

    async def control(self, method: str, path: str, **more: Any) -> Reply:
        return await self.call(method, self.box.control_url + path, **more)


def basic(token: str, secret: str) -> str:
    return "Basic " + base64.b64encode(f"{token}:{secret}".encode()).decode()


@pytest.fixture
async def box() -> AsyncIterator[Sandbox]:
    async with running(FAST) as sandbox:
        yield sandbox


@pytest.fixture
async def client(box: Sandbox) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession() as session:
        yield Client(box, session)


@dataclass
class Receiver:
    """What a webhook URL received. `answers` are used up one by one, then 200; a float waits that long."""

    url: str = ""
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    answers: list[int | float] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        self.got.append((dict(request.headers), await request.read()))
        answer = self.answers.pop(0) if self.answers else 200
        if isinstance(answer, float):
            await asyncio.sleep(answer)
            answer = 200
        return web.Response(status=answer, text="noted", headers={"Location": self.url})


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    app = web.Application()
    app.router.add_route("*", "/hook", made.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield made
    await runner.cleanup()
