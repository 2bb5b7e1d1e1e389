"""Mode: refreshes a report by running it, and follows the run to its end.

Vendor pages, as the fact sheet read them in August and September 2026 (facts/bi-core.md §2, sources M1–M9):
  runs            https://mode.com/developer/api-reference/analytics/report-runs
  authentication  https://mode.com/developer/api-reference/authentication
  errors, limits  https://mode.com/developer/api-reference/error-codes, https://mode.com/help/articles/api-reference
  Swagger 0.0.1   trimmed in tests/specs/mode/

What is not in those pages and was seen live by others: `?filter=` on the list of runs answers 500, so the
list is cut here; `completed` is how a run with a notebook succeeds; a 422 may carry an object as `message`;
a page of runs may have no `report_runs` at all. Quirks for users: docs/connectors/mode.md.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeVar
from urllib.parse import SplitResult, parse_qsl, urlsplit

import msgspec
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from downriver.connectors.base import AssetStatus, ConnectorSpec, Identity, Limits, Shape
from downriver.connectors.fields import JsonParameters, SecretWord, SiteAddress
from downriver.connectors.http import Dialect, HttpClient, Refusal
from downriver.connectors.redaction import cut, without_sql
from downriver.core.errors import CallError, InDoubt, Permanent, Unsupported
from downriver.core.model import Asset, Json, Outcome, StillRunning, Ticket, canonical_json
from downriver.core.states import RefreshState

T = TypeVar("T", bound=BaseModel)

BASE_URL: Final = "https://app.mode.com"
HOSTS: Final = frozenset({"app.mode.com", "mode.com", "www.mode.com", "modeanalytics.com", "www.modeanalytics.com"})
RUNNING: Final = frozenset({"pending", "enqueued", "running_notebook"})
ENDED: Final[Mapping[str, RefreshState]] = {
    "succeeded": RefreshState.SUCCEEDED,
    "completed": RefreshState.SUCCEEDED,
    "failed": RefreshState.FAILED,
    "cancelled": RefreshState.CANCELLED,
}
PAGE_SIZE: Final = 30
"""The vendor caps a page of runs at this, silently."""
PAGES: Final = 20
"""Pages of runs read at most: 600 runs of one report within the window is more than can be ours."""

_TOKEN: Final = re.compile(r"[0-9a-f]{12}")
_WORKSPACE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_NAMED_BY: Final = (
    "a report is named by its 12-character token (9d2da37fa91e) or by its address "
    "(https://app.mode.com/<workspace>/reports/<token>)"
)


# ---------------------------------------------------------------------- configuration


class ModeConfig(BaseModel):
    """A connection's own keys in downriver.yml."""

    # An error must not print what was put in: it may be a secret in the wrong place.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    workspace: str = Field(description="The workspace's name as it stands in its address, after app.mode.com/")
    token: SecretWord = Field(description="API token (better a workspace's than a member's)")
    secret: SecretWord = Field(description="The API token's secret")
    base_url: SiteAddress = Field(BASE_URL, description="Where the API is: for tests and gateways")

    @field_validator("workspace")
    @classmethod
    def _workspace(cls, value: str) -> str:
        if not _WORKSPACE.fullmatch(value):
            raise ValueError("is the name that follows app.mode.com/ in the address, such as acme, and nothing else")
        return value

    @field_validator("token")
    @classmethod
    def _token(cls, value: SecretStr) -> SecretStr:
        if ":" in value.get_secret_value():
            raise ValueError("holds a colon: give the token here and its secret under secret:")
        return value

    @field_validator("base_url")
    @classmethod
    def _base_url(cls, value: str) -> str:
        return value.removesuffix("/api")  # the vendor's pages give the address with it


class ModeAsset(BaseModel):
    """What a dashboard of this kind adds in downriver.yml."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    report: str = Field(description="The report's token, or its address in the browser")
    parameters: JsonParameters = Field(
        default_factory=dict, description="Values for the report's own parameters, by their names"
    )

    @field_validator("report", mode="before")
    @classmethod
    def _report(cls, value: object) -> object:
        if isinstance(value, int | float):
            # 12 digits, or digits around one "e", are a number to YAML: zeros are lost, 12e345678901 is infinite.
            raise ValueError('is read as a number by YAML: put the token in quotes, as in "120456789012"')  # noqa: TRY004 - pydantic wants it
        if isinstance(value, str):
            _named(value)
        return value


@dataclass(frozen=True, slots=True)
class _Named:
    """What a reference names. `address` is None when only a token was given."""

    token: str
    workspace: str | None = None
    address: SplitResult | None = None


def _named(reference: str) -> _Named:
    """Read a token or any address of a report (facts/bi-core.md §2.2). `ValueError` with a sentence otherwise."""
    text = reference.strip()
    if _TOKEN.fullmatch(text):
        return _Named(text)
    address = _address(text)
    match [part for part in address.path.split("/") if part]:
        case ["editor" | "api", workspace, "reports", token, *_]:
            pass
        case [workspace, "reports", token, *_]:
            pass
        case [workspace, "spaces" | "collections", _, "reports", token, *_]:
            pass
        case [_, "datasets", *_] | ["editor" | "api", _, "datasets", *_]:
            raise ValueError("this address names a dataset: name a report that shows it")
        case _:
            raise ValueError(f"the address {address.hostname}{cut(address.path, 80)} names no report: {_NAMED_BY}")
    if not _TOKEN.fullmatch(token):
        raise ValueError(f"{cut(token, 40)!r} in the address is no report token (12 characters of 0-9 and a-f)")
    return _Named(token, workspace, address)


def _address(text: str) -> SplitResult:
    if "/" not in text:
        raise ValueError(f"{cut(text, 60)!r} is no report: {_NAMED_BY}")
    try:
        address = urlsplit(text)
        host, _ = address.hostname, address.port
    except ValueError:
        host = None
    if host and address.username is not None:
        raise ValueError("this address carries a user name or password: leave them out")
    if not host or address.scheme not in ("https", "http"):
        raise ValueError(f"{cut(text, 80)!r} is no web address beginning with https:// : {_NAMED_BY}")
    return address


def _assets(connection: str, config: BaseModel, asset: BaseModel) -> tuple[Asset, ...]:
    """The one report that a dashboard names. `ValueError` when its address is of another site or workspace."""
    ours, wanted = _of(ModeConfig, config), _of(ModeAsset, asset)
    named = _named(wanted.report)
    site = ours.base_url
    if named.address is not None:
        base = urlsplit(ours.base_url)
        known_host = named.address.hostname in HOSTS and named.address.port in (None, 80, 443)
        if not known_host and named.address.netloc != base.netloc:
            raise ValueError(
                f"the address is of {named.address.netloc}, which is neither Mode nor the base_url of "
                f'connection "{connection}"'
            )
        if (named.workspace or "").casefold() != ours.workspace.casefold():
            raise ValueError(
                f'the address names workspace "{named.workspace}", but connection "{connection}" is for '
                f'"{ours.workspace}": use a connection for that workspace'
            )
        if known_host:
            site = BASE_URL
    return (
        Asset(
            connection=connection,
            kind="report",
            ref=named.token,
            parameters=dict(wanted.parameters),
            url=f"{site}/{ours.workspace}/reports/{named.token}",
        ),
    )


def _auth(config: BaseModel) -> Mapping[str, str]:
    ours = _of(ModeConfig, config)
    pair = f"{ours.token.get_secret_value()}:{ours.secret.get_secret_value()}"
    return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


# ---------------------------------------------------------------------- what the vendor answers


class _Who(msgspec.Struct):
    workspace: str
    api_key_scope: Json = None


class _Report(msgspec.Struct):
    token: str
    name: Json = None
    type: Json = None
    archived: Json = None
    manual_run_disabled: Json = None
    last_successfully_run_at: Json = None
    imported_datasets: Json = None
    schedules_count: Json = None


class _Run(msgspec.Struct):
    token: str
    state: str
    created_at: Json = None
    completed_at: Json = None
    parameters: Json = None
    python_state: Json = None
    links: Json = msgspec.field(name="_links", default=None)


class _RunsEmbedded(msgspec.Struct):
    report_runs: list[_Run] = []


class _Runs(msgspec.Struct):
    embedded: _RunsEmbedded = msgspec.field(name="_embedded")
    links: Json = msgspec.field(name="_links", default=None)
    pagination: Json = None


class _QueryRun(msgspec.Struct):
    state: Json = None
    query_name: Json = None
    error_code: Json = None
    error_type: Json = None
    error_message: Json = None
    raw_source: Json = None
    rendered_source: Json = None


class _QueryRunsEmbedded(msgspec.Struct):
    query_runs: list[_QueryRun] = []


class _QueryRuns(msgspec.Struct):
    embedded: _QueryRunsEmbedded = msgspec.field(name="_embedded")


def _href(links: Json, name: str) -> str | None:
    link = links.get(name) if isinstance(links, dict) else None
    href = link.get("href") if isinstance(link, dict) else None
    return href if isinstance(href, str) and href else None


def _time(value: Json) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)


def _is_true(value: Json) -> bool:
    """The vendor's document types booleans as strings, its server sends booleans."""
    return value is True or value == "true"


def _count(value: Json) -> int:
    return int(value) if isinstance(value, int) or (isinstance(value, str) and value.isdecimal()) else 0


# ---------------------------------------------------------------------- the connector


class ModeConnector:
    """One Mode workspace. See `connectors.base.Connector` for the verbs."""

    def __init__(self, config: ModeConfig, client: HttpClient) -> None:
        self._config = config
        self._client = client
        self._reports = f"/api/{config.workspace}/reports"
        self._me: str | None = None
        """Our own user's link, once a run of ours has shown it."""

    async def check(self) -> Identity:
        """Who the API token is; `Permanent` when it belongs to another workspace."""
        who = await self._client.get_json("/api/verify", what="check the API token", shape=_Who)
        if who.workspace.casefold() != self._config.workspace.casefold():
            raise Permanent(
                f'The API token belongs to Mode workspace "{who.workspace}", but the connection says '
                f'"{self._config.workspace}": change workspace:, or use a token of that workspace.'
            )
        scope = f"{who.api_key_scope} API token" if isinstance(who.api_key_scope, str) else "API token"
        return Identity(who=f"{scope} of workspace {who.workspace}", scope=who.workspace)

    async def inspect(self, asset: Asset) -> AssetStatus:
        """The report's name, and whether anything stands against running it."""
        try:
            report = await self._client.get_json(
                f"{self._reports}/{asset.ref}", what=f"read report {asset.ref}", shape=_Report
            )
        except Permanent as error:
            if error.status not in (403, 404, 410):
                raise
            return AssetStatus(title=asset.title or asset.ref, url=asset.url, problem=str(error))
        return AssetStatus(
            title=report.name if isinstance(report.name, str) and report.name else asset.ref,
            url=asset.url,
            problem=_problem(report),
            last_refreshed_at=_time(report.last_successfully_run_at),
            notes=_notes(report),
        )

    async def trigger(self, asset: Asset) -> Ticket:
        """Run the report. An answer without a run's token is in doubt: the run may exist."""
        refused: Permanent
        try:
            run = await self._client.post_json(
                f"{self._reports}/{asset.ref}/runs",
                {"parameters": dict(asset.parameters)},
                what=f"run report {asset.ref}",
                shape=_Run,
            )
        except Permanent as error:
            refused = error
        else:
            self._me = _href(run.links, "executed_by") or self._me
            return self._ticket(run)
        # What the vendor answers for an archived or locked report is not documented: ask the report.
        if refused.status in (400, 403, 409, 422):
            problem = await self._why_not(asset)
            if problem:
                words = f"Could not run report {asset.ref}: {problem}"
                raise Permanent(words, status=refused.status, code=refused.code, detail=refused.detail)
        raise refused

    async def look(self, asset: Asset, ticket: Ticket) -> StillRunning | Outcome:
        """Where the run is. A failed run's reason costs a second request."""
        run = await self._client.get_json(
            self._run_path(asset, ticket.id), what=f"read run {ticket.id} of report {asset.ref}", shape=_Run
        )
        ended = ENDED.get(run.state)
        if ended is None:
            return StillRunning(run.state, known=run.state in RUNNING)
        match ended:
            case RefreshState.SUCCEEDED:
                reason = "Mode finished the run."
            case RefreshState.CANCELLED:
                reason = "The run was cancelled in Mode."
            case _:
                reason = await self._failure(asset, run)
        url = self._web_url(run) or ticket.url
        return Outcome(ended, reason, word=run.state, ended_at=_time(run.completed_at), url=url)

    async def cancel(self, asset: Asset, ticket: Ticket) -> None:
        """Mode's API cannot stop a run."""
        raise Unsupported(
            f"Mode's API cannot stop a run: run {ticket.id} of report {asset.ref} goes on until it ends. "
            "It can be cancelled on the report's page in Mode."
        )

    async def find_recent(self, asset: Asset, since: datetime) -> tuple[Ticket, ...]:
        """Runs at or after `since` with equal parameters that no schedule and, as far as known, nobody else started.

        `InDoubt` when there are more runs in that time than are read and none of those read is ours.
        """
        found: list[Ticket] = []
        query: dict[str, str] | None = {"page": "1", "per_page": str(PAGE_SIZE)}
        asked: list[dict[str, str]] = []
        while query is not None and len(asked) < PAGES:
            asked.append(query)
            page = await self._client.get_json(
                f"{self._reports}/{asset.ref}/runs", query, what=f"list the runs of report {asset.ref}", shape=_Runs
            )
            for run in page.embedded.report_runs:
                created = _time(run.created_at)
                if created is None:
                    continue
                if created < since:  # newest first: all that follow are older
                    return tuple(found)
                if self._may_be_ours(run, asset):
                    found.append(self._ticket(run))
            query = _next_query(page, query)
            if query in asked:
                break
        if query is not None and not found:
            raise InDoubt(
                f"Read the newest {len(asked)} pages of runs of report {asset.ref} and found none of ours, "
                "but there are more within the time in question: whether one is ours cannot be told."
            )
        return tuple(found)

    def _run_path(self, asset: Asset, run: str) -> str:
        return f"{self._reports}/{asset.ref}/runs/{run}"

    def _ticket(self, run: _Run) -> Ticket:
        executed_by = _href(run.links, "executed_by")
        return Ticket(
            id=run.token,
            created_at=_time(run.created_at),
            url=self._web_url(run),
            data={"state": run.state} | ({"executed_by": executed_by} if executed_by else {}),
        )

    def _web_url(self, run: _Run) -> str | None:
        """The run's page for people, if the link is one to Mode or to our own base_url's host."""
        link = _href(run.links, "web_external_url")
        if link is None:
            return None
        try:
            parts = urlsplit(link)
            host = parts.hostname
        except ValueError:
            return None
        ours = host in HOSTS or host == urlsplit(self._config.base_url).hostname
        return link if ours and parts.scheme in ("https", "http") and parts.username is None else None

    def _may_be_ours(self, run: _Run, asset: Asset) -> bool:
        if _href(run.links, "report_schedule") is not None:
            return False
        executed_by = _href(run.links, "executed_by")
        if self._me is not None and executed_by is not None and executed_by != self._me:
            return False
        return same_parameters(run.parameters, asset.parameters)

    async def _why_not(self, asset: Asset) -> str | None:
        try:
            return (await self.inspect(asset)).problem
        except CallError:
            return None  # the refusal itself is what gets reported

    async def _failure(self, asset: Asset, run: _Run) -> str:
        """Why a run failed: the failed queries' own messages, without their SQL."""
        try:
            answer = await self._client.get_json(
                f"{self._run_path(asset, run.token)}/query_runs", what="read why the run failed", shape=_QueryRuns
            )
        except CallError as error:
            return f"The run failed. {error}"
        reasons = [
            self._query_reason(one)
            for one in answer.embedded.query_runs
            if one.state == "failed" or one.error_message
        ]
        if run.python_state == "failed":
            reasons.append("the notebook failed")
        return cut(
            f"The run failed: {'; '.join(reasons)}." if reasons else "The run failed; Mode gives no reason.", 600
        )

    def _query_reason(self, query: _QueryRun) -> str:
        name = f'query "{cut(str(query.query_name), 80)}"' if query.query_name else "a query"
        sources = [text for text in (query.raw_source, query.rendered_source) if isinstance(text, str)]
        message = self._client.clean(without_sql(str(query.error_message or ""), sources)).rstrip(".")
        code = next((str(word) for word in (query.error_code, query.error_type) if word), "")
        return f"{name}: {message or 'no message given'}{f' ({cut(code, 60)})' if code else ''}"


def _problem(report: _Report) -> str | None:
    """What stands against running a report, as a sentence that says what to change."""
    if report.type == "DatasetReport":
        return f"{report.token} is a dataset, not a report: name a report that shows it."
    if _is_true(report.archived):
        return "The report is archived: unarchive it in Mode, or remove the dashboard from downriver.yml."
    if _is_true(report.manual_run_disabled):
        return (
            "Manual runs are disabled for this report: allow them in the report's settings in Mode, "
            "or leave its refresh to its schedule."
        )
    return None


def _notes(report: _Report) -> tuple[str, ...]:
    notes = []
    datasets = report.imported_datasets if isinstance(report.imported_datasets, list) else []
    if datasets:
        names = ", ".join(
            cut(str(one.get("name") or one.get("token")), 60) for one in datasets if isinstance(one, dict)
        )
        notes.append(
            f"The report imports datasets ({names}). Running the report does not run them: "
            "their data is as old as their own last run."
        )
    if _count(report.schedules_count):
        notes.append("The report has a schedule in Mode too, and is then run more often than needed.")
    return tuple(notes)


def same_parameters(theirs: Json, ours: Mapping[str, Json]) -> bool:
    """Whether a run was made with our parameters; 123 and "123" are the same to a report."""

    def leaf(value: Json) -> Json:
        if isinstance(value, dict):
            return {key: leaf(one) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [leaf(one) for one in value]
        if isinstance(value, bool) or value is None or isinstance(value, str):
            return value
        return canonical_json(int(value) if isinstance(value, float) and value.is_integer() else value)

    if theirs is None:
        theirs = {}
    return isinstance(theirs, dict) and canonical_json(leaf(theirs)) == canonical_json(leaf(dict(ours)))


def _next_query(page: _Runs, query: Mapping[str, str]) -> dict[str, str] | None:
    """The query of the page after this one, None on the last.

    Of the link only the query is taken: credentials follow no link to another place.
    """
    href = _href(page.links, "next_page")
    if href is not None:
        return {**query, **dict(parse_qsl(urlsplit(href).query))}
    total = page.pagination.get("total_pages") if isinstance(page.pagination, dict) else None
    following = int(query["page"]) + 1
    return {**query, "page": str(following)} if following <= _count(total) else None


_ADVICE: Final = (
    (
        (401,),
        "",
        "Check token: and secret: of the connection. They are an API token and its secret "
        "(in Mode: Workspace Settings, API); API access needs a paid plan.",
    ),
    (
        (403,),
        "",
        "The API token may not do that: use a workspace API token, or give the member behind the token "
        "access to the report's collection and its data source.",
    ),
    (
        (404,),
        "account not found",
        "Check workspace: of the connection; the API token must belong to that workspace.",
    ),
    (
        (404,),
        "report not found",
        "Check report: of the dashboard; the report may be deleted, or hidden from this API token.",
    ),
    ((404,), "run results not found", "Mode has purged the results of that run; only a new run shows data again."),
    ((404,), "not recognized", "Check base_url: of the connection; this is not Mode's API."),
    ((400, 422), "", "Check parameters: of the dashboard; the names must be the report's own parameters."),
)
"""(statuses, words in the vendor's message, what to change)"""


def _explain(refusal: Refusal) -> str | None:
    """What to change, for the answers that a set-up mistake brings."""
    message = (refusal.message or "").lower()
    return next((advice for on, words, advice in _ADVICE if refusal.status in on and words in message), None)


def _of(kind: type[T], model: BaseModel) -> T:
    if not isinstance(model, kind):
        raise TypeError(f"wanted {kind.__name__}, got {type(model).__name__}")
    return model


def _build(config: BaseModel, client: HttpClient) -> ModeConnector:
    return ModeConnector(_of(ModeConfig, config), client)


def _base_url(config: BaseModel) -> str:
    return _of(ModeConfig, config).base_url


SPEC: Final = ConnectorSpec(
    kind="mode",
    title="Mode",
    shape=Shape.JOB,
    config=ModeConfig,
    asset=ModeAsset,
    assets=_assets,
    build=_build,
    base_url=_base_url,
    auth=_auth,
    dialect=Dialect(headers={"Accept": "application/hal+json"}, explain=_explain),
    # About 40 requests in 10 s per user name (facts/bi-core.md §2.7).
    limits=Limits(requests_per_second=4, concurrency=20),
    can_find_recent=True,
)
