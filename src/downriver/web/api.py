"""The JSON API, `/api/v1`: what arrived, what was refreshed. Read-only; documented by its own OpenAPI file.

Lists come newest first and are paged by position: `next` of one page is `before` of the following one,
so rows that arrive meanwhile neither shift nor repeat anything. Every error is a problem document
(RFC 9457) with a short stable `code`.
"""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Security
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field

from downriver.core.errors import NotFound
from downriver.core.model import EventKind, RunStatus
from downriver.core.states import RefreshState
from downriver.store.events import EventRow, RejectionRow, list_events, list_rejections
from downriver.store.refreshes import HistoryRow, get_refresh, history_of, list_refreshes

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from downriver.core.model import Refresh
    from downriver.store.db import Store

_LARGEST: Final = 2**63 - 1
_NO_CONTROLS: Final = r"^[^\x00-\x1f]*$"


class _Out(BaseModel):
    model_config = ConfigDict(frozen=True, from_attributes=True)


class EventOut(_Out):
    """One verified delivery, stored as it came."""

    seq: int = Field(description="Position in the list of all events; grows with arrival.")
    source: str
    event_id: str = Field(description="The sender's id; a redelivery with the same one changes nothing.")
    kind: EventKind = Field(description="What it tells, in Downriver's words.")
    type: str = Field(description="What it tells, in the sender's word.")
    run_id: str | None = Field(description="The dbt run it is about. A string: run ids exceed 32 bits.")
    job_id: str | None
    job_name: str | None
    run_status: RunStatus | None
    received_at: datetime
    occurred_at: datetime | None = Field(description="The sender's own time of the event.")
    state: str = Field(description="`new`: waits to be worked; `done`: `note` says what came of it.")
    note: str | None
    plan_id: str | None = Field(description="The plan that was made for it.")
    replays: int = Field(description="How often a person had it worked again.")


class EventPage(_Out):
    """Some events, newest first."""

    events: list[EventOut]
    next: int | None = Field(description="`before` for the following page; null on the last one.")


class RejectionOut(_Out):
    """One delivery that was refused. Its body and headers were not kept."""

    seq: int
    source: str
    reason: str = Field(description="Short word: `signature_wrong`, `body_too_big`, `not_json`, …")
    detail: str = Field(description="The same as a sentence, with what to do.")
    status: int = Field(description="The HTTP status it was answered with.")
    size: int = Field(description="Bytes announced or read.")
    fingerprint: str = Field(description="First 16 hex digits of the body's SHA-256; empty if it was not read.")
    remote: str | None = Field(description="Who sent it, as far as the connection and a proxy tell.")
    received_at: datetime


class RejectionPage(_Out):
    """Some rejected deliveries, newest first."""

    rejected: list[RejectionOut]
    next: int | None = Field(description="`before` for the following page; null on the last one.")


class AssetOut(_Out):
    """What was to be refreshed in the BI tool."""

    connection: str
    key: str = Field(description="Identity within the connection.")
    kind: str
    ref: str
    parameters: dict[str, Any]
    title: str | None
    url: str | None


class TicketOut(_Out):
    """The tool's own run that the refresh follows."""

    id: str
    created_at: datetime | None
    url: str | None


class RefreshOut(_Out):
    """One durable attempt to make one asset fresh."""

    seq: int | None = Field(description="Position in the list of all refreshes; null when asked for by id.")
    id: str
    connection: str
    asset: AssetOut
    dashboards: list[str] = Field(description="The dashboards it serves.")
    state: RefreshState
    reason: str | None = Field(description="How it ended or why it waits, as a sentence.")
    attempts: int = Field(description="How often the tool was asked to begin.")
    source: str | None
    run_id: str | None
    plan_id: str | None
    created_at: datetime
    wanted_at: datetime = Field(description="The moment the data was new; an older result does not count.")
    due_at: datetime = Field(description="When it is looked after next, while it has not ended.")
    deadline_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    ticket: TicketOut | None
    url: str | None = Field(description="Link to the run in the BI tool.")


class RefreshPage(_Out):
    """Some refreshes, newest first."""

    refreshes: list[RefreshOut]
    next: int | None = Field(description="`before` for the following page; null on the last one.")


class StepOut(_Out):
    """One step in the life of a refresh."""

    at: datetime
    from_state: RefreshState | None
    to_state: RefreshState
    epoch: int = Field(description="Which take-over of the connection's mailbox made the step.")
    note: str


class RefreshDetail(RefreshOut):
    """A refresh with everything that happened to it, oldest first."""

    history: list[StepOut]


class Problem(_Out):
    """An error, as RFC 9457 has it."""

    type: str
    title: str
    status: int
    code: str = Field(description="Short stable word.")
    detail: str = Field(description="A sentence: what happened, what to do.")


_bearer: Final = HTTPBearer(
    auto_error=False,
    description="The value of DOWNRIVER_API_TOKEN. Callers on the same machine need none.",
)
Before = Annotated[
    int | None, Query(ge=1, le=_LARGEST, description="Only what is older than this position: `next` of a page.")
]
Limit = Annotated[int, Query(ge=1, le=500, description="How many at most.")]


def api_router(store: Store) -> APIRouter:
    """The routes of `/api/v1`. Who may call them is decided in front (`web.auth.ApiGuard`)."""
    router = APIRouter(
        prefix="/api/v1",
        dependencies=[Security(_bearer)],  # for the OpenAPI file
        responses={code: {"model": Problem} for code in (401, 422, 503)},
    )

    @router.get("/events", summary="What arrived")
    async def events(limit: Limit = 50, before: Before = None) -> EventPage:
        rows = await store.read(partial(list_events, limit=limit + 1, before=before))
        return EventPage(events=[_event(row) for row in rows[:limit]], next=_next(rows, limit))

    @router.get("/rejected", summary="What was refused at the door")
    async def rejected(limit: Limit = 50, before: Before = None) -> RejectionPage:
        rows = await store.read(partial(list_rejections, limit=limit + 1, before=before))
        return RejectionPage(rejected=[_rejection(row) for row in rows[:limit]], next=_next(rows, limit))

    @router.get("/refreshes", summary="What was refreshed")
    async def refreshes(
        limit: Limit = 50,
        before: Before = None,
        dashboard: Annotated[str | None, Query(pattern=_NO_CONTROLS, description="Only this dashboard's.")] = None,
        state: Annotated[list[RefreshState] | None, Query(description="Only those in these states.")] = None,
    ) -> RefreshPage:
        rows = await store.read(
            partial(list_refreshes, limit=limit + 1, before=before, dashboard=dashboard, states=state or ())
        )
        found = [RefreshOut(**_refresh(row.refresh, row.seq)) for row in rows[:limit]]
        return RefreshPage(refreshes=found, next=_next(rows, limit))

    @router.get("/refreshes/{refresh_id}", summary="One refresh and its history", responses={404: {"model": Problem}})
    async def refresh(refresh_id: Annotated[str, Path(pattern=_NO_CONTROLS)]) -> RefreshDetail:
        found, steps = await store.read(partial(_with_history, refresh_id=refresh_id))
        if found is None:
            raise NotFound(f"There is no refresh with the id {refresh_id}; `/api/v1/refreshes` lists them.")
        return RefreshDetail(**_refresh(found, None), history=[StepOut.model_validate(step) for step in steps])

    return router


def _with_history(conn: Connection, *, refresh_id: str) -> tuple[Refresh | None, list[HistoryRow]]:
    return get_refresh(conn, refresh_id), history_of(conn, refresh_id)


def _next(rows: list[Any], limit: int) -> int | None:
    """One row more than shown was asked for: if it came, there is a further page."""
    return rows[limit - 1].seq if len(rows) > limit else None


def _event(row: EventRow) -> EventOut:
    return EventOut.model_validate(row)


def _rejection(row: RejectionRow) -> RejectionOut:
    return RejectionOut.model_validate(row)


def _refresh(item: Refresh, seq: int | None) -> dict[str, Any]:
    return {
        "seq": seq,
        "id": item.id,
        "connection": item.connection,
        "asset": AssetOut.model_validate(item.asset),
        "dashboards": list(item.dashboards),
        "state": item.state,
        "reason": item.reason,
        "attempts": item.attempts,
        "source": item.source,
        "run_id": item.run_id,
        "plan_id": item.plan_id,
        "created_at": item.created_at,
        "wanted_at": item.wanted_at,
        "due_at": item.due_at,
        "deadline_at": item.deadline_at,
        "started_at": item.started_at,
        "ended_at": item.ended_at,
        "ticket": None if item.ticket is None else TicketOut.model_validate(item.ticket),
        "url": item.url,
    }
