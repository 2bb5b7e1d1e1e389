"""Serving the stand-ins: each on its own loopback port (both vendors live under `/api`), one sandbox.

`running()` serves inside the caller's event loop (tests, the demo, benches); `serve()` blocks until
Ctrl-C (the command line). Every port also carries the control API of the whole sandbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import msgspec
import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from downriver.sandbox.control import Control
from downriver.sandbox.dbt_account import DbtSettings
from downriver.sandbox.dbt_platform import DbtPlatform
from downriver.sandbox.frontdoor import CONTROL, TRANSPORT, FrontDoor, StandIn
from downriver.sandbox.mode import ModeSettings, ModeStandIn


class SandboxSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of every stand-in."""

    mode: ModeSettings = ModeSettings()
    dbt: DbtSettings = DbtSettings()

    def instant(self) -> SandboxSettings:
        """For benches: runs end at once, any 12 hex digits are a report, no rate limits."""
        replace = msgspec.structs.replace
        return replace(
            self,
            mode=replace(self.mode, time_scale=0.0, auto_reports=True, rate_limit=None),
            dbt=replace(self.dbt, rate_limit=None),
        )

    def unlimited(self) -> SandboxSettings:
        """The same without rate limits."""
        replace = msgspec.structs.replace
        return replace(self, mode=replace(self.mode, rate_limit=None), dbt=replace(self.dbt, rate_limit=None))


@dataclass(slots=True)
class Sandbox:
    """All stand-ins with their state. `mode.url` and `dbt.url` are known once it is served."""

    settings: SandboxSettings = field(default_factory=SandboxSettings)
    mode: ModeStandIn = field(init=False)
    dbt: DbtPlatform = field(init=False)

    def __post_init__(self) -> None:
        self.mode = ModeStandIn(self.settings.mode)
        self.dbt = DbtPlatform(self.settings.dbt)

    @property
    def standins(self) -> tuple[StandIn, ...]:
        """Every stand-in; a new vendor is one more field and one more entry here."""
        return (self.mode, self.dbt)

    @property
    def control_url(self) -> str:
        """Base of the control API (every port serves it)."""
        return self.dbt.url + CONTROL

    def reset(self) -> None:
        """Everything as at the start."""
        for standin in self.standins:
            standin.reset()

    def describe(self) -> dict[str, object]:
        """Addresses and credentials of everything, ready for JSON."""
        known: dict[str, object] = {"control": self.control_url}
        return known | {standin.name: standin.describe() for standin in self.standins}

    def banner(self) -> str:
        """Addresses, credentials and example calls for a person."""
        lines: list[str] = []
        for standin in self.standins:
            lines.append(f"{standin.name}:")
            lines += [f"  {key}: {value}" for key, value in standin.describe().items()]
            lines += [f"  $ {call}" for call in standin.curl()]
        fault = '{"kind": "status", "status": 429, "retry_after": 2, "times": 3}'
        lines += [f"control: {self.control_url}", f"  $ curl -s -d '{fault}' {self.control_url}/mode/faults"]
        return "\n".join(lines)


class _Protocol(HttpToolsProtocol):
    """uvicorn's protocol, handing the connection to the application: a fault may cut it."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {TRANSPORT: self.transport}  # type: ignore[dict-item]


class _Listener:
    """One uvicorn server in the current loop: no signal handlers, no log, gone at once when stopped."""

    def __init__(self, standin: StandIn, control: Control, sock: socket.socket) -> None:
        self._sock = sock
        self._server = uvicorn.Server(
            uvicorn.Config(
                FrontDoor(standin, control),
                http=_Protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                backlog=2048,
            )
        )
        self._ticking: asyncio.Task[None] | None = None

    async def start(self) -> None:
        server = self._server
        server.config.load()
        server.lifespan = server.config.lifespan_class(server.config)
        await server.startup(sockets=[self._sock])
        self._ticking = asyncio.create_task(self._tick())

    async def _tick(self) -> None:
        while True:  # keeps the Date header right
            await self._server.on_tick(0)
            await asyncio.sleep(1)

    async def stop(self) -> None:
        server = self._server
        for listening in server.servers:
            listening.close()
        self._sock.close()
        if self._ticking is not None:
            self._ticking.cancel()
        for connection in list(server.server_state.connections):
            connection.shutdown()
        if server.server_state.tasks:
            await asyncio.wait(set(server.server_state.tasks), timeout=1)
        for task in set(server.server_state.tasks):
            task.cancel()
        # Let the transports notice that they are closed before the loop goes away.
        while server.server_state.connections:
            for connection in list(server.server_state.connections):
                connection.transport.abort()
            await asyncio.sleep(0)


def _bound(host: str, port: int, name: str) -> socket.socket:
    """A listening address for a stand-in. `OSError` that names the stand-in when it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol left to its default, asyncio does not switch Nagle's algorithm off: 40 ms an answer.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise OSError(
            error.errno,
            f"the sandbox's {name} stand-in cannot listen on {host}:{port} ({error.strerror}); "
            "choose another port, or 0 for any free one",
        ) from error
    return sock


@contextlib.asynccontextmanager
async def running(
    settings: SandboxSettings | None = None,
    *,
    host: str = "127.0.0.1",
    mode_port: int = 0,
    dbt_port: int = 0,
) -> AsyncIterator[Sandbox]:
    """Serve a sandbox in the current event loop; port 0 is any free one.

    Yields when every port answers. Raises `OSError` when a port is taken.
    """
    sandbox = Sandbox(settings or SandboxSettings())
    control = Control(sandbox.standins)
    ports = {"mode": mode_port, "dbt": dbt_port}
    async with contextlib.AsyncExitStack() as stack:
        for standin in sandbox.standins:
            sock = _bound(host, ports[standin.name], standin.name)
            stack.callback(sock.close)
            shown = f"[{host}]" if ":" in host else host
            standin.url = f"http://{shown}:{sock.getsockname()[1]}"
            listener = _Listener(standin, control, sock)
            await listener.start()
            stack.push_async_callback(listener.stop)
            stack.push_async_callback(standin.stop)
        yield sandbox


def serve(
    settings: SandboxSettings | None = None,
    *,
    host: str = "127.0.0.1",
    mode_port: int = 8331,
    dbt_port: int = 8332,
    announce: Callable[[Sandbox], None] = lambda sandbox: print(sandbox.banner(), flush=True),  # noqa: T201
) -> None:
    """Serve a sandbox until SIGINT or SIGTERM. `announce` is called once, when every port answers."""

    async def until_stopped() -> None:
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stopped.set)
        async with running(settings, host=host, mode_port=mode_port, dbt_port=dbt_port) as sandbox:
            announce(sandbox)
            await stopped.wait()

    uvloop.run(until_stopped())
