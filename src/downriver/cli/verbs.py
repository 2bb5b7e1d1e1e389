"""The verbs that work on a project: each opens it, does one thing, says what it did."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import structlog
import uvloop
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table
from sqlalchemy.engine import Connection

from downriver.app import Service, now
from downriver.cli.project import dashboard_named, opened, parts_of
from downriver.config.model import Config
from downriver.config.project import FILE_NAMES
from downriver.config.schema import schema
from downriver.config.template import starter_text
from downriver.connectors.base import connect
from downriver.connectors.http import Request
from downriver.connectors.registry import discover
from downriver.connectors.transport import AiohttpTransport
from downriver.core.errors import BadInput, CallError, ConfigError, NotFound
from downriver.core.model import Asset, Dashboard, Refresh
from downriver.core.states import RefreshState
from downriver.sources.registry import SOURCES
from downriver.store import events, mailboxes, refreshes
from downriver.store.db import Store
from downriver.vault import Vault


def quiet_log() -> None:
    """Logs of warnings and worse only: the verb says itself what it does."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))


# -- beginning --------------------------------------------------------------------------------------


def write_starter(directory: Path) -> str:
    """Write a downriver.yml; the sentence that says what comes next. Raises ConfigError rather than overwrite."""
    path = directory / FILE_NAMES[0]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(starter_text())
    except FileExistsError as error:
        raise ConfigError(f"{path} is there already: it was left as it is.") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}.") from error
    return f"Wrote {path}. Next: edit it, put the secrets it names into the vault, then `downriver check`."


def show_schema() -> None:
    """The JSON Schema of downriver.yml on standard output."""
    registry = discover()
    found = schema(SOURCES, {kind: registry.spec(kind) for kind in registry.kinds})
    sys.stdout.write(json.dumps(found, indent=2) + "\n")


# -- secrets ----------------------------------------------------------------------------------------


def set_secret(project_dir: Path | None, name: str, value: SecretStr) -> str:
    """Store a secret; the sentence that says so."""
    with opened(project_dir) as project:
        project.vault().set(name, value)
    return f"{name} is in the vault."


def list_secrets(project_dir: Path | None, *, as_json: bool) -> None:
    """Names, fingerprints and last uses; never a value."""
    with opened(project_dir) as project:
        found = project.vault().list()
    rows = [
        {"name": item.name, "fingerprint": item.fingerprint, "updated_at": _iso(item.updated_at),
         "last_used_at": _iso(item.last_used_at)}
        for item in found
    ]  # fmt: skip
    _show(rows, ("name", "fingerprint", "updated_at", "last_used_at"), as_json=as_json)


def remove_secret(project_dir: Path | None, name: str) -> str:
    """Forget a secret. Raises NotFound."""
    with opened(project_dir) as project:
        # Without the key: with a lost one, removing its secrets is the way to begin anew.
        if not Vault.open_locked(project.store, project.home).remove(name):
            raise NotFound(f"The vault holds no secret `{name}`.")
    return f"{name} is gone from the vault."


def rotate_key(project_dir: Path | None) -> str:
    """Encrypt the vault with a new key."""
    with opened(project_dir) as project:
        vault = project.vault()
        vault.rotate_key()
        count = len(vault.list())
    return f"{count} secrets are encrypted with a new key, kept in the data directory."


# -- check ------------------------------------------------------------------------------------------


def check(project_dir: Path | None) -> int:
    """Configuration, vault, store, then every connection and dashboard; 1 when anything is wrong."""
    console = Console()
    with opened(project_dir) as project:
        config = project.config()
    for warning in config.warnings:
        console.print(f"warning  {warning}", highlight=False, markup=False)
    console.print(
        f"ok       {config.path.name}: {len(config.sources)} sources, {len(config.connections)} connections, "
        f"{len(config.dashboards)} dashboards; vault and database are open",
        highlight=False,
    )
    return uvloop.run(_check_connections(console, config))


async def _check_connections(console: Console, config: Config) -> int:
    problems = 0
    transport = AiohttpTransport()
    registry = discover()
    try:
        for item in config.connections:
            connector = connect(registry.spec(item.type), item.options, transport)
            try:
                identity = await connector.check()
                console.print(f"ok       {item.name}: {identity.who} in {identity.scope}", highlight=False)
            except CallError as error:
                problems += 1
                console.print(f"problem  {item.name}: {error}", highlight=False, markup=False)
                continue
            for dashboard in config.as_dashboards():
                for asset in dashboard.assets:
                    if asset.connection == item.name:
                        problems += await _inspect(console, connector.inspect, dashboard, asset)
    finally:
        await transport.aclose()
    return 1 if problems else 0


async def _inspect(console: Console, inspect: object, dashboard: Dashboard, asset: Asset) -> int:
    assert callable(inspect)
    try:
        status = await inspect(asset)
    except CallError as error:
        console.print(f"problem  {dashboard.name}: {error}", highlight=False, markup=False)
        return 1
    if status.problem:
        console.print(f"problem  {dashboard.name}: {status.problem}", highlight=False, markup=False)
        return 1
    console.print(f'ok       {dashboard.name}: "{status.title}" may be refreshed', highlight=False, markup=False)
    for note in status.notes:
        console.print(f"note     {dashboard.name}: {note}", highlight=False, markup=False)
    return 0


# -- serve and send-test ----------------------------------------------------------------------------


def serve(project_dir: Path | None, host: str, port: int) -> None:
    """Web and engine in this process, until a signal."""
    with opened(project_dir) as project:
        config = project.config()
    uvloop.run(_serve(config, host, port))


async def _serve(config: Config, host: str, port: int) -> None:
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, done.set)
    async with Service(parts_of(config)) as service, service.server(host, port) as web:
        for source in config.sources:
            print(f"{web.url}/hooks/{source.name}  takes the webhooks of {source.name}", flush=True)  # noqa: T201
        await done.wait()


def send_test(project_dir: Path | None, source_name: str | None, url: str) -> str:
    """Sign the documented sample and send it. Raises NotFound, BadInput with the answer when it is not 2xx."""
    with opened(project_dir) as project:
        config = project.config()
    found = [item for item in config.sources if source_name in (None, item.name)]
    if len(found) != 1:
        names = ", ".join(item.name for item in config.sources) or "none yet"
        raise NotFound(f"Which source? Name one with --source: {names}.")
    source = found[0]
    delivery = SOURCES[source.type].test_delivery(source.options, f"wev_test{uuid.uuid4().hex[:19]}", now())
    status, answer = uvloop.run(
        _post(f"{url.rstrip('/')}/hooks/{source.name}", dict(delivery.headers), delivery.body)
    )
    if not 200 <= status < 300:
        raise BadInput(f"The service answered {status}: {answer}")
    return f"{status} {answer}"


async def _post(url: str, headers: dict[str, str], body: bytes) -> tuple[int, str]:
    transport = AiohttpTransport()
    try:
        response = await transport.send(Request("POST", url, headers, body, 10.0))
    finally:
        await transport.aclose()
    return response.status, response.body.decode(errors="replace")[:500]


# -- looking ----------------------------------------------------------------------------------------


def show_events(project_dir: Path | None, *, limit: int, rejected: bool, as_json: bool) -> None:
    """The newest events, or refused deliveries, first."""
    with opened(project_dir) as project:
        if rejected:
            refused = project.store.read_now(lambda conn: events.list_rejections(conn, limit=limit))
            rows = [
                {"received_at": _iso(r.received_at), "source": r.source, "status": r.status, "reason": r.reason,
                 "detail": r.detail, "fingerprint": r.fingerprint}
                for r in refused
            ]  # fmt: skip
            _show(rows, ("received_at", "source", "status", "reason", "detail"), as_json=as_json)
            return
        found = project.store.read_now(lambda conn: events.list_events(conn, limit=limit))
    listed = [
        {"received_at": _iso(e.received_at), "source": e.source, "event": e.event_id, "kind": e.kind, "type": e.type,
         "run": e.run_id, "job": e.job_name or e.job_id, "status": e.run_status, "state": e.state, "note": e.note}
        for e in found
    ]  # fmt: skip
    _show(listed, ("received_at", "event", "kind", "run", "job", "note"), as_json=as_json)


def show_refreshes(project_dir: Path | None, *, limit: int, dashboard: str | None, as_json: bool) -> None:
    """The newest refreshes first."""
    with opened(project_dir) as project:
        found = project.store.read_now(lambda conn: refreshes.list_refreshes(conn, limit=limit, dashboard=dashboard))
    rows = [_refresh_row(item.refresh) for item in found]
    _show(rows, ("created_at", "dashboards", "state", "seconds", "reason", "url"), as_json=as_json)


def _refresh_row(item: Refresh) -> dict[str, object]:
    took = (item.ended_at - item.created_at).total_seconds() if item.ended_at else None
    return {
        "id": item.id,
        "created_at": _iso(item.created_at),
        "dashboards": ", ".join(item.dashboards),
        "asset": f"{item.connection}/{item.asset.key}",
        "run": item.run_id,
        "state": item.state.value,
        "seconds": took,
        "attempts": item.attempts,
        "reason": item.reason,
        "url": item.url,
    }


def replay(project_dir: Path | None, event_id: str) -> str:
    """Have an event worked again. What it refreshed with success is not refreshed again."""
    with opened(project_dir) as project:
        found = project.store.read_now(lambda conn: events.find_events(conn, event_id))
        if len(found) != 1:
            raise NotFound(
                f"There is no event `{event_id}`: `downriver events` lists them."
                if not found
                else f"{len(found)} events begin with `{event_id}`: give more of the id."
            )
        row = found[0]
        if not project.store.write_now(lambda conn: events.request_replay(conn, row.seq)):
            raise BadInput(f"{row.event_id} cannot be replayed: it waits to be worked, or is not about a run.")
    return f"{row.event_id} is worked again; refreshes that succeeded stay as they are."


# -- refresh ----------------------------------------------------------------------------------------


def refresh(project_dir: Path | None, dashboard_name: str, *, wait: bool) -> int:
    """Ask for a refresh by hand. With `wait`, follow it to its end: 0 when it succeeded."""
    quiet_log()
    with opened(project_dir) as project:
        config = project.config()
        dashboard = dashboard_named(config, dashboard_name)
        ids = project.store.write_now(lambda conn: _ask(conn, dashboard))
        served = project.store.read_now(mailboxes.list_workers)
    console = Console()
    console.print(f"{dashboard.name}: asked for {', '.join(ids)}", highlight=False)
    if wait:
        return uvloop.run(_wait(console, config, ids))
    if not served:
        console.print(
            "No service runs: it happens when `downriver serve` starts, or now with --wait.", highlight=False
        )
    return 0


def _ask(conn: Connection, dashboard: Dashboard) -> list[str]:
    at = now()
    ids: list[str] = []
    for asset in dashboard.assets:
        waiting = refreshes.waiting_for(conn, asset)
        item = waiting or Refresh(
            id=f"rf_{uuid.uuid4().hex[:20]}",
            connection=asset.connection,
            asset=asset,
            state=RefreshState.QUEUED,
            created_at=at,
            wanted_at=at,
            due_at=at,
            dashboards=(dashboard.name,),
        )
        if waiting is None:
            refreshes.insert(conn, [replace(item)], note="asked for by hand")
        ids.append(item.id)
    return ids


async def _wait(console: Console, config: Config, ids: list[str]) -> int:
    """Work in this process too: whoever holds the connection's mailbox, here or elsewhere, does it."""
    async with Service(parts_of(config)) as service:
        told: dict[str, int] = dict.fromkeys(ids, 0)
        while True:
            found = [await _news(console, service.store, refresh_id, told) for refresh_id in ids]
            if all(item is not None and item.ended_at for item in found):
                return 0 if all(item and item.state is RefreshState.SUCCEEDED for item in found) else 1
            await asyncio.sleep(0.1)


async def _news(console: Console, store: Store, refresh_id: str, told: dict[str, int]) -> Refresh | None:
    steps = await store.read(lambda conn: refreshes.history_of(conn, refresh_id))
    for step in steps[told[refresh_id] :]:
        console.print(f"{_iso(step.at)}  {step.to_state}: {step.note}", highlight=False, markup=False)
    told[refresh_id] = len(steps)
    return await store.read(lambda conn: refreshes.get_refresh(conn, refresh_id))


# -- shapes -----------------------------------------------------------------------------------------


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat(timespec="seconds").replace("+00:00", "Z")


def _show(rows: Sequence[Mapping[str, object]], columns: tuple[str, ...], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
        return
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*("" if row[name] is None else str(row[name]) for name in columns))
    Console().print(table if rows else "Nothing yet.")
