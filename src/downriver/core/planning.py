"""plan(run, dashboards) → Plan: which dashboards, and why. Pure; the same arguments give the same plan."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from downriver.core.model import Action, Dashboard, Decision, Plan, Rule, Run, RunStatus


def plan(run: Run, dashboards: Iterable[Dashboard]) -> Plan:
    """Decide for every dashboard that the run concerns, in the order of their names.

    A run concerns a dashboard when its rule names the run's source and, if it names jobs, one of them.
    A run that did not end in success refreshes nothing: each of its dashboards is skipped, and told why.
    """
    concerned = sorted((item for item in dashboards if concerns(item.rule, run)), key=lambda item: item.name)
    return Plan(run=run, decisions=tuple(_decide(run, item) for item in concerned))


def concerns(rule: Rule | None, run: Run) -> bool:
    """Whether a run is one of those a rule speaks of."""
    if rule is None or rule.source != run.source:
        return False
    return not rule.jobs or any(names_job(entry, run) for entry in rule.jobs)


def names_job(entry: str, run: Run) -> bool:
    """Whether a job entry (an id of digits, or a name glob compared without case) names the run's job."""
    if entry.isdigit():
        return entry == run.job_id
    return run.job_name is not None and fnmatchcase(run.job_name.casefold(), entry.casefold())


def _decide(run: Run, dashboard: Dashboard) -> Decision:
    if run.status is not RunStatus.SUCCESS:
        word = run.status_word or run.status.value
        reason = f"{run.label} ended as {word}; a dashboard is refreshed only after Success"
        return Decision(dashboard.name, Action.SKIP, reason, assets=dashboard.assets)
    reason = f"{run.label} ended in success"
    return Decision(dashboard.name, Action.REFRESH, reason, path=(run.label,), assets=dashboard.assets)
