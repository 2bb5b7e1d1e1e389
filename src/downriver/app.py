"""The composition root: from parts to a running service. The only place that builds objects."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import uvicorn
from pydantic import BaseModel, SecretStr

from downriver.connectors.base import ConnectorSpec, connect
from downriver.connectors.transport import AiohttpTransport
from downriver.core.errors import ConfigError, StoreError
from downriver.core.model import Dashboard
from downriver.engine.budget import RateBudget
from downriver.engine.connection_driver import ConnectionRuntime
from downriver.engine.engine import Engine
from downriver.engine.policy import Policy
from downriver.sources.base import Source
from downriver.store.db import Store, make_placement_engine
from downriver.store.mailboxes import list_workers
from downriver.web.app import build_app
from downriver.web.health import Check, Readiness
from downriver.web.server import server_config

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 8321


def now() -> datetime:
    """The clock of the service: aware, UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Link:
    """A configured connection before it is built: the connector's spec, its options, its times and limits."""

    spec: ConnectorSpec
    options: BaseModel
    policy: Policy = field(default_factory=Policy)
    requests_per_second: float | None = None


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything a service is made of. `home` holds its data; `api_token` opens the API to other machines."""

    home: Path
    sources: Mapping[str, Source]
    links: Mapping[str, Link]
    dashboards: Sequence[Dashboard]
    database_url: str | None = None
    api_token: SecretStr | None = None

    @property
    def url(self) -> str:
        """The database's address: a SQLite file in the home unless told otherwise."""
        return self.database_url or f"sqlite:///{self.home / 'downriver.db'}"


class Service:
    """Store, engine and web of one process. `async with Service(parts)` runs the engine; `serve` adds the web."""

    def __init__(self, parts: Parts) -> None:
        parts.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._parts = parts
        self.store = Store.open(parts.url)
        self._database = make_placement_engine(parts.url)
        self._transport = AiohttpTransport()
        self.engine = Engine(
            store=self.store,
            database=self._database,
            home=parts.home,
            sources=parts.sources,
            connections={name: self._runtime(name, link) for name, link in parts.links.items()},
            dashboards=parts.dashboards,
            clock=now,
        )

    def _runtime(self, name: str, link: Link) -> ConnectionRuntime:
        budget = RateBudget(link.requests_per_second)
        connector = connect(link.spec, link.options, self._transport, spend=budget.spend)
        return ConnectionRuntime(name, connector, link.policy, budget)

    async def __aenter__(self) -> Service:
        await self.engine.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.engine.stop()
        await self._transport.aclose()
        self._database.dispose()
        self.store.close()

    async def readiness(self) -> Readiness:
        """Whether events can be stored, and every mailbox is worked by a living process."""
        try:
            await self.store.write(list_workers)
        except StoreError as error:
            return Readiness((Check("store", ok=False, detail=str(error)),))
        idle = set(await self.engine.unattended())
        checks = [Check("store", ok=True, detail="the database takes writes")]
        for mailbox in self.engine.mailboxes:
            detail = "no living process works it yet" if mailbox in idle else "a driver works it"
            checks.append(Check(mailbox, ok=mailbox not in idle, detail=detail))
        return Readiness(tuple(checks))

    async def until_ready(self, seconds: float = 30.0) -> None:
        """Wait until `readiness` is all right. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while not (await self.readiness()).ok:
                await asyncio.sleep(0.05)

    def server(self, host: str, port: int) -> WebServer:
        """The web side, not yet serving."""
        app = build_app(
            sources=self._parts.sources,
            store=self.store,
            poke=self.engine.poke,
            readiness=self.readiness,
            api_token=self._parts.api_token,
            clock=now,
        )
        return WebServer(uvicorn.Server(server_config(app, host=host, port=port)), host, port)


class WebServer:
    """uvicorn in our loop; `async with` serves, and stops when left. `port` is the true one (0 asks for any)."""

    def __init__(self, server: uvicorn.Server, host: str, port: int) -> None:
        self._server = server
        self._socket = _listening(host, port)
        self.host = host
        self.port: int = self._socket.getsockname()[1]
        self._task: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Its address on this machine."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    async def __aenter__(self) -> WebServer:
        # `_serve` leaves signals to the caller, who also has an engine to stop.
        self._task = asyncio.create_task(self._server._serve([self._socket]))  # noqa: SLF001
        while not self._server.started and not self._task.done():
            await asyncio.sleep(0.01)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.should_exit = True
        if self._task is not None:
            with suppress(asyncio.CancelledError):
                await self._task


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # TCP named: else no TCP_NODELAY
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise ConfigError(
            f"Cannot listen on {host}:{port} ({error.strerror}): choose another address with --host and --port."
        ) from error
    return sock
