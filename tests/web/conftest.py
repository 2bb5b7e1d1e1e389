"""The web room as it runs: real uvicorn on loopback, a real SQLite store, a client that speaks raw HTTP."""

import asyncio
import hmac
import json
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
import structlog
from pydantic import SecretStr
from uvicorn.server import ServerState

from downriver.sources.dbt_platform import DbtPlatform
from downriver.store.db import Store
from downriver.store.events import list_events, list_rejections
from downriver.web.app import build_app
from downriver.web.body import DEFAULT_LIMITS
from downriver.web.health import Check, Readiness
from downriver.web.server import server_config

KEY = "planted-webhook-secret-1"
NOW = datetime(2026, 9, 1, 12, 0, 0, 123456, tzinfo=UTC)
# The real capture of facts/dbt.md §1.2.
CAPTURE = (
    b'{"accountId":66847,"eventId":"wev_2QSUzWMSv40ow7s8n8TfVPVnYua","timestamp":"2023-05-29T07:52:18.06660617Z",'
    b'"eventType":"job.run.completed","webhookId":"wsu_2QGRb6TLFTOlBXsWjL4kb0RHTWc","webhookName":"Flask app",'
    b'"data":{"jobId":"278164","jobName":"Snowflake Project Job","runId":"155144666","environmentId":"187998",'
    b'"environmentName":"Deployment 1.4","dbtVersion":"1.4.6","projectName":"Snowflake 2","projectId":"241251",'
    b'"runStatus":"Success","runStatusCode":10,"runStatusMessage":"None",'
    b'"runReason":"Kicked off from UI by analyst@example.com","runStartedAt":"2023-05-29T07:51:56Z",'
    b'"runFinishedAt":"2023-05-29T07:52:15Z"}}'
)
CAPTURE_SIGNATURE = "79417f2e7f64320e154012b08018d53b72bd2def05f92bee3558c39a9d1ab37b"  # under `test-secret`


@dataclass
class Answer:
    """What came back on the wire."""

    status: int
    headers: dict[str, str]
    body: bytes
    raw: bytes = b""

    def json(self):
        return json.loads(self.body)


class Wire:
    """One connection, byte by byte."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    async def send(self, data):
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, *, head=False):
        raw = await self.reader.readuntil(b"\r\n\r\n")
        lines = raw.decode("latin-1").split("\r\n")
        headers = {}
        for line in lines[1:-2]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        length = int(headers.get("content-length", 0))
        body = await self.reader.readexactly(length) if length and not head else b""
        return Answer(int(lines[0].split()[1]), headers, body, raw)

    async def closed(self):
        """Whether the other side ends the connection now, having sent nothing more."""
        with suppress(ConnectionResetError):
            return await asyncio.wait_for(self.reader.read(), 3) == b""
        return True

    async def end(self):
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()


def sign(body, key=KEY):
    return hmac.new(key.encode(), body, "sha256").hexdigest()


def event(event_id="wev_1", pad=0, **changes):
    """The capture under another event id, with changed fields of `data`; padded to `pad` bytes."""
    body = json.loads(CAPTURE)
    body["eventId"] = event_id
    for name in ("accountId", "eventType", "timestamp"):
        if name in changes:
            body[name] = changes.pop(name)
    body["data"].update(changes)
    text = json.dumps(body)
    return (text + " " * max(0, pad - len(text))).encode()


@dataclass
class Service:
    """A service under test and what it did."""

    store: Store
    port: int
    app: object
    pokes: list[str]
    checks: list[Check]
    asked: list[int]
    logs: list = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)

    @asynccontextmanager
    async def wire(self):
        wire = Wire(*await asyncio.open_connection("127.0.0.1", self.port))
        try:
            yield wire
        finally:
            await wire.end()

    async def call(self, method, path, headers=(), body=b"", *, host="127.0.0.1"):
        lines = [f"{method} {path} HTTP/1.1", f"host: {host}", "connection: close"]
        lines += [f"{name}: {value}" for name, value in dict(headers).items()]
        if body or method == "POST":
            lines.append(f"content-length: {len(body)}")
        async with self.wire() as wire:
            await wire.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)
            answer = await wire.answer(head=method == "HEAD")
        self.answers.append(answer)
        return answer

    async def post(self, body, *, key=KEY, source="analytics", headers=()):
        return await self.call(
            "POST",
            f"/hooks/{source}",
            {"content-type": "application/json", "authorization": sign(body, key), **dict(headers)},
            body,
        )

    async def events(self):
        return await self.store.read(lambda conn: list_events(conn, limit=1000))

    async def rejections(self):
        return await self.store.read(lambda conn: list_rejections(conn, limit=1000))


@pytest.fixture
def store(tmp_path):
    opened = Store.open(f"sqlite:///{tmp_path / 'downriver.db'}")
    yield opened
    opened.close()


@pytest.fixture
def serve(store):
    """Start a service: `async with serve(limits=…) as service`."""

    @asynccontextmanager
    async def start(*, limits=DEFAULT_LIMITS, token=None, sources=None, head_seconds=None):
        pokes, checks, asked = [], [Check("store", ok=True, detail="writable")], []

        async def readiness():
            asked.append(1)
            return Readiness(tuple(checks))

        app = build_app(
            sources=sources or {"analytics": DbtPlatform("analytics", [SecretStr(KEY), SecretStr("test-secret")])},
            store=store,
            poke=pokes.append,
            readiness=readiness,
            api_token=token and SecretStr(token),
            clock=lambda: NOW,
            limits=limits,
        )
        config = server_config(app, host="127.0.0.1", port=0)
        if head_seconds is not None:
            config.http = type("Hasty", (config.http,), {"head_seconds": head_seconds})
        config.load()
        state = ServerState()
        # uvicorn's own protocol without uvicorn.Server, which takes 0.2 s to stop; test_server.py has that too.
        with structlog.testing.capture_logs() as logs:
            server = await asyncio.get_running_loop().create_server(
                lambda: config.http_protocol_class(config=config, server_state=state, app_state={}), "127.0.0.1", 0
            )
            try:
                port = server.sockets[0].getsockname()[1]
                yield Service(store, port, app, pokes, checks, asked, logs)
            finally:
                server.close()
                while state.tasks:
                    await asyncio.sleep(0.001)
                for connection in list(state.connections):
                    connection.transport.abort()
                await server.wait_closed()

    return start


@pytest.fixture
async def service(serve):
    async with serve() as started:
        yield started


@pytest.fixture
def kit():
    """The pieces tests build requests from."""

    class Kit:
        key = KEY
        now = NOW
        capture = CAPTURE
        capture_signature = CAPTURE_SIGNATURE
        sign = staticmethod(sign)
        event = staticmethod(event)

    return Kit
