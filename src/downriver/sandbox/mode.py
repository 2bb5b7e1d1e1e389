"""Stand-in of Mode's API (base path `/api`), written from the vendor's documents, not from our connector.

Sources: Mode's Swagger document 0.0.1, mode.com/developer (authentication, error codes, report runs) and
live observations recorded by mode-sdk 0.1.0 and DataHub's test answers. Where they are silent:

* a refused run (archived report, manual runs disabled) is a 403 `forbidden`; what Mode does is unknown;
* a POST without `parameters` (and without `report`) is a 400 `param_missing`;
* `order=asc` reverses a list of runs.

What it does as Mode does: Basic auth; 202 for a run; every equal POST makes another run; lists newest
first, 30 a page at most, with HAL `next_page`; `?filter=` on runs answers 500; `?state=` is ignored; the
reason of a failure stands only under `query_runs`; no cancel; any unknown path or method is a 404
"request path not recognized"; about 40 requests per 10 s and user, then 429 with Retry-After.

Controls under `/_sandbox/mode/`: GET `runs` (all of them, oldest first; `?report=`), GET `reports`,
PUT `reports/<token>` (`mode_runs.ModeReport`), POST `reports/<token>/next` (`NextRuns`: one-shot shapes),
POST `runs/<token>/end` (`{"state": "succeeded"}`), POST `runs/<token>/purge`, GET and POST `settings`.
"""

from __future__ import annotations

import base64
import binascii
import time
from collections import deque
from collections.abc import Sequence
from html import escape
from urllib.parse import parse_qsl, urlencode

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from downriver.sandbox import mode_answers as answers
from downriver.sandbox.control import decoded, refusal
from downriver.sandbox.faults import AtLeastOne, FaultBoard
from downriver.sandbox.frontdoor import HTML_PAGE, Refused, RequestLog, reply
from downriver.sandbox.mode_runs import (
    REPORTS,
    Holder,
    ModeReport,
    ModeRun,
    ModeWorld,
    ShapeOrName,
    is_token,
    shape_of,
)

PAGE_CAP = 30
BODY_CAP = 1 << 20
"""Bytes; a longer request body is a 413 `payload_too_large`."""

_SLUGS = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    413: "payload_too_large",
    429: "rate_limited",
    500: "internal_server_error",
    503: "service_unavailable",
}


class ModeCredential(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An API token of the workspace (Basic auth: user `token`, password `secret`)."""

    token: str
    secret: str
    username: str = "api_user"
    """Who it acts as; the rate limit counts per user name."""
    may_run: bool = True
    """`False`: a token that may look but gets 403 for every run."""


class ModeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the Mode stand-in is set up."""

    workspace: str = "acme"
    credentials: tuple[ModeCredential, ...] = (
        ModeCredential(token="b0a7c0ffee42", secret="sandbox-mode-secret"),  # noqa: S106 - opens nothing real
        ModeCredential(
            token="100c0ffee042",  # noqa: S106
            secret="sandbox-look-only",  # noqa: S106
            username="looker_on",
            may_run=False,
        ),
    )
    reports: tuple[ModeReport, ...] = REPORTS
    auto_reports: bool = False
    """Any 12 hex digits are a report (benches)."""
    time_scale: float = 1.0
    """Multiplies every length of every run; 0 lets runs end at once."""
    rate_limit: int | None = 40
    """Requests per user in `rate_window` seconds; `None` switches the limit off."""
    rate_window: float = 10.0
    clock_skew: float = 0.0
    """Seconds Mode's clock is ahead of ours."""
    web: str | None = None
    """Address of Mode's web site for links; `None`: the stand-in's own, which serves a small page."""


class SettingsChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /_sandbox/mode/settings`; what is left out stays."""

    auto_reports: bool | msgspec.UnsetType = msgspec.UNSET
    time_scale: float | msgspec.UnsetType = msgspec.UNSET
    rate_limit: int | msgspec.UnsetType | None = msgspec.UNSET
    rate_window: float | msgspec.UnsetType = msgspec.UNSET
    clock_skew: float | msgspec.UnsetType = msgspec.UNSET


class NextRuns(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /_sandbox/mode/reports/<token>/next`: the next `times` runs take `shape`."""

    shape: ShapeOrName
    times: AtLeastOne = 1

    def __post_init__(self) -> None:
        shape_of(self.shape)


class EndRun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /_sandbox/mode/runs/<token>/end`."""

    state: str = "succeeded"


class ModeStandIn:
    """Mode's API in memory. `handle` answers the vendor's routes, `control` the sandbox's."""

    name = "mode"

    def __init__(self, settings: ModeSettings | None = None) -> None:
        self._initial = settings or ModeSettings()
        self.url = ""
        self.faults = FaultBoard()
        self.log = RequestLog()
        self._begin()

    def _begin(self) -> None:
        self.settings = self._initial
        self.world = ModeWorld(
            self.settings.reports,
            time_scale=self.settings.time_scale,
            auto_reports=self.settings.auto_reports,
            clock_skew=self.settings.clock_skew,
        )
        self._users = {
            base64.b64encode(f"{one.token}:{one.secret}".encode()).decode(): one for one in self.settings.credentials
        }
        self._spent: dict[str, deque[float]] = {}
        self._created = self.world.now()

    def reset(self) -> None:
        """Forget runs, requests, faults and changes; reports and settings as at the start."""
        self.faults.reset()
        self.log.reset()
        self._begin()

    async def stop(self) -> None:
        """Let requests held by a latency go."""
        self.faults.clear()

    def describe(self) -> dict[str, object]:
        """Address and credentials."""
        first = self.settings.credentials[0]
        return {
            "url": self.url,
            "workspace": self.settings.workspace,
            "token": first.token,
            "secret": first.secret,
        }

    def curl(self) -> tuple[str, ...]:
        """Example calls."""
        first = self.settings.credentials[0]
        user = f"curl -s -u {first.token}:{first.secret}"
        runs = f"{self.url}/api/{self.settings.workspace}/reports/{next(iter(self.world.holders))}/runs"
        return (
            f"{user} {self.url}/api/verify",
            f"{user} -H 'Content-Type: application/json' -d '{{\"parameters\": {{}}}}' {runs}",
            f"{user} {runs}",
        )

    def error_body(self, status: int) -> tuple[str, str]:
        """Mode's `{"id", "message"}`; a gateway's HTML for 502 and 504, which Mode itself never sends."""
        if status in (502, 504):
            return f"<html><body><h1>{status} Gateway trouble</h1></body></html>", "text/html"
        body = answers.error(_SLUGS.get(status, "internal_server_error"), f"status {status}, on purpose")
        return msgspec.json.encode(body).decode(), "application/json"

    # ------------------------------------------------------------------ the vendor's side

    async def handle(self, request: Request) -> Response:
        """Answer one request as Mode does: who are you, not too fast, then what do you want."""
        path: str = request.scope["path"]
        if not path.startswith("/api/"):
            return self._page(path)
        try:
            user = self._who(request)
            self._spend(user)
            response = await self._route(request, path, user)
        except Refused as refused:
            response = refused.response
        if self.settings.rate_limit is not None:
            response.headers["X-RateLimit-Limit"] = str(self.settings.rate_limit)
        return response

    async def _route(  # noqa: C901, PLR0911, PLR0912 - a route table
        self, request: Request, path: str, user: ModeCredential
    ) -> Response:
        workspace = self.settings.workspace
        match (request.method, *path.split("/")[2:]):
            case ("GET", "verify"):
                return _hal(answers.verify(workspace))
            case (_, named, *_) if named != workspace:
                raise _refuse(404, "account not found")
            case ("GET", _):
                return _hal(answers.account(workspace, self._created, 1))
            case ("GET", _, "reports", token):
                return _hal(self._report(self._find(token)))
            case ("POST", _, "reports", token, "runs"):
                return await self._run_report(request, self._find(token, "Report"), user)
            case ("GET", _, "reports", token, "runs"):
                return self._list_runs(request, self._find(token, "Report"), "report_runs")
            case ("GET", _, "reports", token, "runs", run):
                found = self._find_run(self._find(token, "Report"), run)
                return _hal(answers.report_run(workspace, found, self._web, self.world.now()))
            case ("GET", _, "reports", token, "runs", run, "query_runs"):
                found = self._find_run(self._find(token), run)
                return _hal(answers.query_runs(workspace, found, self.world.now()))
            case ("GET", _, "datasets", token):
                return _hal(self._report(self._find(token, "DatasetReport")))
            case ("POST", _, "datasets", token, "runs"):
                return self._run_dataset(self._find(token, "DatasetReport"), user)
            case ("GET", _, "datasets", token, "runs"):
                return self._list_runs(request, self._find(token, "DatasetReport"), "dataset_runs")
            case ("GET", _, "datasets", token, "runs", run):
                found = self._find_run(self._find(token, "DatasetReport"), run)
                return _hal(answers.dataset_run(workspace, found, self.world.now()))
            case ("GET", _, "spaces" | "collections" as word):
                return self._list_spaces(word)
            case ("GET", _, "spaces" | "collections" as word, space, "reports"):
                return self._list_reports(request, word, space)
        raise _refuse(404, "request path not recognized")

    def _who(self, request: Request) -> ModeCredential:
        scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
        user = self._users.get(encoded)
        if user is None and scheme.lower() == "basic":
            user = self._users.get(_canonical(encoded))
        if user is None or scheme.lower() != "basic":
            raise _refuse(401, "unauthorized: check the API token and secret")
        return user

    def _spend(self, user: ModeCredential) -> None:
        """Count the request against the user's sliding window; 429 when it is full."""
        limit, window = self.settings.rate_limit, self.settings.rate_window
        if limit is None:
            return
        now = time.monotonic()
        spent = self._spent.setdefault(user.username, deque())
        while spent and spent[0] <= now - window:
            spent.popleft()
        if len(spent) >= limit:
            wait = max(1, -int(-(spent[0] + window - now) // 1))
            raise _refuse(429, "rate limit exceeded", {"Retry-After": str(wait)})
        spent.append(now)

    @property
    def _web(self) -> str:
        return self.settings.web or self.url

    def _find(self, token: str, kind: str | None = None) -> Holder:
        holder = self.world.find(token)
        if holder is None or (kind is not None and holder.spec.type != kind):
            raise _refuse(404, "dataset not found" if kind == "DatasetReport" else "report not found")
        return holder

    def _find_run(self, holder: Holder, token: str) -> ModeRun:
        run = self.world.runs.get(token)
        if run is None or run.report is not holder:
            raise _refuse(404, "report run not found")
        if run.purge_started is not None:
            raise _refuse(404, "run results not found")
        return run

    def _report(self, holder: Holder) -> dict[str, object]:
        shown = answers.report(self.settings.workspace, holder, self._web, self.world.now())
        if holder.spec.type == "Report":
            found = [self.world.holders[token] for token in holder.spec.imports if token in self.world.holders]
            shown["imported_datasets"] = answers.imported_datasets(self.settings.workspace, holder.spec.token, found)
        return shown

    async def _run_report(self, request: Request, holder: Holder, user: ModeCredential) -> Response:
        """Both operations that share the path: 'run report' and 'refresh imported data sets'."""
        body = await _object(request)
        if not user.may_run:
            raise _refuse(403, "you do not have permission to run this report")
        if holder.spec.refuses:
            what = "it is archived" if holder.spec.archived else "manual runs are disabled"
            raise _refuse(403, f"this report cannot be run: {what}")
        refreshed: tuple[str, ...] = ()
        parameters: dict[str, object] = {}
        match body:
            case {"parameters": dict(given)}:
                parameters = given
            case {"report": {"dataset_tokens": list(wanted)}}:
                refreshed = _imported(holder, wanted)
            case {"parameters": _} | {"report": _}:
                raise _refuse(400, "parameters must be an object, dataset_tokens a list")
            case _:
                raise Refused(reply(answers.error("param_missing", "param is missing: parameters"), 400))
        run = self.world.start(holder, parameters, user.username, refreshed)
        workspace = self.settings.workspace
        shown = answers.report_run(workspace, run, self._web, run.created, state=run.shape.first)
        return _hal(shown, 202)

    def _run_dataset(self, holder: Holder, user: ModeCredential) -> Response:
        if not user.may_run:
            raise _refuse(403, "you do not have permission to run this dataset")
        run = self.world.start(holder, {}, user.username)
        shown = answers.dataset_run(self.settings.workspace, run, run.created, state=run.shape.first)
        return _hal(shown, 202)

    def _list_runs(self, request: Request, holder: Holder, key: str) -> Response:
        query = request.query_params
        if "filter" in query:  # documented, but seen to answer 500 every time
            raise _refuse(500, "internal server error")
        number, size = _page_of(request)
        runs = holder.runs if query.get("order") == "asc" else holder.runs[::-1]
        chosen = runs[(number - 1) * size : number * size]
        workspace, now = self.settings.workspace, self.world.now()
        if key == "report_runs":
            rows = [answers.report_run(workspace, run, self._web, now) for run in chosen]
        else:
            rows = [answers.dataset_run(workspace, run, now) for run in chosen]
        return _page(request, key, rows, len(runs))

    def _list_spaces(self, word: str) -> Response:
        workspace = self.settings.workspace
        return _hal(
            {
                "_links": {"self": answers.href(f"/api/{workspace}/{word}")},
                "_embedded": {"spaces": [answers.space(workspace, self._created)]},
            }
        )

    def _list_reports(self, request: Request, word: str, space: str) -> Response:
        if space != answers.SPACE:
            raise _refuse(404, f"{word.removesuffix('s')} not found")
        reports = [holder for holder in self.world.holders.values() if holder.spec.type == "Report"]
        number, size = _page_of(request)
        rows = [self._report(holder) for holder in reports[(number - 1) * size : number * size]]
        return _page(request, "reports", rows, len(reports))

    def _page(self, path: str) -> Response:
        """Mode's web site: a small page for a report or a run, so that links in a demo lead somewhere."""
        match path.strip("/").split("/"):
            case [workspace, "reports" | "datasets", token, *rest] if workspace == self.settings.workspace:
                holder = self.world.find(token)
                if holder is not None:
                    return Response(_report_page(holder, rest, self.world.now()), media_type="text/html")
        return Response(HTML_PAGE, 404, media_type="text/html")

    # ------------------------------------------------------------------ the sandbox's side

    async def control(  # noqa: PLR0911 - a route table
        self, request: Request, rest: tuple[str, ...]
    ) -> Response | None:
        """Answer the stand-in's own controls (listed in the module's docstring)."""
        match (request.method, *rest):
            case ("GET", "runs"):
                return reply(self.seen_runs(request.query_params.get("report")))
            case ("POST", "runs", token, "end"):
                run = self._controlled_run(token)
                self.world.end(run, (await decoded(request, EndRun)).state)
                return reply(self._seen(run))
            case ("POST", "runs", token, "purge"):
                run = self._controlled_run(token)
                run.purge_started = self.world.now()
                return reply(self._seen(run))
            case ("GET", "reports"):
                return reply([holder.spec for holder in self.world.holders.values()])
            case ("PUT", "reports", token):
                spec = await decoded(request, msgspec.Raw)
                return reply(self.put_report(_spec(token, bytes(spec))))
            case ("POST", "reports", token, "next"):
                wanted = await decoded(request, NextRuns)
                holder = self.world.find(token)
                if holder is None:
                    raise refusal(404, f"no report {token}")
                self.next_runs(token, wanted.shape, wanted.times)
                return reply({"queued": len(holder.next_shapes)})
            case ("GET", "settings"):
                return reply(self.settings)
            case ("POST", "settings"):
                self.change(await decoded(request, SettingsChange))
                return reply(self.settings)
        return None

    def put_report(self, spec: ModeReport) -> ModeReport:
        """Set a report up, or change one that is there (its runs stay)."""
        return self.world.put(spec).spec

    def next_runs(self, token: str, shape: ShapeOrName, times: int = 1) -> None:
        """One-shot: the next `times` runs of the report take `shape`. `KeyError` for an unknown report."""
        holder = self.world.find(token)
        if holder is None:
            raise KeyError(token)
        holder.next_shapes.extend([shape_of(shape)] * times)

    def change(self, change: SettingsChange) -> None:
        """Change settings while it runs; runs under way keep their shape."""
        given = {key: value for key, value in msgspec.structs.asdict(change).items() if value is not msgspec.UNSET}
        self.settings = msgspec.structs.replace(self.settings, **given)
        self.world.time_scale = self.settings.time_scale
        self.world.auto_reports = self.settings.auto_reports
        self.world.clock_skew = self.settings.clock_skew

    def seen_runs(self, report: str | None = None) -> list[dict[str, object]]:
        """Every run ever created here, oldest first: what an oracle compares a history with."""
        runs: Sequence[ModeRun] = list(self.world.runs.values())
        return [self._seen(run) for run in runs if report in (None, run.report.spec.token)]

    def _seen(self, run: ModeRun) -> dict[str, object]:
        now = self.world.now()
        return {
            "run": run.token,
            "report": run.report.spec.token,
            "type": run.report.spec.type,
            "parameters": run.parameters,
            "refreshed_datasets": run.refreshed_datasets,
            "state": run.state(now),
            "created_at": run.created,
            "ended_at": run.ended(now),
            "executed_by": run.executed_by,
            "purged": run.purge_started is not None,
        }

    def _controlled_run(self, token: str) -> ModeRun:
        run = self.world.runs.get(token)
        if run is None:
            raise refusal(404, f"no run {token}")
        return run


def _hal(payload: object, status: int = 200) -> Response:
    return reply(payload, status, media_type=answers.HAL)


def _refuse(status: int, message: str, headers: dict[str, str] | None = None) -> Refused:
    return Refused(reply(answers.error(_SLUGS[status], message), status, headers=headers))


def _canonical(encoded: str) -> str:
    """The usual spelling of Basic credentials given in an unusual one (padding, white space)."""
    try:
        return base64.b64encode(base64.b64decode(encoded.strip() + "==")).decode()
    except (binascii.Error, ValueError):
        return ""


async def _object(request: Request) -> dict[str, object]:
    """The JSON object in the body; `{}` when there is none or it is not declared as JSON (as Rails does)."""
    body = await request.body()
    if len(body) > BODY_CAP:
        raise _refuse(413, "payload too large")
    if not body or "json" not in request.headers.get("content-type", ""):
        return {}
    try:
        decoded_body = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise _refuse(400, "the body is not valid JSON") from None
    if not isinstance(decoded_body, dict):
        raise _refuse(400, "the body is not a JSON object")
    return decoded_body


def _imported(holder: Holder, wanted: list[object]) -> tuple[str, ...]:
    """The data sets a 'refresh imported data sets' names; they must be imported by the report."""
    tokens: list[str] = []
    for item in wanted:
        token = item.get("token") if isinstance(item, dict) else None
        if not isinstance(token, str) or token not in holder.spec.imports:
            raise _refuse(404, "dataset not found")
        tokens.append(token)
    return tuple(tokens)


def _page_of(request: Request) -> tuple[int, int]:
    """Page number and page size out of the query string; the size is capped without a word, as Mode does."""
    numbers: list[int] = []
    for name, default in (("page", 1), ("per_page", PAGE_CAP)):
        text = request.query_params.get(name, str(default))
        numbers.append(int(text) if text.isdecimal() and int(text) > 0 else default)
    return numbers[0], min(numbers[1], PAGE_CAP)


def _page(request: Request, key: str, rows: list[answers.Json], total: int) -> Response:
    number, size = _page_of(request)
    rest = [pair for pair in parse_qsl(request.scope["query_string"].decode()) if pair[0] not in ("page", "per_page")]
    pagination, links = answers.page(request.scope["path"], urlencode(rest), number, size, total)
    return _hal({"pagination": pagination, "_links": links, "_embedded": {key: rows}})


def _spec(token: str, body: bytes) -> ModeReport:
    """A report's set-up out of a control body; the token in the path is the one that counts."""
    if not is_token(token):
        raise refusal(400, f"a Mode token is 12 lowercase hex digits, not {token!r}")
    try:
        fields = msgspec.json.decode(body, type=dict[str, object])
        return msgspec.convert({**fields, "token": token}, ModeReport)
    except msgspec.DecodeError as error:
        raise refusal(400, str(error)) from error


def _report_page(holder: Holder, rest: list[str], now: float) -> str:
    holder.settle(now)
    success = holder.last_success
    as_of = answers.moment(success.ended(now)) if success else None
    chosen = rest[1] if rest[:1] == ["runs"] and len(rest) > 1 else None
    rows = "".join(
        f"<tr{' class=chosen' if run.token == chosen else ''}><td>{run.token}<td>{escape(run.state(now))}"
        f"<td>{answers.moment(run.created)}<td>{answers.moment(run.ended(now)) or ''}"
        for run in holder.runs[-20:][::-1]
    )
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(holder.spec.name)}</title>"
        "<style>body{font:16px sans-serif;margin:2rem}td,th{padding:.2rem 1rem;text-align:left}"
        ".chosen{background:#ffd}</style>"
        f"<h1>{escape(holder.spec.name)}</h1><p>Sandbox stand-in of Mode."
        f" Data as of: {as_of or 'never refreshed'}"
        f"<table><tr><th>run<th>state<th>started<th>ended{rows}</table></html>"
    )
