"""Runs, plans and decisions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from downriver.core.model import Asset, Decision, Json, Plan, Run, RunStatus, plan_id
from downriver.store.clock import micros, utc
from downriver.store.tables import decision, plan, run

_ENDED: Final = frozenset(
    {RunStatus.SUCCESS.value, RunStatus.ERROR.value, RunStatus.CANCELLED.value, RunStatus.OTHER.value}
)


@dataclass(frozen=True, slots=True)
class PlanRow:
    """A stored plan without its decisions."""

    id: str
    source: str
    run_id: str
    revision: int
    event_id: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class DecisionRow:
    """A stored decision. `assets` is [{connection, key, refresh_id}]."""

    plan_id: str
    dashboard: str
    action: str
    reason: str
    path: list[str]
    assets: list[dict[str, Json]]


def save_run(conn: Connection, news: Run, *, at: datetime) -> None:
    """Keep what is known of a run. A late "running" overwrites no end; a missing value overwrites nothing."""
    key = (run.c.source == news.source) & (run.c.run_id == news.run_id)
    stored = conn.execute(sa.select(run).where(key)).mappings().one_or_none()
    values: dict[str, Any] = {
        name: getattr(news, name)
        for name in (
            "job_id", "job_name", "environment_id", "environment_name", "project_id", "project_name",
            "account_id", "reason",
        )
    } | {
        "status": news.status.value,
        "status_word": news.status_word,
        "started_at": micros(news.started_at),
        "finished_at": micros(news.finished_at),
        "updated_at": micros(at),
    }  # fmt: skip
    if stored is None:
        conn.execute(run.insert().values(source=news.source, run_id=news.run_id, **values))
        return
    if stored["status"] in _ENDED and news.status is RunStatus.RUNNING:
        del values["status"], values["status_word"]
    conn.execute(run.update().where(key).values({k: v for k, v in values.items() if v is not None}))


def load_run(conn: Connection, source: str, run_id: str) -> Run | None:
    """What is known of a run, without its nodes."""
    row = conn.execute(sa.select(run).where(run.c.source == source, run.c.run_id == run_id)).mappings().one_or_none()
    if row is None:
        return None
    values = {name: row[name] for name in row if name != "updated_at"}
    values["status"] = RunStatus(values["status"])
    values["started_at"] = utc(values["started_at"])
    values["finished_at"] = utc(values["finished_at"])
    return Run(**values)


def save_plan(
    conn: Connection,
    news: Plan,
    *,
    revision: int,
    event_id: str | None,
    at: datetime,
    refresh_ids: dict[tuple[str, str], str],
) -> bool:
    """Store a plan and its decisions. False: this revision of the run's plan is here already; nothing changed.

    `refresh_ids` maps (connection, asset key) to the refresh that serves it.
    """
    identity = plan_id(news.run.source, news.run.run_id, revision)
    if conn.execute(sa.select(plan.c.id).where(plan.c.id == identity)).scalar() is not None:
        return False
    conn.execute(
        plan.insert().values(
            id=identity,
            source=news.run.source,
            run_id=news.run.run_id,
            revision=revision,
            event_id=event_id,
            created_at=micros(at),
        )
    )
    if news.decisions:
        conn.execute(decision.insert(), [_decision_values(identity, item, refresh_ids) for item in news.decisions])
    return True


def _decision_values(identity: str, item: Decision, refresh_ids: dict[tuple[str, str], str]) -> dict[str, Any]:
    def entry(asset: Asset) -> dict[str, Json]:
        return {
            "connection": asset.connection,
            "key": asset.key,
            "refresh_id": refresh_ids.get((asset.connection, asset.key)),
        }

    return {
        "plan_id": identity,
        "dashboard": item.dashboard,
        "action": item.action.value,
        "reason": item.reason,
        "path": list(item.path),
        "assets": [entry(asset) for asset in item.assets],
    }


def get_plan(conn: Connection, identity: str) -> tuple[PlanRow, list[DecisionRow]] | None:
    """A plan with its decisions, by dashboard name."""
    row = conn.execute(sa.select(plan).where(plan.c.id == identity)).mappings().one_or_none()
    if row is None:
        return None
    rows = conn.execute(
        sa.select(decision).where(decision.c.plan_id == identity).order_by(decision.c.dashboard)
    ).mappings()
    return (
        PlanRow(**{**row, "created_at": utc(row["created_at"])}),
        [DecisionRow(**item) for item in rows],
    )


def latest_revision(conn: Connection, source: str, run_id: str) -> int:
    """The newest revision of a run's plan; 0 when it has none."""
    query = sa.select(sa.func.max(plan.c.revision)).where(plan.c.source == source, plan.c.run_id == run_id)
    return conn.execute(query).scalar() or 0
