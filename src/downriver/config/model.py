"""What a loaded downriver.yml is, and the keys that are Downriver's own.

The keys of a kind of source or connection, and those it adds to a dashboard, are not here: the kinds
declare them with pydantic models (`SourceType`, `ConnectorType`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Protocol

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from downriver.config.durations import Duration
from downriver.config.problems import Problem
from downriver.core.model import Asset, Dashboard, Rule

NAME_PATTERN: Final = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$"
_NAME: Final = re.compile(NAME_PATTERN)
_LONGEST: Final = timedelta(days=7)
_MAX_JOB: Final = 255


# -- what kinds bring ---------------------------------------------------------------------------------


class SourceType(Protocol):
    """A kind of source, as far as configuration is concerned."""

    @property
    def kind(self) -> str:
        """The word that stands as `type:`."""
        ...

    @property
    def title(self) -> str:
        """Its name for people."""
        ...

    @property
    def config(self) -> type[BaseModel]:
        """The keys of a source of this kind, besides `name` and `type`."""
        ...


class ConnectorType(Protocol):
    """A kind of connector, as far as configuration is concerned."""

    @property
    def kind(self) -> str:
        """The word that stands as `type:`."""
        ...

    @property
    def title(self) -> str:
        """Its name for people."""
        ...

    @property
    def config(self) -> type[BaseModel]:
        """The keys of a connection of this kind, besides those of `ConnectionKeys`."""
        ...

    @property
    def asset(self) -> type[BaseModel]:
        """The keys that a dashboard of this kind adds to those of `DashboardKeys`."""
        ...

    @property
    def assets(self) -> Callable[[str, BaseModel, BaseModel], tuple[Asset, ...]]:
        """(connection name, connection config, asset config) → assets; ValueError with a sentence."""
        ...


# -- the result -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """One source. `options` is an instance of its kind's `config` model; `line` is where it begins."""

    name: str
    type: str
    options: BaseModel
    line: int


@dataclass(frozen=True, slots=True)
class LimitsConfig:
    """What downriver.yml says of a connection's budgets; None leaves the connector's own value."""

    requests_per_second: float | None = None
    concurrency: int | None = None


@dataclass(frozen=True, slots=True)
class PollingConfig:
    """How soon to look first, and how far apart looks may grow."""

    first: timedelta = timedelta(seconds=2)
    max: timedelta = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class ConnectionConfig:
    """One connection. `timeout` is how long a refresh may run; `options` an instance of the kind's model."""

    name: str
    type: str
    options: BaseModel
    line: int
    timeout: timedelta = timedelta(hours=1)
    limits: LimitsConfig = LimitsConfig()
    polling: PollingConfig = PollingConfig()


@dataclass(frozen=True, slots=True)
class DashboardConfig:
    """One dashboard. `rule` is None when only people refresh it; `options` are its asset keys."""

    name: str
    connection: str
    options: BaseModel
    assets: tuple[Asset, ...]
    line: int
    rule: Rule | None = None
    title: str | None = None
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class Config:
    """A whole downriver.yml, valid. `path` is the file, `home` the directory for data.

    `warnings` are worth saying and hinder nothing.
    """

    path: Path
    home: Path
    sources: tuple[SourceConfig, ...] = ()
    connections: tuple[ConnectionConfig, ...] = ()
    dashboards: tuple[DashboardConfig, ...] = ()
    warnings: tuple[Problem, ...] = ()

    def as_dashboards(self) -> tuple[Dashboard, ...]:
        """The dashboards in the words of `core`."""
        return tuple(
            Dashboard(name=one.name, assets=one.assets, rule=one.rule, title=one.title, owner=one.owner)
            for one in self.dashboards
        )


# -- Downriver's own keys -----------------------------------------------------------------------------


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError(
            "a name is made of letters, digits, `_`, `-` and `.`, begins with a letter, digit or `_`, "
            "and has at most 100 characters: it stands in addresses"
        )
    return value


def _job(value: str) -> str:
    if not value.strip():
        raise ValueError("a job is its id or a glob of its name, and this is empty")
    if len(value) > _MAX_JOB:
        raise ValueError(f"a job's id or name has at most {_MAX_JOB} characters")
    return value.strip()


def _not_nothing(value: Any) -> Any:
    if value is None or value == []:
        raise ValueError("nothing stands here: name jobs, or leave `jobs` out for every job")
    return value


Name = Annotated[str, AfterValidator(_name), WithJsonSchema({"type": "string", "pattern": NAME_PATTERN})]
Job = Annotated[str, AfterValidator(_job)]


class _Keys(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class SourceKeys(_Keys):
    """The keys every source has."""

    name: Name = Field(description="How you call this source. It is part of its webhook address, /hooks/NAME.")
    type: str = Field(description="The kind of source.")


class LimitsKeys(_Keys):
    """Budgets of a connection, where the connector's own do not suit."""

    requests_per_second: float | None = Field(
        default=None, gt=0, le=10_000, description="Calls per second, all kinds counted."
    )
    concurrency: int | None = Field(
        default=None, ge=1, le=10_000, description="Refreshes in flight at the same time."
    )


class PollingKeys(_Keys):
    """How a refresh is followed: the first look, then looks further and further apart."""

    first: Duration = Field(default=timedelta(seconds=2), description="When to look first, such as `2s`.")
    max: Duration = Field(
        default=timedelta(seconds=30), description="The longest time between two looks, such as `30s`."
    )

    @field_validator("first", "max")
    @classmethod
    def _sensible(cls, value: timedelta) -> timedelta:
        if not timedelta(milliseconds=10) <= value <= timedelta(hours=1):
            raise ValueError("expected between `10ms` and `1h`")
        return value

    @model_validator(mode="after")
    def _grows(self) -> PollingKeys:
        if self.max < self.first:
            raise ValueError("`max` is shorter than `first`")
        return self


class ConnectionKeys(_Keys):
    """The keys every connection has."""

    name: Name = Field(description="How you call this connection.")
    type: str = Field(description="The kind of BI tool.")
    timeout: Duration = Field(
        default=timedelta(hours=1), description="How long a refresh may run before it is given up, such as `90m`."
    )
    limits: LimitsKeys = Field(default=LimitsKeys(), description="Budgets towards the BI tool.")
    polling: PollingKeys = Field(default=PollingKeys(), description="How refreshes are followed.")

    @field_validator("timeout")
    @classmethod
    def _sensible(cls, value: timedelta) -> timedelta:
        if not timedelta(seconds=1) <= value <= _LONGEST:
            raise ValueError("expected between `1s` and `7d`")
        return value


class RefreshOnKeys(_Keys):
    """Which runs refresh a dashboard."""

    source: str | None = Field(default=None, description="The source. May be left out when there is only one.")
    jobs: Annotated[Job | list[Job], BeforeValidator(_not_nothing)] = Field(
        default_factory=list,
        description='Job ids or name globs ("Daily Job*"), one or a list. Left out: every job of the source.',
    )


class DashboardKeys(_Keys):
    """The keys every dashboard has."""

    name: Name = Field(description="How you call this dashboard.")
    title: str | None = Field(default=None, max_length=500, description="Its title on pages; the name if left out.")
    owner: str | None = Field(default=None, max_length=500, description="Who answers for it.")
    connection: str = Field(description="The connection it is refreshed through.")
    refresh_on: RefreshOnKeys | None = Field(
        default=None,
        description="Which runs refresh it. `{}` is every job of the only source; left out: only people do.",
    )

    @field_validator("refresh_on", mode="before")
    @classmethod
    def _not_nothing(cls, value: Any) -> Any:
        if value is None:
            raise ValueError("nothing stands here: write `refresh_on: {}` for every job, or leave the key out")
        return value


class TopKeys(_Keys):
    """The keys at the top of the file. The items of the lists are judged one by one."""

    version: Literal[1] = Field(default=1, description="The form of this file.")
    sources: list[SourceKeys] = Field(default_factory=list, description="Where news of dbt runs comes from.")
    connections: list[ConnectionKeys] = Field(default_factory=list, description="The BI tools.")
    dashboards: list[DashboardKeys] = Field(default_factory=list, description="What people look at.")
