"""What the dbt platform stand-in holds: jobs, runs, steps, artifacts; and their JSON in Admin API v2.

Source: facts on dbt, section 2 (public OpenAPI document of API v2, docs.getdbt.com, real answers quoted in
airflow#48466). Ids exceed 32 bits, times look like `2025-03-27 20:37:19.996618+00:00`, the first three
steps of a run are clone, profile and `dbt deps`. Not documented, chosen here: a step that did not run has
status 30; related objects that were not asked for are `null` (`run_steps`: `[]`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from downriver.sandbox.dbt_webhooks import EventData

QUEUED, STARTING, RUNNING, SUCCESS, ERROR, CANCELLED = 1, 2, 3, 10, 20, 30
HUMANIZED = {1: "Queued", 2: "Starting", 3: "Running", 10: "Success", 20: "Error", 30: "Cancelled"}
OUTCOMES = {"success": SUCCESS, "error": ERROR, "errored": ERROR, "cancelled": CANCELLED}
Outcome = Literal["success", "error", "cancelled"]
FIRST_RUN_ID = 70_437_497_968_840
"""Run ids exceed 32 bits in real accounts; a service that keeps them in an int32 must break here."""
Json = dict[str, object]
Content = bytes | Path
Since1970 = float


class Job(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A job definition; also the JSON of `PUT /_sandbox/dbt/jobs/<id>`."""

    id: int
    name: str = "Daily Job (dbt build)"
    project_id: int = 241_251
    project_name: str = "Analytics"
    environment_id: int = 187_998
    environment_name: str = "Production"
    dbt_version: str = "1.11.0"
    job_type: str = "scheduled"
    execute_steps: tuple[str, ...] = ("dbt build",)
    generate_docs: bool = False
    run_generate_sources: bool = False


class Step(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One dbt command of a run, with the files it left behind."""

    command: str = "dbt build"
    name: str | None = None
    """`None`: ``Invoke dbt with `<command>` ``, as the platform names it."""
    status: Outcome = "success"
    directory: str | None = None
    """Every file in it (and below) is taken over *as it is now* and served."""
    artifacts: dict[str, Any] = {}
    """Further files by path: bytes or text as they are, any other value as JSON."""


class JobRun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to run; also the JSON of `POST /_sandbox/dbt/finish` and `/_sandbox/dbt/begin`."""

    job: int | None = None
    """Job id; `None`: the first job. An unknown id makes a job of that id."""
    status: Outcome = "success"
    steps: tuple[Step, ...] = ()
    """The dbt commands, from index 4 on; empty: the job's own commands, without files."""
    seconds: Annotated[float, msgspec.Meta(ge=0)] = 19.0
    """How long the run is said to have taken."""
    finished_at: Since1970 | None = None
    """When it finished, in seconds since the epoch; `None`: now."""
    cause: str = "Kicked off from UI by analyst@example.com"
    cause_category: str = "ui"
    git_sha: str = "0f5c9a1de8a7c7a9e2f6f1f0f4a2b3c4d5e6f708"
    git_branch: str = "main"
    github_pull_request_id: int | None = None
    schema_override: str | None = None
    retrying_run_id: int | None = None
    """Set on a retry: the run it completes."""
    artifacts_after: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """Seconds after the end until the artifact endpoints stop answering 404."""
    completed_after: Annotated[float, msgspec.Meta(ge=0)] | None = None
    """Seconds after the end until `job.run.completed` is sent; `None`: when the artifacts are there."""
    webhooks: Literal["send", "drop"] = "send"
    copies: Annotated[int, msgspec.Meta(ge=1)] = 1
    """Deliveries of each event at once: 2 and more are duplicates on purpose."""
    run_id: int | None = None
    """`None`: the next id."""


@dataclass(slots=True)
class RunStep:
    """A step with its place in the run. `files` by artifact path; empty for most steps."""

    index: int
    """1 is the first."""
    name: str
    command: str | None
    status: int
    files: dict[str, Content] = field(default_factory=dict, repr=False)


@dataclass(slots=True, eq=False)
class Run:
    """One run. Times in seconds since the epoch."""

    id: int
    job: Job
    asked: JobRun = field(repr=False)
    status: int
    created: Since1970
    started: Since1970 | None
    finished: Since1970 | None
    steps: list[RunStep]
    artifacts_ready: Since1970 | None = None

    def event_data(self, status: str, code: int) -> EventData:
        """`data` of a webhook about this run. Which times a *failed* `completed` event carries is not
        documented; here it carries both."""
        finished = _second(self.finished) if self.finished is not None else msgspec.UNSET
        return EventData(
            job_id=str(self.job.id),
            job_name=self.job.name,
            run_id=str(self.id),
            environment_id=str(self.job.environment_id),
            environment_name=self.job.environment_name,
            dbt_version=self.job.dbt_version,
            project_name=self.job.project_name,
            project_id=str(self.job.project_id),
            run_status=status,
            run_status_code=code,
            run_reason=self.asked.cause,
            run_started_at=_second(self.started or self.created),
            run_finished_at=finished,
            run_errored_at=finished if code == ERROR else msgspec.UNSET,
        )

    def file(self, path: str, step: int | None, now: float) -> Content | None:
        """An artifact; `step` `None` means the last step, as the platform's default does."""
        if self.artifacts_ready is None or now < self.artifacts_ready:
            return None
        for candidate in self.steps if step is not None else self.steps[-1:]:
            if step in (None, candidate.index):
                return candidate.files.get(path)
        return None


def preliminary(status: int = SUCCESS) -> list[RunStep]:
    """The three steps every run begins with."""
    return [
        RunStep(1, "Clone git repository", None, status),
        RunStep(2, "Create profile from connection Warehouse", None, status),
        RunStep(3, "Invoke dbt with `dbt deps`", "dbt deps", status),
    ]


def run_steps(job: Job, asked: JobRun) -> list[RunStep]:
    """The steps of a run, files read and copied."""
    wanted: Sequence[Step] = asked.steps
    if not wanted:
        commands = [*job.execute_steps]
        if job.run_generate_sources:
            commands.insert(0, "dbt source freshness")
        if job.generate_docs:
            commands.append("dbt docs generate")
        wanted = [Step(command=command, status=asked.status) for command in commands]
    steps = preliminary()
    for step in wanted:
        name = step.name or _step_name(step.command)
        files = dict(_files(step))
        steps.append(RunStep(len(steps) + 1, name, step.command, OUTCOMES[step.status], files))
    return steps


def _step_name(command: str) -> str:
    if command.startswith("dbt docs generate"):
        return "Generate docs"
    if command.startswith("dbt source freshness"):
        return "Source freshness"
    return f"Invoke dbt with `{command}`"


def _files(step: Step) -> dict[str, Content]:
    files: dict[str, Content] = {}
    if step.directory is not None:
        root = Path(step.directory)
        if not root.is_dir():
            raise ValueError(f"no directory {step.directory!r} to take artifacts from")
        for path in sorted(root.rglob("*")):
            if path.is_file():
                files[path.relative_to(root).as_posix()] = path.read_bytes()
    for name, content in step.artifacts.items():
        files[name] = as_content(content)
    return files


def as_content(content: object) -> Content:
    """Bytes and text as they are, a `Path` as the file it names, anything else as JSON."""
    if isinstance(content, bytes | Path):
        return content
    return content.encode() if isinstance(content, str) else msgspec.json.encode(content)


def _second(at: Since1970) -> str:
    return datetime.fromtimestamp(int(at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def spaced(at: Since1970 | None) -> str | None:
    """A time as the Admin API writes it: with a space, microseconds and `+00:00`."""
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(sep=" ")


def length(seconds: float) -> str:
    """`00:00:19`."""
    whole = int(seconds)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def run_json(run: Run, account_id: int, base: str, related: frozenset[str]) -> Json:
    """A run as `GET …/runs/{id}/` shows it; `related` is what `include_related` asked for."""
    asked, job = run.asked, run.job
    took = (run.finished or time.time()) - (run.started or run.created)
    sources = any(step.command == "dbt source freshness" for step in run.steps)
    return {
        "id": run.id,
        "trigger_id": run.id + 1,
        "account_id": account_id,
        "environment_id": job.environment_id,
        "project_id": job.project_id,
        "job_definition_id": job.id,
        "status": run.status,
        "dbt_version": job.dbt_version,
        "git_branch": asked.git_branch,
        "git_sha": asked.git_sha,
        "status_message": None,
        "owner_thread_id": None,
        "deferring_run_id": None,
        "artifacts_saved": run.artifacts_ready is not None and run.artifacts_ready <= time.time(),
        "has_docs_generated": any(step.name == "Generate docs" for step in run.steps),
        "has_sources_generated": sources,
        "notifications_sent": run.finished is not None,
        "blocked_by": [],
        "created_at": spaced(run.created),
        "updated_at": spaced(run.finished or run.created),
        "dequeued_at": spaced(run.started),
        "started_at": spaced(run.started),
        "finished_at": spaced(run.finished),
        "should_start_at": spaced(run.created),
        "status_humanized": HUMANIZED[run.status],
        "in_progress": run.status in (QUEUED, STARTING, RUNNING),
        "is_complete": run.status in (SUCCESS, ERROR, CANCELLED),
        "is_success": run.status == SUCCESS,
        "is_error": run.status == ERROR,
        "is_cancelled": run.status == CANCELLED,
        "is_running": run.status == RUNNING,
        "duration": length(took),
        "run_duration": length(took),
        "queued_duration": "00:00:00",
        "retrying_run_id": asked.retrying_run_id,
        "can_retry": run.status == ERROR,
        "retry_not_supported_reason": None if run.status == ERROR else "RETRY_NOT_FAILED_RUN",
        "job_id": job.id,
        "href": f"{base}/deploy/{account_id}/projects/{job.project_id}/runs/{run.id}/",
        "trigger": _trigger(run) if "trigger" in related else None,
        "job": job_json(job, account_id) if "job" in related else None,
        "environment": _environment(job, account_id) if "environment" in related else None,
        "repository": None,
        "run_steps": [_step_json(run, step, account_id) for step in run.steps] if "run_steps" in related else [],
    }


def _trigger(run: Run) -> Json:
    asked = run.asked
    return {
        "id": run.id + 1,
        "cause": asked.cause,
        "cause_category": asked.cause_category,
        "job_definition_id": run.job.id,
        "git_branch": asked.git_branch,
        "git_sha": asked.git_sha,
        "github_pull_request_id": asked.github_pull_request_id,
        "gitlab_merge_request_id": None,
        "azure_pull_request_id": None,
        "schema_override": asked.schema_override,
        "steps_override": None,
        "created_at": spaced(run.created),
    }


def _environment(job: Job, account_id: int) -> Json:
    return {
        "id": job.environment_id,
        "account_id": account_id,
        "project_id": job.project_id,
        "name": job.environment_name,
        "type": "deployment",
        "deployment_type": "production",
        "dbt_version": job.dbt_version,
    }


def _step_json(run: Run, step: RunStep, account_id: int) -> Json:
    ran = step.status != CANCELLED
    command = None if step.command is None else {"run_step_id": run.id * 10 + step.index, "dbt_command": step.command}
    return {
        "id": run.id * 10 + step.index,
        "run_id": run.id,
        "account_id": account_id,
        "index": step.index,
        "name": step.name,
        "status": step.status,
        "status_humanized": HUMANIZED[step.status],
        "logs": f"running {step.name}\n",
        "started_at": spaced(run.started) if ran else None,
        "finished_at": spaced(run.finished) if ran else None,
        "created_at": spaced(run.created),
        "updated_at": spaced(run.finished or run.created),
        "duration": "00:00:01",
        "run_step_command": command,
    }


def job_json(job: Job, account_id: int) -> Json:
    """A job definition."""
    return {
        "id": job.id,
        "account_id": account_id,
        "project_id": job.project_id,
        "environment_id": job.environment_id,
        "name": job.name,
        "description": "",
        "dbt_version": job.dbt_version,
        "execute_steps": list(job.execute_steps),
        "generate_docs": job.generate_docs,
        "run_generate_sources": job.run_generate_sources,
        "job_type": job.job_type,
        "state": 1,
        "is_deferrable": False,
        "deferring_job_definition_id": None,
        "triggers": {
            "github_webhook": False,
            "git_provider_webhook": False,
            "schedule": True,
            "on_merge": False,
        },
        "settings": {"threads": 4, "target_name": "default"},
    }
