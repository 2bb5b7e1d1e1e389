"""The JSON the Mode stand-in answers with, object by object.

Field names and required keys: Mode's Swagger document 0.0.1 (definitions `Account`, `Report`,
`ReportRun`, `QueryRun`, `DatasetRun`, `Pagination`); where it types a boolean as a string, the live
form (boolean, null) seen in DataHub's recorded answers is used. Times: `2021-12-10T23:12:51.490Z`.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime

from downriver.sandbox.mode_runs import GOOD, SQL_CANARY, Holder, ModeRun, QueryFailure

Json = dict[str, object]
SPACE = "75737b70402e"
"""Token of the one collection ("space") that holds every report."""
HAL = "application/hal+json; charset=utf-8"


@functools.lru_cache(maxsize=4096)
def moment(at: float | None) -> str | None:
    """Seconds since the epoch as Mode writes a time."""
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def href(path: str) -> Json:
    return {"href": path}


def error(slug: str, message: str) -> Json:
    return {"id": slug, "message": message}


def verify(workspace: str) -> Json:
    return {
        "workspace": workspace,
        "workspace_token": token_for("workspace", workspace),
        "api_key_scope": "workspace",
        "_links": {"self": href(f"/api/{workspace}")},
    }


def token_for(*parts: str) -> str:
    """A stable made-up token for things the stand-in does not keep (queries, data sources)."""
    text = "/".join(parts).encode()
    return f"{zlib.crc32(text):08x}{zlib.adler32(text) & 0xFFFF:04x}"


def account(workspace: str, created: float, space_count: int) -> Json:
    return {
        "username": workspace,
        "name": workspace.title(),
        "id": 751_252,
        "token": token_for("workspace", workspace),
        "email": None,
        "dataset_size_limit_mb": "1024",
        "query_run_size_limit_mb": "1024",
        "avatar": {"initials": workspace[:1].upper(), "hex_color": "#1e9f79"},
        "user": False,
        "space_count": space_count,
        "data_source_count": 1,
        "plan_code": "plus",
        "created_at": moment(created),
        "_links": {"self": href(f"/api/{workspace}"), "web": href(f"/{workspace}")},
    }


def report(workspace: str, holder: Holder, web: str, now: float) -> Json:
    """A report or a data set; `web` is the address of Mode's web site (without a slash at the end)."""
    holder.settle(now)
    spec = holder.spec
    api = f"/api/{workspace}/reports/{spec.token}"
    is_dataset = spec.type == "DatasetReport"
    place = "datasets" if is_dataset else "reports"
    last = holder.runs[-1] if holder.runs else None
    success = holder.last_success
    succeeded_at = success.ended(now) if success is not None else None
    links: Json = {
        "self": href(api),
        "web": href(f"{web}/{workspace}/{place}/{spec.token}"),
        "web_edit": href(f"/editor/{workspace}/{place}/{spec.token}"),
        "account": href(f"/api/{workspace}"),
        "report_run": {"templated": True, "href": f"{api}/runs/{{id}}?embed[result]=1"},
        "space": href(f"/api/{workspace}/collections/{SPACE}"),
        "queries": href(f"{api}/queries"),
        "report_runs": href(f"{api}/runs"),
        "report_pins": href(f"{api}/pins"),
        "report_schedules": href(f"{api}/schedules"),
        "last_run": href(f"{api}/runs/{last.token}" if last else ""),
        "last_successful_run": href(f"{api}/runs/{success.token}" if success else ""),
        "perspective_email_subscription_memberships": href(
            f"{api}/perspective_email_report_subscription_memberships"
        ),
        "last_successful_github_sync": href(""),
        "creator": href("/api/modeuser"),
    }
    return {
        "token": spec.token,
        "id": holder.id,
        "name": spec.name,
        "description": "",
        "created_at": moment(holder.created),
        "updated_at": moment(succeeded_at or holder.created),
        "published_at": None,
        "edited_at": moment(holder.created),
        "theme_id": 3,
        "color_mappings": {},
        "type": spec.type,
        "last_successful_sync_at": None,
        "last_saved_at": moment(holder.created),
        "archived": spec.archived,
        "space_token": SPACE,
        "account_id": 751_252,
        "account_username": workspace,
        "public": False,
        "full_width": False,
        "manual_run_disabled": spec.manual_run_disabled,
        "drill_anywhere_enabled": False,
        "run_privately": True,
        "drilldowns_enabled": True,
        "is_embedded": False,
        "is_signed": False,
        "shared": False,
        "expected_runtime": last.shape.seconds if last else 0.0,
        "last_successfully_run_at": moment(succeeded_at),
        "last_run_at": moment(last.created if last else None),
        "last_successful_run_token": success.token if success else None,
        "query_count": len(spec.queries),
        "max_query_count": 160,
        "chart_count": 1,
        "runs_count": len(holder.runs),
        "schedules_count": 0,
        "query_preview": None,
        "view_count": 0,
        "thoughtspot_published_at": None,
        "_links": links,
    }


def imported_datasets(workspace: str, report_token: str, datasets: Sequence[Holder]) -> list[Json]:
    """The `imported_datasets` of a report, in the form DataHub recorded."""
    return [
        {
            "name": dataset.spec.name,
            "token": dataset.spec.token,
            "_links": {
                "report": href(f"/api/{workspace}/reports/{report_token}"),
                "source_dataset": href(f"/api/{workspace}/reports/{dataset.spec.token}"),
            },
            "_forms": {
                "refresh": {
                    "method": "post",
                    "action": f"/api/{workspace}/reports/{report_token}/runs",
                    "input": {"dataset_tokens": [{"token": dataset.spec.token}]},
                }
            },
        }
        for dataset in datasets
    ]


def report_run(workspace: str, run: ModeRun, web: str, now: float, state: str | None = None) -> Json:
    """A report run; `state` overrides the one derived from time (the answer to the POST)."""
    holder = run.report
    holder.settle(now)
    token = holder.spec.token
    api = f"/api/{workspace}/reports/{token}"
    self_ = f"{api}/runs/{run.token}"
    ended = run.ended(now) if state is None else None
    return {
        "token": run.token,
        "state": state or run.state(now),
        "parameters": run.parameters,
        "created_at": moment(run.created),
        "updated_at": moment(run.updated(now) if state is None else run.created),
        "completed_at": moment(ended),
        "purge_started_at": moment(run.purge_started),
        "purge_completed_at": None,
        "python_state": run.python_state(now) if state is None else ("pending" if run.shape.notebook else "none"),
        "form_fields": [],
        "is_latest_report_run": holder.runs[-1] is run,
        "is_latest_successful_report_run": ended is not None and holder.last_success is run,
        "report_has_failures_since_last_success": holder.failed_since_success,
        "pusher_channel_name": f"report_run_{run.token}",
        "_links": {
            "self": href(self_),
            "account": href(f"/api/{workspace}"),
            "report": href(api),
            "query_runs": href(f"{self_}/query_runs"),
            "executed_by": href(f"/api/{run.executed_by}"),
            "web_external_url": href(f"{web}/{workspace}/reports/{token}/runs/{run.token}"),
        },
    }


def dataset_run(workspace: str, run: ModeRun, now: float, state: str | None = None) -> Json:
    """A data set's run; the Swagger document's `DatasetRun`."""
    holder = run.report
    holder.settle(now)
    api = f"/api/{workspace}/datasets/{holder.spec.token}"
    ended = run.ended(now) if state is None else None
    return {
        "token": run.token,
        "state": state or run.state(now),
        "created_at": moment(run.created),
        "updated_at": moment(run.updated(now) if state is None else run.created),
        "completed_at": moment(ended),
        "purge_started_at": moment(run.purge_started),
        "purge_completed_at": None,
        "is_latest_dataset_run": holder.runs[-1] is run,
        "is_latest_successful_dataset_run": ended is not None and holder.last_success is run,
        "dataset_has_failures_since_last_success": holder.failed_since_success,
        "pusher_channel_name": f"dataset_run_{run.token}",
        "_links": {
            "self": href(f"{api}/runs/{run.token}"),
            "account": href(f"/api/{workspace}"),
            "dataset": href(api),
            "query_runs": href(f"/api/{workspace}/reports/{holder.spec.token}/runs/{run.token}/query_runs"),
            "executed_by": href(f"/api/{run.executed_by}"),
        },
    }


def query_runs(workspace: str, run: ModeRun, now: float) -> Json:
    """All query runs of a run. The only place where Mode says why a run failed."""
    api = f"/api/{workspace}/reports/{run.report.spec.token}/runs/{run.token}/query_runs"
    names = run.report.spec.queries
    rows = [
        _query_run(workspace, run, name, f"{api}/", now, last=position == len(names) - 1)
        for position, name in enumerate(names)
    ]
    return {
        "pagination": {
            "first_page": f"{api}?page=1",
            "last_page": f"{api}?page=1",
            "total_pages": 1,
            "total_count": len(rows),
        },
        "_links": {"self": href(api)},
        "_embedded": {"query_runs": rows},
    }


def _query_run(workspace: str, run: ModeRun, name: str, base: str, now: float, *, last: bool) -> Json:
    report_token = run.report.spec.token
    report_api = f"/api/{workspace}/reports/{report_token}"
    state = run.state(now)
    if (state == "failed" and not last) or state == "running_notebook" or state in GOOD:
        state = "succeeded"
    failure = (run.shape.failure or QueryFailure()) if state == "failed" else None
    query = token_for("query", report_token, name)
    token = token_for("query_run", run.token, name)
    source = f"select * from orders where api_key = '{SQL_CANARY}'"  # noqa: S608 - text, never run
    return {
        "id": int(token[:8], 16),
        "token": token,
        "raw_source": source,
        "rendered_source": source,
        "state": state,
        "created_at": moment(run.created),
        "completed_at": moment(run.ended(now)),
        "data_source_id": 34_499,
        "data_source_token": token_for("data_source", workspace),
        "limit": False,
        "query_token": query,
        "query_name": name,
        "query_created_at": moment(run.report.created),
        "dbt_metric_id": None,
        "parameters": run.parameters,
        "max_result_bytes": None,
        "help_url": failure.help_url if failure else None,
        "error_code": failure.error_code if failure else None,
        "error_type": failure.error_type if failure else None,
        "error_message": failure.error_message if failure else None,
        "_links": {
            "self": href(base + token),
            "query": href(f"{report_api}/queries/{query}"),
            "result": href(f"{base}{token}/results"),
            "result_web": href(f"/{workspace}/reports/{report_token}/runs/{run.token}/query_runs/{token}"),
            "query_web": href(f"/editor/{workspace}/reports/{report_token}/queries/{query}"),
            "report_run": href(f"{report_api}/runs/{run.token}"),
            "report_run_web": href(f"/{workspace}/reports/{report_token}/runs/{run.token}"),
            "executed_by": href(f"/api/{run.executed_by}"),
        },
    }


def page(base: str, query: str, number: int, size: int, total: int) -> tuple[Json, Json]:
    """`pagination` and `_links` of page `number` of a list; `query`: the rest of the query string."""
    pages = max(1, -(-total // size))

    def at(which: int) -> str:
        return f"{base}?page={which}&per_page={size}" + (f"&{query}" if query else "")

    links: Json = {"self": href(at(number))}
    if number < pages:
        links["next_page"] = href(at(number + 1))
    if number > 1:
        links["prev_page"] = href(at(number - 1))
    pagination: Json = {
        "page": number,
        "per_page": size,
        "count": max(0, min(size, total - (number - 1) * size)),
        "first_page": at(1),
        "last_page": at(pages),
        "total_pages": pages,
        "total_count": total,
    }
    return pagination, links


def space(workspace: str, created: float) -> Json:
    """The one collection of the workspace."""
    api = f"/api/{workspace}/collections/{SPACE}"
    return {
        "token": SPACE,
        "id": 1_919_717,
        "space_type": "custom",
        "name": "Analytics",
        "description": None,
        "state": "active",
        "restricted": False,
        "free_default": True,
        "viewable?": True,
        "default_access_level": "edit",
        "created_at": moment(created),
        "_links": {
            "self": href(api),
            "detail": href(f"{api}/detail"),
            "web": href(f"/{workspace}/spaces/{SPACE}"),
            "reports": href(f"{api}/reports"),
            "creator": href("/api/modeuser"),
        },
    }
