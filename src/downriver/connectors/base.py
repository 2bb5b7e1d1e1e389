"""What a connector is: its spec and its verbs.

A connector knows one kind of BI tool. It builds requests and reads answers; it never sleeps, never
retries and never decides when: that is the engine's. Errors are those of `core.errors`, raised by
`connectors.http` from the HTTP status, or by the connector where only it can know.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from pydantic import BaseModel, SecretStr

from downriver.connectors.http import Dialect, HttpClient, Transport
from downriver.core.model import Asset, Json, Outcome, StillRunning, Ticket


class Shape(StrEnum):
    """How the tool refreshes (design.md §5)."""

    JOB = "job"
    WARM = "warm"
    INVALIDATE = "invalidate"


@dataclass(frozen=True, slots=True)
class Limits:
    """Budgets of one connection. None means no limit of ours.

    `requests_per_second` counts every call; `concurrency` counts refreshes in flight at the tool.
    """

    requests_per_second: float | None = None
    concurrency: int = 20


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the tool says we are: `who` for people (no secret), `scope` the workspace, site or tenant."""

    who: str
    scope: str


@dataclass(frozen=True, slots=True)
class AssetStatus:
    """What the tool says of one asset.

    `problem` is a sentence that says what to change, or None: it may be refreshed. `notes` are sentences
    about what a refresh will not do, or what else refreshes it; they hinder nothing.
    """

    title: str
    url: str | None = None
    problem: str | None = None
    last_refreshed_at: datetime | None = None
    notes: tuple[str, ...] = ()


class Connector(Protocol):
    """One configured connection's verbs. Every call may raise the errors of `core.errors`."""

    async def check(self) -> Identity:
        """Who am I, with these credentials?"""
        ...

    async def inspect(self, asset: Asset) -> AssetStatus:
        """Does the asset exist, and may it be refreshed?"""
        ...

    async def trigger(self, asset: Asset) -> Ticket | Outcome:
        """Ask the tool to refresh the asset. An `Outcome` when the tool was done inside the call."""
        ...

    async def look(self, asset: Asset, ticket: Ticket) -> StillRunning | Outcome:
        """Where is the run that the ticket names?"""
        ...

    async def cancel(self, asset: Asset, ticket: Ticket) -> None:
        """Ask the tool to stop the run; `Unsupported` where it cannot."""
        ...

    async def find_recent(self, asset: Asset, since: datetime) -> tuple[Ticket, ...]:
        """Runs of this asset, with its parameters, made at or after `since`, that may be ours; newest first."""
        ...


@dataclass(frozen=True, slots=True)
class ConnectorSpec:
    """What a kind of connector declares; docs, config, schema and pages are made from it.

    `config` validates the connection's own keys of downriver.yml, `asset` the keys that a dashboard of
    this kind adds (a report's token or URL, its parameters). `assets` turns validated asset keys into
    the assets of a dashboard; it raises `ValueError` with a sentence when a URL names something else.
    `build` makes the connector from its validated config and a client.
    """

    kind: str
    title: str
    shape: Shape
    config: type[BaseModel]
    asset: type[BaseModel]
    assets: Callable[[str, BaseModel, BaseModel], tuple[Asset, ...]]
    """(connection name, connection config, asset config) → assets"""
    build: Callable[[BaseModel, HttpClient], Connector]
    base_url: Callable[[BaseModel], str]
    auth: Callable[[BaseModel], Mapping[str, str]]
    """The headers that carry the credentials; never logged, never stored."""
    dialect: Dialect = field(default_factory=Dialect)
    """What is special about the vendor's HTTP: standing headers, error bodies, advice."""
    limits: Limits = Limits()
    can_cancel: bool = False
    can_find_recent: bool = False
    can_discover: bool = False


JsonObject = Mapping[str, Json]


def connect(
    spec: ConnectorSpec,
    config: BaseModel,
    transport: Transport,
    *,
    spend: Callable[[], Awaitable[None]] | None = None,
    timeout: float = 30.0,
) -> Connector:
    """The connector of one configured connection, calling through `transport`.

    `spend` is awaited before every request, `timeout` is in seconds for one request. No error will show
    the values of the config's `SecretStr` fields or of its auth headers.
    """
    values = (getattr(config, name) for name in type(config).model_fields)
    client = HttpClient(
        transport,
        spec.base_url(config),
        spec.auth(config),
        tool=spec.title,
        spend=spend,
        timeout=timeout,
        dialect=spec.dialect,
        secrets=[value.get_secret_value() for value in values if isinstance(value, SecretStr)],
    )
    return spec.build(config, client)
