"""The vendor's side of the dbt platform stand-in: Admin API v2 and the webhook endpoints of API v3.

Written from docs.getdbt.com and the public OpenAPI documents of API v2 and v3 (facts on dbt, sections 1
and 2), not from our source code. Where they are silent:

* a token of another account sees 404 for this one; a token without the right permission 403;
* a list's `limit` above 100 is taken as 100; a path with the wrong trailing slash is a 404;
* list values in a query may be written `[10,20]`, `10,20` or repeated; all three are read;
* 429 carries no Retry-After (documented only for SCIM) and lasts five minutes.
"""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from downriver.sandbox.dbt_account import ApiToken, DbtAccount
from downriver.sandbox.dbt_runs import Content, Json, Run, job_json, run_json
from downriver.sandbox.dbt_webhooks import EventType, Subscription
from downriver.sandbox.frontdoor import Refused, reply

LIST_CAP = 100
"""Rows of one page of a list at most."""
ACCOUNT = "act_2nWbPIip7ZSandboxAccount"
GONE = "The requested resource was not found"
FORBIDDEN = "You do not have permission to perform this action"
T = TypeVar("T")


class SubscriptionBody(msgspec.Struct, frozen=True, kw_only=True):
    """Request body of create and update, as the OpenAPI document requires it; other keys are ignored."""

    active: bool
    client_url: str
    event_types: tuple[EventType, ...]
    name: str
    description: str = ""
    job_ids: tuple[int | str, ...] = ()

    def __post_init__(self) -> None:
        if not self.event_types:
            raise ValueError("event_types must not be empty")
        if not self.client_url.startswith(("http://", "https://")):
            raise ValueError("client_url must be an http or https URL")

    @property
    def jobs(self) -> tuple[int, ...]:
        return tuple(int(job) for job in self.job_ids)


class DbtApi:
    """Answers the platform's API over one account."""

    def __init__(self, account: DbtAccount) -> None:
        self.account = account
        self.url = ""
        self.cool()

    def cool(self) -> None:
        """Forget the requests counted against the rate limit, and any cool-down."""
        self._window_began = 0.0
        self._in_window = 0
        self._cold_until = 0.0

    async def handle(self, request: Request) -> Response:
        """Answer one request of Admin API v2 or of the v3 webhook endpoints."""
        try:
            self._spend()
            return await self._route(request, self._who(request))
        except Refused as refused:
            return refused.response

    async def _route(self, request: Request, token: ApiToken) -> Response:
        match request.scope["path"].split("/")[1:]:
            case ["api", "v2" | "v3", "accounts", ""] if request.method == "GET":
                return _data([self._account()])
            case ["api", "v2" | "v3" as version, "accounts", account, *rest]:
                if account != str(self.account.settings.account_id):
                    raise _refuse(404, GONE)
                if version == "v3" and rest[:1] == ["webhooks"]:
                    return await self._route_webhooks(request, token, rest[1:])
                if not token.may_read_runs:
                    raise _refuse(403, FORBIDDEN)
                if version == "v2" and request.method == "GET":
                    return self._route_runs(request, rest)
        raise _refuse(404, GONE)

    def _route_runs(self, request: Request, rest: list[str]) -> Response:
        match rest:
            case [""]:
                return _data(self._account())
            case ["jobs", ""]:
                jobs = [job_json(job, self.account.settings.account_id) for job in self.account.jobs.values()]
                return _listed(request, jobs, "id", lambda job: job)
            case ["jobs", job, ""] if job.isdecimal() and int(job) in self.account.jobs:
                return _data(job_json(self.account.jobs[int(job)], self.account.settings.account_id))
            case ["jobs", job, "artifacts", *path] if path and path[-1]:
                return self._job_artifact(request, job, "/".join(path))
            case ["runs", ""]:
                return self._list_runs(request)
            case ["runs", run, ""]:
                return _data(self._run_json(self._find_run(run), _related(request)))
            case ["runs", run, "artifacts", ""]:
                return self._list_artifacts(request, self._find_run(run))
            case ["runs", run, "artifacts", *path] if path and path[-1]:
                return self._run_artifact(request, self._find_run(run), "/".join(path))
        raise _refuse(404, GONE)

    async def _route_webhooks(self, request: Request, token: ApiToken, rest: list[str]) -> Response:
        allowed = token.may_read_webhooks if request.method == "GET" else token.may_write_webhooks
        if not allowed:
            raise _refuse(403, FORBIDDEN)
        match (request.method, *rest):
            case ("GET", "subscriptions"):
                rows = [self._subscription(one) for one in self.account.webhooks.subscriptions.values()]
                return _webhook_page(request, rows)
            case ("POST", "subscriptions"):
                return self._create_subscription(await _body(request))
            case ("GET", "subscription", one):
                return _webhook(self._subscription(self._find_subscription(one)))
            case ("PUT", "subscription", one):
                return self._update_subscription(self._find_subscription(one), await _body(request))
            case ("DELETE", "subscription", one):
                gone = self.account.webhooks.subscriptions.pop(self._find_subscription(one).id)
                return reply({"data": {"id": gone.id}, "status": {"code": 200, "is_success": True}})
            case ("GET", "subscription", one, "test"):
                return await self._test_subscription(self._find_subscription(one))
            case ("GET", "subscription", one, "events"):
                return self._events(request, self._find_subscription(one))
            case ("GET", "subscription", one, "event", event, "receipt"):
                return self._receipts(self._find_subscription(one), event)
        raise _refuse(404, GONE)

    def _spend(self) -> None:
        limit = self.account.settings.rate_limit
        if limit is None:
            return
        now = time.monotonic()
        if now >= self._window_began + 60:
            self._window_began, self._in_window = now, 0
        self._in_window += 1
        if self._in_window > limit:
            self._cold_until = max(self._cold_until, now + self.account.settings.cool_down)
        if now < self._cold_until:
            raise _refuse(429, "Too many requests")

    def _who(self, request: Request) -> ApiToken:
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        if scheme in ("Token", "Bearer"):
            for token in self.account.settings.tokens:
                if token.value == value.strip():
                    return token
        raise _refuse(401, "Invalid token.")

    def _account(self) -> Json:
        return {
            "id": self.account.settings.account_id,
            "name": "Sandbox",
            "identifier": ACCOUNT,
            "state": 1,
            "plan": "enterprise",
        }

    def _find_run(self, text: str) -> Run:
        run = self.account.runs.get(int(text)) if text.isdecimal() else None
        if run is None:
            raise _refuse(404, GONE)
        return run

    def _run_json(self, run: Run, related: frozenset[str]) -> Json:
        shown = run_json(run, self.account.settings.account_id, self.url, related)
        if not self.account.settings.step_commands:
            steps = shown["run_steps"]
            assert isinstance(steps, list)
            for step in steps:
                step["run_step_command"] = None
        return shown

    def _list_runs(self, request: Request) -> Response:
        related = _related(request)
        rows = [run for run in self.account.runs.values() if _wanted(request, run)]
        order = request.query_params.get("order_by", "id")
        field = order.removeprefix("-")
        if field not in ("id", "created_at", "finished_at"):
            raise _refuse(400, f"Invalid order_by: {order}")
        attribute = {"id": "id", "created_at": "created", "finished_at": "finished"}[field]
        rows.sort(key=lambda run: (getattr(run, attribute) or float("inf"), run.id), reverse=order.startswith("-"))
        return _listed(request, rows, order, lambda run: self._run_json(run, related))

    def _list_artifacts(self, request: Request, run: Run) -> Response:
        step = _step(request)
        chosen = [one for one in run.steps if one.index == step] if step is not None else run.steps[-1:]
        ready = run.artifacts_ready is not None and run.artifacts_ready <= time.time()
        if not ready or not chosen or not chosen[0].files:
            raise _refuse(404, "No artifacts were found for this run")
        return _data(sorted(chosen[0].files))

    def _run_artifact(self, request: Request, run: Run, path: str) -> Response:
        content = run.file(path, _step(request), time.time())
        if content is None:
            raise _refuse(404, "The requested artifact was not found")
        return self._served(request, path, content)

    def _job_artifact(self, request: Request, job: str, path: str) -> Response:
        step, now = _step(request), time.time()
        for run in sorted(self.account.runs.values(), key=lambda one: one.id, reverse=True):
            if str(run.job.id) == job and (content := run.file(path, step, now)) is not None:
                return self._served(request, path, content)
        raise _refuse(404, "The requested artifact was not found")

    def _served(self, request: Request, path: str, content: Content) -> Response:
        media_type = "application/json" if path.endswith(".json") else "application/octet-stream"
        if path.endswith(".parquet"):
            media_type = "application/x-parquet"
        if self.account.settings.gzip_artifacts and "gzip" in request.headers.get("accept-encoding", ""):
            raw = content.read_bytes() if isinstance(content, Path) else content
            packed = gzip.compress(raw, compresslevel=1)
            return Response(packed, headers={"Content-Encoding": "gzip"}, media_type=media_type)
        if isinstance(content, Path):
            return FileResponse(content, media_type=media_type)
        return Response(content, media_type=media_type)

    # ------------------------------------------------------------------ subscriptions

    def _find_subscription(self, subscription_id: str) -> Subscription:
        one = self.account.webhooks.subscriptions.get(subscription_id)
        if one is None:
            raise Refused(reply({"data": None, "status": {"code": 404, "user_message": "Not found"}}, 404))
        return one

    def _subscription(self, one: Subscription) -> Json:
        jobs: list[object] = [*one.job_ids]
        if self.account.settings.job_ids_as == "strings":
            jobs = [str(job) for job in one.job_ids]
        shown: Json = {
            "id": one.id,
            "account_identifier": ACCOUNT,
            "name": one.name,
            "description": one.description,
            "job_ids": jobs,
            "event_types": list(one.event_types),
            "client_url": one.client_url,
            "active": one.active,
            "created_at": _micros(one.created),
            "updated_at": _micros(one.updated),
            "account_id": str(self.account.settings.account_id),
            "http_status_code": str(one.last_status),
        }
        if one.dispatched is not None:
            shown["dispatched_at"] = _micros(one.dispatched)
        if one.deactivate_reason:
            shown["deactivate_reason"] = one.deactivate_reason
        return shown

    def _create_subscription(self, body: SubscriptionBody) -> Response:
        made = self.account.webhooks.subscribe(
            name=body.name,
            client_url=body.client_url,
            event_types=body.event_types,
            job_ids=body.jobs,
            description=body.description,
            active=body.active,
        )
        return _webhook({**self._subscription(made), "hmac_secret": made.secret}, 201)

    def _update_subscription(self, one: Subscription, body: SubscriptionBody) -> Response:
        """Changing the URL of a switched-off hook switches it on again, whatever `active` says."""
        woken = not one.active and body.client_url != one.client_url
        one.name, one.description, one.client_url = body.name, body.description, body.client_url
        one.event_types, one.job_ids = body.event_types, body.jobs
        one.active = body.active or woken
        one.updated = time.time()
        if one.active:
            one.deactivate_reason, one.failures_in_a_row, one.failing_since = "", 0, None
        return _webhook(self._subscription(one))

    async def _test_subscription(self, one: Subscription) -> Response:
        attempt = await self.account.webhooks.test(one)
        if self.account.settings.test_answer == "openapi":
            return _webhook({"event_id": "wev_2L6Z3l8uPedXKPq9D2nWbPIip7Z"})
        error = attempt.error or None
        return _webhook({"verification_error": error, "verification_status_code": str(attempt.status)})

    def _events(self, request: Request, one: Subscription) -> Response:
        rows: list[Json] = [
            {
                "id": delivery.event_id,
                "subscription_id": one.id,
                "account_identifier": ACCOUNT,
                "job_id": str(delivery.job_id),
                "trigger_event_type": delivery.event_type,
                "payload": delivery.body.decode(),
                "http_status_code": str(delivery.status),
                "account_id": str(self.account.settings.account_id),
            }
            for delivery in self.account.webhooks.events(one.id)
            if delivery.state != "dropped"
        ]
        return _webhook_page(request, rows)

    def _receipts(self, one: Subscription, event_id: str) -> Response:
        rows = [
            {
                "id": f"wre_{event_id[4:]}{number}",
                "event_id": event_id,
                "subscription_id": one.id,
                "dispatched_at": _micros(attempt.at),
                "http_status_code": str(attempt.status),
                "error_info": attempt.error,
                "request_body": delivery.body.decode(),
                "request_headers": '{"Content-Type":"application/json"}',
                "response_body": attempt.response_body,
            }
            for delivery in self.account.webhooks.deliveries
            if delivery.event_id == event_id and delivery.subscription is one
            for number, attempt in enumerate(delivery.attempts)
        ]
        return _webhook(rows)


def _envelope(status: int, message: str, developer: str = "") -> Json:
    return {
        "status": {
            "code": status,
            "is_success": False,
            "user_message": message,
            "developer_message": developer,
        },
        "data": None,
    }


def error_body(status: int) -> tuple[str, str]:
    """The platform's envelope; a gateway's HTML for 502 and 504."""
    if status in (502, 504):
        return f"<html><body><h1>{status} Gateway trouble</h1></body></html>", "text/html"
    return msgspec.json.encode(_envelope(status, f"status {status}, on purpose")).decode(), "application/json"


def _refuse(status: int, message: str, developer: str = "") -> Refused:
    return Refused(reply(_envelope(status, message, developer), status))


def _ok() -> Json:
    return {"code": 200, "is_success": True, "user_message": "Success!", "developer_message": ""}


def _data(data: object) -> Response:
    return reply({"status": _ok(), "data": data})


def _webhook(data: object, status: int = 200) -> Response:
    return reply({"data": data, "status": {"code": status}}, status)


def _whole(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, str(default))
    if not text.isdecimal():
        raise _refuse(400, f"{name} must be a whole number")
    return int(text)


def _listed(request: Request, rows: list[T], order: str, show: Callable[[T], object]) -> Response:
    limit = min(_whole(request, "limit", LIST_CAP), LIST_CAP)
    offset = _whole(request, "offset", 0)
    chosen = rows[offset : offset + limit]
    filters = {
        key: value for key, value in request.query_params.items() if key not in ("order_by", "include_related")
    }
    extra = {
        "filters": {**filters, "limit": limit, "offset": offset},
        "order_by": order,
        "pagination": {"count": len(chosen), "total_count": len(rows)},
    }
    return reply({"status": _ok(), "data": [show(row) for row in chosen], "extra": extra})


def _webhook_page(request: Request, rows: list[Json]) -> Response:
    limit, offset = _whole(request, "limit", 10), _whole(request, "offset", 0)
    chosen = rows[offset : offset + limit]
    extra = {
        "pagination": {"total_count": len(rows), "count": len(chosen)},
        "filters": {"offset": offset, "limit": limit},
    }
    return reply({"data": chosen, "status": {"code": 200}, "extra": extra})


def _micros(at: float) -> str:
    """Times of webhook objects are strings of microseconds since the epoch."""
    return str(int(at * 1_000_000))


async def _body(request: Request) -> SubscriptionBody:
    try:
        return msgspec.json.decode(await request.body(), type=SubscriptionBody)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _refuse(400, "Invalid request body", str(error)) from None


def _many(request: Request, name: str) -> list[str] | None:
    """A list in the query string: `[a,b]`, `a,b`, or the name repeated; `None` when it is not there."""
    given = request.query_params.getlist(name)
    if not given:
        return None
    items = [item for text in given for item in text.strip().removeprefix("[").removesuffix("]").split(",")]
    return [item.strip().strip("\"'") for item in items if item.strip()]


def _related(request: Request) -> frozenset[str]:
    return frozenset(_many(request, "include_related") or ())


def _step(request: Request) -> int | None:
    return _whole(request, "step", 0) if "step" in request.query_params else None


def _wanted(request: Request, run: Run) -> bool:
    """Whether a run passes the filters of the runs list."""
    numbers: dict[str, int] = {
        "job_definition_id": run.job.id,
        "project_id": run.job.project_id,
        "environment_id": run.job.environment_id,
        "status": run.status,
        "pk": run.id,
    }
    for name, value in numbers.items():
        for key in (name, f"{name}__in"):
            wanted = _many(request, key)
            if wanted is not None and str(value) not in wanted:
                return False
    if "id__gt" in request.query_params and run.id <= _whole(request, "id__gt", 0):
        return False
    for name, at in (("created_at__range", run.created), ("finished_at__range", run.finished)):
        wanted = _many(request, name)
        if wanted is not None and not _within(wanted, at):
            return False
    return True


def _within(limits: Iterable[str], at: float | None) -> bool:
    try:
        first, last = (datetime.fromisoformat(text) for text in limits)
    except ValueError:
        raise _refuse(400, "a range wants two ISO 8601 times") from None
    if at is None:
        return False
    moments = [one if one.tzinfo else one.replace(tzinfo=UTC) for one in (first, last)]
    return moments[0].timestamp() <= at <= moments[1].timestamp()
