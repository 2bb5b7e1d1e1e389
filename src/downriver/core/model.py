"""The words of Downriver as frozen dataclasses. Times are timezone-aware UTC datetimes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from downriver.core.states import RefreshState

Json = Any
"""A JSON value: None, bool, int, float, str, list or dict of the same."""


class EventKind(StrEnum):
    """What a delivery tells us, in our words; the source keeps its own word beside it."""

    RUN_STARTED = "run_started"
    RUN_FINISHED = "run_finished"
    RUN_ERRORED = "run_errored"
    TEST = "test"
    OTHER = "other"


class RunStatus(StrEnum):
    """How a dbt run stands. `OTHER` is a word of the source we do not know: never taken for success."""

    RUNNING = "running"
    SUCCESS = "success"
    ERROR = "error"
    CANCELLED = "cancelled"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class NodeResult:
    """What one dbt command did with one node, as its `run_results.json` says (facts/dbt.md §3.3).

    `status` is dbt's own word, kept as given: success, error, skipped, `partial success`, no-op, reused,
    pass, warn, fail. `failures` counts rows of a test. `rows_affected` is the adapter's hint, if any.
    """

    unique_id: str
    status: str
    message: str | None = None
    failures: int | None = None
    execution_time: float | None = None
    completed_at: datetime | None = None
    rows_affected: int | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """One dbt run. Ids are strings of digits as the webhook gives them (they exceed 32 bits).

    `nodes` is None when nobody could read the run's artifacts: then only job rules can be applied.
    `status_word` is the source's own word for the status.
    """

    source: str
    run_id: str
    status: RunStatus
    status_word: str = ""
    job_id: str | None = None
    job_name: str | None = None
    environment_id: str | None = None
    environment_name: str | None = None
    project_id: str | None = None
    project_name: str | None = None
    account_id: str | None = None
    reason: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    nodes: tuple[NodeResult, ...] | None = None

    @property
    def label(self) -> str:
        """How a person would call it: `run 155144666 of "Daily Job"`."""
        return f'run {self.run_id} of "{self.job_name}"' if self.job_name else f"run {self.run_id}"


@dataclass(frozen=True, slots=True)
class Event:
    """One verified delivery. `event_id` is unique within its source; `type` is the source's own word.

    `run` is what the delivery itself says of the run (None for events that are not about one).
    """

    source: str
    event_id: str
    kind: EventKind
    type: str
    received_at: datetime
    occurred_at: datetime | None = None
    run: Run | None = None


@dataclass(frozen=True, slots=True)
class Asset:
    """What can really be refreshed in a BI tool. Two dashboards may share one.

    `kind` and `ref` are the tool's own (a report and its token); `parameters` belong to the identity,
    because the same report run with other parameters is another result.
    """

    connection: str
    kind: str
    ref: str
    parameters: Mapping[str, Json] = field(default_factory=dict)
    title: str | None = None
    url: str | None = None

    @property
    def key(self) -> str:
        """Stable identity within its connection: `report:9d2da37fa91e`, `…?<digest>` with parameters."""
        if not self.parameters:
            return f"{self.kind}:{self.ref}"
        return f"{self.kind}:{self.ref}?{_digest(canonical_json(self.parameters))[:12]}"


@dataclass(frozen=True, slots=True)
class Rule:
    """Which runs concern a dashboard. Empty `jobs` means every job of the source.

    A job entry is an id (digits) or a name glob (`Daily Job*`, compared without case).
    """

    source: str
    jobs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Dashboard:
    """What a person looks at, with the rule that says when, and the assets that stand behind it."""

    name: str
    assets: tuple[Asset, ...]
    rule: Rule | None = None
    title: str | None = None
    owner: str | None = None


class Action(StrEnum):
    """What a plan says of one dashboard."""

    REFRESH = "refresh"
    HOLD = "hold"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision for one dashboard, with the reason a person reads and the path that shows it."""

    dashboard: str
    action: Action
    reason: str
    path: tuple[str, ...] = ()
    assets: tuple[Asset, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """The decisions for one run: one for every candidate dashboard, in the order of their names."""

    run: Run
    decisions: tuple[Decision, ...]

    @property
    def assets(self) -> tuple[Asset, ...]:
        """Every asset to refresh, once each, in the order first met."""
        seen: dict[tuple[str, str], Asset] = {}
        for decision in self.decisions:
            if decision.action is Action.REFRESH:
                for asset in decision.assets:
                    seen.setdefault((asset.connection, asset.key), asset)
        return tuple(seen.values())


@dataclass(frozen=True, slots=True)
class Ticket:
    """The tool's own run that a refresh follows.

    `id` is the tool's id of that run; `created_at` when the tool says it was made; `url` a link for
    people; `data` whatever else the connector needs to look again (JSON, no secrets).
    """

    id: str
    created_at: datetime | None = None
    url: str | None = None
    data: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StillRunning:
    """A look's answer: not ended. `word` is the tool's own state; `known` is False for a word nobody documented."""

    word: str
    known: bool = True


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a refresh ended at the tool. `state` is one of the outcomes of `states.OUTCOMES`.

    `reason` is a sentence for a person; `word` the tool's own state; `ended_at` the tool's time.
    """

    state: RefreshState
    reason: str
    word: str = ""
    ended_at: datetime | None = None
    url: str | None = None


@dataclass(frozen=True, slots=True)
class Refresh:
    """One durable attempt to make one asset fresh, from intent to outcome. A row of the store.

    `wanted_at` is the moment the data was new (the dbt run's end, or now for a refresh by hand): a run
    at the tool that began earlier does not count. `due_at` says when the driver should act next;
    `intent_at` when `triggering` was committed; `deadline_at` when following ends.
    """

    id: str
    connection: str
    asset: Asset
    state: RefreshState
    created_at: datetime
    wanted_at: datetime
    due_at: datetime
    epoch: int = 0
    attempts: int = 0
    source: str | None = None
    run_id: str | None = None
    plan_id: str | None = None
    dashboards: tuple[str, ...] = ()
    intent_at: datetime | None = None
    deadline_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    ticket: Ticket | None = None
    reason: str | None = None
    url: str | None = None


def canonical_json(value: Json) -> str:
    """`value` as compact JSON with sorted keys: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


def plan_id(source: str, run_id: str, revision: int) -> str:
    """The id of a plan: the same run and revision give the same id, on every machine, for ever."""
    return "pl_" + _digest(canonical_json([source, run_id, revision]))


def refresh_id(source: str, run_id: str, asset: Asset, revision: int) -> str:
    """The id of the refresh of one asset for one run. A replay that may refresh again raises `revision`."""
    return "rf_" + _digest(canonical_json([source, run_id, asset.connection, asset.key, revision]))
