"""The one account of the dbt platform stand-in: its settings, jobs and runs, and what happens to them.

`finish_job` is the main handle: a run appears, its artifacts become available, its webhooks go out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Literal

import msgspec

from downriver.sandbox.dbt_runs import (
    CANCELLED,
    ERROR,
    FIRST_RUN_ID,
    OUTCOMES,
    RUNNING,
    SUCCESS,
    Content,
    Job,
    JobRun,
    Outcome,
    Run,
    run_steps,
)
from downriver.sandbox.dbt_webhooks import EVENT_TYPES, DeliveryPolicy, EventType, Subscription, Webhooks


class ApiToken(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A service or personal token and what it may do."""

    value: str
    may_read_runs: bool = True
    may_read_webhooks: bool = True
    may_write_webhooks: bool = True


class DbtSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the dbt platform stand-in is set up."""

    account_id: int = 70_403_103_916_243
    tokens: tuple[ApiToken, ...] = (
        ApiToken(value="dbtc_sandbox_token"),
        ApiToken(value="dbtc_sandbox_job_viewer", may_read_webhooks=False, may_write_webhooks=False),
        ApiToken(
            value="dbtc_sandbox_metadata_only",
            may_read_runs=False,
            may_read_webhooks=False,
            may_write_webhooks=False,
        ),
    )
    jobs: tuple[Job, ...] = (
        Job(id=278_164),
        Job(id=278_165, name="Hourly marts", execute_steps=("dbt build --select marts",)),
        Job(id=70_403_103_922_345, name="Nightly with docs", generate_docs=True, run_generate_sources=True),
        Job(id=278_166, name="CI", job_type="ci", environment_id=187_999, environment_name="CI"),
    )
    rate_limit: int | None = 5_000
    """Requests a minute; `None` switches the limit off."""
    cool_down: float = 300.0
    """Seconds of 429 once the limit was passed."""
    policy: DeliveryPolicy = DeliveryPolicy()
    job_ids_as: Literal["strings", "numbers"] = "strings"
    """How `job_ids` come back; both forms have been seen."""
    test_answer: Literal["prose", "openapi"] = "prose"
    """Form of the test call's answer: the prose documentation's or the OpenAPI document's."""
    step_commands: bool = True
    """Whether steps carry `run_step_command`; without it the command stands only in the step's name."""
    gzip_artifacts: bool = False
    """Whether artifacts are compressed for callers that accept it (not documented either way)."""


class DbtSettingsChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /_sandbox/dbt/settings`; what is left out stays."""

    rate_limit: int | msgspec.UnsetType | None = msgspec.UNSET
    cool_down: float | msgspec.UnsetType = msgspec.UNSET
    policy: DeliveryPolicy | msgspec.UnsetType = msgspec.UNSET
    job_ids_as: Literal["strings", "numbers"] | msgspec.UnsetType = msgspec.UNSET
    test_answer: Literal["prose", "openapi"] | msgspec.UnsetType = msgspec.UNSET
    step_commands: bool | msgspec.UnsetType = msgspec.UNSET
    gzip_artifacts: bool | msgspec.UnsetType = msgspec.UNSET


class NewSubscription(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /_sandbox/dbt/subscriptions`: a subscription with a secret of your choice."""

    client_url: str
    secret: str | None = None
    name: str = "Downriver"
    event_types: tuple[EventType, ...] = EVENT_TYPES
    job_ids: tuple[int, ...] = ()
    active: bool = True


class DbtAccount:
    """Jobs, runs and webhook subscriptions of one account, in memory."""

    def __init__(self, settings: DbtSettings) -> None:
        self._initial = settings
        self.webhooks = Webhooks(settings.policy)
        self._planned: set[asyncio.Task[None]] = set()
        self._begin()

    def _begin(self) -> None:
        self.settings = self._initial
        self.webhooks.policy = self.settings.policy
        self.jobs = {job.id: job for job in self.settings.jobs}
        self.runs: dict[int, Run] = {}
        self._next_run_id = FIRST_RUN_ID

    def reset(self) -> None:
        """Forget runs, subscriptions and deliveries; settings and jobs as at the start."""
        self._call_off()
        self.webhooks.forget()
        self._begin()

    async def stop(self) -> None:
        """Break off what is planned and under way."""
        self._call_off()
        await self.webhooks.stop()

    def change(self, change: DbtSettingsChange) -> None:
        """Change settings while it runs; deliveries under way go on by the new policy."""
        given = {key: value for key, value in msgspec.structs.asdict(change).items() if value is not msgspec.UNSET}
        self.settings = msgspec.structs.replace(self.settings, **given)
        self.webhooks.policy = self.settings.policy

    def begin_run(self, asked: JobRun) -> Run:
        """A run starts now: state Running, `job.run.started` is sent. Needs a running event loop."""
        run = self._new_run(asked, created=time.time(), finished=None)
        self._emit(run, "job.run.started", "Running", RUNNING)
        return run

    def end_run(self, run: Run, status: Outcome) -> Run:
        """A run ends now; artifacts and webhooks follow as its `JobRun` says."""
        run.status = OUTCOMES[status]
        run.finished = time.time()
        self._announce(run)
        return run

    def finish_job(self, asked: JobRun | None = None) -> Run:
        """A run that started a while ago ends now (or ended at `finished_at`): all its webhooks are sent.

        Success: `completed`. Error: `errored` at once, then `completed`. Cancelled: nothing. `started` goes
        out first to whoever wants it. Needs a running event loop.
        """
        asked = asked or JobRun()
        finished = time.time() if asked.finished_at is None else asked.finished_at
        run = self._new_run(asked, created=finished - asked.seconds, finished=None)
        self._emit(run, "job.run.started", "Running", RUNNING)
        run.finished = finished
        run.status = OUTCOMES[asked.status]
        self._announce(run)
        return run

    def put_job(self, job: Job) -> Job:
        """Define a job, or change one; runs keep the job they ran with."""
        self.jobs[job.id] = job
        return job

    def put_artifact(self, run: Run, index: int, path: str, content: Content) -> None:
        """Register one file for a step of a run. `KeyError` when the run has no such step."""
        for step in run.steps:
            if step.index == index:
                step.files[path] = content
                return
        raise KeyError(index)

    def subscribe(self, wanted: NewSubscription) -> Subscription:
        """A webhook subscription with a secret of your choice."""
        return self.webhooks.subscribe(
            name=wanted.name,
            client_url=wanted.client_url,
            event_types=wanted.event_types,
            job_ids=wanted.job_ids,
            active=wanted.active,
            secret=wanted.secret,
        )

    async def settled(self) -> None:
        """Wait until every webhook that is due or planned has been delivered or given up."""
        while self._planned:
            await asyncio.wait(set(self._planned))
        await self.webhooks.settled()

    def _new_run(self, asked: JobRun, *, created: float, finished: float | None) -> Run:
        job_id = next(iter(self.jobs)) if asked.job is None else asked.job
        job = self.jobs.get(job_id) or self.put_job(Job(id=job_id, name=f"Job {job_id}"))
        run_id = self._next_run_id if asked.run_id is None else asked.run_id
        self._next_run_id = max(self._next_run_id, run_id) + 7
        run = Run(
            id=run_id,
            job=job,
            asked=asked,
            status=RUNNING,
            created=created,
            started=created,
            finished=finished,
            steps=run_steps(job, asked),
        )
        self.runs[run_id] = run
        return run

    def _announce(self, run: Run) -> None:
        asked = run.asked
        assert run.finished is not None
        run.artifacts_ready = run.finished + asked.artifacts_after
        if run.status == CANCELLED:  # the platform has no webhook for a cancelled run
            return
        if run.status == ERROR:
            self._emit(run, "job.run.errored", "Errored", ERROR)
        wait = asked.artifacts_after if asked.completed_after is None else asked.completed_after
        word = "Success" if run.status == SUCCESS else "Errored"
        self._after(wait, lambda: self._emit(run, "job.run.completed", word, run.status))

    def _emit(self, run: Run, event_type: EventType, word: str, code: int) -> None:
        self.webhooks.emit(
            self.settings.account_id,
            event_type,
            run.event_data(word, code),
            copies=run.asked.copies,
            drop=run.asked.webhooks == "drop",
        )

    def _after(self, seconds: float, act: Callable[[], None]) -> None:
        if seconds <= 0:
            act()
            return

        async def due() -> None:
            await asyncio.sleep(seconds)
            act()

        task = asyncio.get_running_loop().create_task(due())
        self._planned.add(task)
        task.add_done_callback(self._planned.discard)

    def _call_off(self) -> None:
        for task in self._planned:
            task.cancel()
        self._planned.clear()
