"""Stand-in of the dbt platform: its API (`dbt_api.py`) over one account (`dbt_account.py`), with controls.

Controls under `/_sandbox/dbt/`:

=====  =============================================  ===============================================
POST   `finish`                                       a run ends (`dbt_runs.JobRun`): artifacts, webhooks
POST   `begin`, `runs/<id>/end`                       the same in two moves (`JobRun`, `EndOfRun`)
PUT    `runs/<id>/steps/<index>/artifacts/<path>`     one file of a step, the raw body
GET    `runs`                                         every run, oldest first
GET    `deliveries`                                   every webhook delivery with its attempts (`?run=`)
POST   `deliveries/<event id>/again`                  the same bytes once more
POST   `settled`                                      waits until nothing is planned or under way
GET    `jobs`; PUT `jobs/<id>`                        job definitions (`dbt_runs.Job`)
GET    `subscriptions`; POST                          subscriptions; a new one (`NewSubscription`)
GET    `settings`; POST                               `DbtSettings`; `DbtSettingsChange`
=====  =============================================  ===============================================
"""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from downriver.sandbox.control import decoded, refusal
from downriver.sandbox.dbt_account import DbtAccount, DbtSettings, DbtSettingsChange, NewSubscription
from downriver.sandbox.dbt_api import DbtApi, error_body
from downriver.sandbox.dbt_runs import HUMANIZED, Job, JobRun, Outcome, Run
from downriver.sandbox.faults import FaultBoard
from downriver.sandbox.frontdoor import RequestLog, reply


class EndOfRun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /_sandbox/dbt/runs/<id>/end`."""

    status: Outcome = "success"


class DbtPlatform:
    """The stand-in. `account` is the handle for tests and the demo: `account.finish_job(JobRun(…))`."""

    name = "dbt"

    def __init__(self, settings: DbtSettings | None = None) -> None:
        self.account = DbtAccount(settings or DbtSettings())
        self._api = DbtApi(self.account)
        self.faults = FaultBoard()
        self.log = RequestLog()

    @property
    def url(self) -> str:
        """Where it is served ("access URL"), without a trailing slash."""
        return self._api.url

    @url.setter
    def url(self, url: str) -> None:
        self._api.url = url

    def reset(self) -> None:
        """Forget runs, subscriptions, deliveries, requests, faults and changes."""
        self.account.reset()
        self._api.cool()
        self.faults.reset()
        self.log.reset()

    async def stop(self) -> None:
        """Break off deliveries, let held requests go."""
        self.faults.clear()
        await self.account.stop()

    def describe(self) -> dict[str, object]:
        """Address and credentials."""
        account = self.account
        return {
            "url": self.url,
            "account_id": account.settings.account_id,
            "api_token": account.settings.tokens[0].value,
            "jobs": {str(job.id): job.name for job in account.jobs.values()},
        }

    def curl(self) -> tuple[str, ...]:
        """Example calls."""
        account = self.account
        token, job = account.settings.tokens[0].value, next(iter(account.jobs))
        hook = '{"client_url": "http://127.0.0.1:8321/hooks/analytics", "secret": "test-secret"}'
        runs = f"{self.url}/api/v2/accounts/{account.settings.account_id}/runs/"
        return (
            f"curl -s -H 'Authorization: Token {token}' '{runs}?order_by=-finished_at'",
            f"curl -s -d '{hook}' {self.url}/_sandbox/dbt/subscriptions",
            f"curl -s -d '{{\"job\": {job}}}' {self.url}/_sandbox/dbt/finish",
        )

    def error_body(self, status: int) -> tuple[str, str]:
        """Body and media type of an error with this status."""
        return error_body(status)

    async def handle(self, request: Request) -> Response:
        """Answer one request of the platform's API."""
        return await self._api.handle(request)

    async def control(self, request: Request, rest: tuple[str, ...]) -> Response | None:
        """Answer the stand-in's own controls (listed in the module's docstring)."""
        match rest:
            case ("finish" | "begin",) | ("runs", *_):
                return await self._control_runs(request, rest)
            case ("deliveries", *_) | ("settled",) | ("subscriptions",):
                return await self._control_webhooks(request, rest)
            case ("jobs",) if request.method == "GET":
                return reply(list(self.account.jobs.values()))
            case ("jobs", job) if request.method == "PUT":
                return reply(self.account.put_job(await _job(request, job)))
            case ("settings",) if request.method == "GET":
                return reply(self.account.settings)
            case ("settings",) if request.method == "POST":
                self.account.change(await decoded(request, DbtSettingsChange))
                return reply(self.account.settings)
        return None

    async def _control_runs(self, request: Request, rest: tuple[str, ...]) -> Response | None:
        account = self.account
        match (request.method, *rest):
            case ("POST", "finish" | "begin" as verb):
                asked = await decoded(request, JobRun)
                try:
                    run = account.finish_job(asked) if verb == "finish" else account.begin_run(asked)
                except ValueError as error:
                    raise refusal(400, str(error)) from error
                return reply(self._row(run), 201)
            case ("GET", "runs"):
                return reply([self._row(run) for run in account.runs.values()])
            case ("POST", "runs", run_id, "end"):
                run = self._run(run_id)
                if run.finished is not None:
                    raise refusal(409, f"run {run_id} has ended already")
                return reply(self._row(account.end_run(run, (await decoded(request, EndOfRun)).status)))
            case ("PUT", "runs", run_id, "steps", index, "artifacts", *path) if path and index.isdecimal():
                try:
                    account.put_artifact(self._run(run_id), int(index), "/".join(path), await request.body())
                except KeyError:
                    raise refusal(404, f"run {run_id} has no step {index}") from None
                return reply({"stored": "/".join(path)}, 201)
        return None

    async def _control_webhooks(self, request: Request, rest: tuple[str, ...]) -> Response | None:
        webhooks = self.account.webhooks
        match (request.method, *rest):
            case ("GET", "deliveries"):
                run = request.query_params.get("run")
                rows = [one.row() for one in webhooks.deliveries if run in (None, str(one.run_id))]
                return reply(rows)
            case ("POST", "deliveries", event_id, "again"):
                known = next((one for one in webhooks.deliveries if one.event_id == event_id), None)
                if known is None:
                    raise refusal(404, f"no event {event_id}")
                return reply(webhooks.redeliver(known).row(), 201)
            case ("POST", "settled"):
                await self.account.settled()
                return reply({"settled": True, "deliveries": len(webhooks.deliveries)})
            case ("GET", "subscriptions"):
                return reply(list(webhooks.subscriptions.values()))
            case ("POST", "subscriptions"):
                return reply(self.account.subscribe(await decoded(request, NewSubscription)), 201)
        return None

    def _run(self, run_id: str) -> Run:
        run = self.account.runs.get(int(run_id)) if run_id.isdecimal() else None
        if run is None:
            raise refusal(404, f"no run {run_id}")
        return run

    def _row(self, run: Run) -> dict[str, object]:
        sent = [one for one in self.account.webhooks.deliveries if one.run_id == run.id]
        return {
            "run": run.id,
            "job": run.job.id,
            "job_name": run.job.name,
            "status": run.status,
            "status_humanized": HUMANIZED[run.status],
            "created_at": run.created,
            "finished_at": run.finished,
            "artifacts_ready_at": run.artifacts_ready,
            "retrying_run_id": run.asked.retrying_run_id,
            "steps": [
                {"index": step.index, "name": step.name, "status": step.status, "files": sorted(step.files)}
                for step in run.steps
            ],
            "events": [{"event_id": one.event_id, "type": one.event_type, "state": one.state} for one in sent],
        }


async def _job(request: Request, job_id: str) -> Job:
    """A job definition out of a control body; the id in the path is the one that counts."""
    if not job_id.isdecimal():
        raise refusal(400, f"a job id is a number, not {job_id!r}")
    fields = await decoded(request, dict[str, object])
    try:
        return msgspec.convert({**fields, "id": int(job_id)}, Job)
    except msgspec.ValidationError as error:
        raise refusal(400, str(error)) from error
