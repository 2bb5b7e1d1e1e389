"""Which dashboards a run concerns, and what the plan says of each."""

from __future__ import annotations

from dataclasses import replace

import pytest

from downriver.core.model import Action, Asset, Dashboard, Rule, Run, RunStatus
from downriver.core.planning import concerns, plan

RUN = Run("analytics", "70437497968840", RunStatus.SUCCESS, "Success", job_id="278164", job_name="Daily Job EU")
SHARED = Asset("mode", "report", "9d2da37fa91e")


def dashboard(name, *jobs, source="analytics", asset=SHARED):
    return Dashboard(name, (asset,), Rule(source, jobs))


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [
        ((), True),
        (("278164",), True),
        (("27816",), False),
        (("Daily Job*",), True),
        (("daily job eu",), True),
        (("Daily Job",), False),
        (("Hourly*", "278164"), True),
        (("Hourly*", "1"), False),
    ],
)
def test_jobs_are_ids_or_globs_of_names(jobs, expected):
    assert concerns(Rule("analytics", jobs), RUN) is expected


def test_another_source_or_no_rule_is_no_concern():
    assert not concerns(Rule("elsewhere"), RUN)
    assert not concerns(None, RUN)


def test_a_run_without_a_job_name_matches_ids_alone():
    nameless = replace(RUN, job_name=None)
    assert concerns(Rule("analytics", ("278164",)), nameless)
    assert not concerns(Rule("analytics", ("*",)), nameless)


def test_a_plan_is_in_order_and_names_a_shared_asset_once():
    other = Asset("mode", "report", "9d2da37fa91e", {"region": "EU"})
    boards = [dashboard("c", asset=other), dashboard("a"), dashboard("b", "278164"), dashboard("d", source="x")]
    found = plan(RUN, boards)
    assert [decision.dashboard for decision in found.decisions] == ["a", "b", "c"]
    assert found.assets == (SHARED, other)
    assert found == plan(RUN, reversed(boards))


@pytest.mark.parametrize("status", [status for status in RunStatus if status is not RunStatus.SUCCESS])
def test_only_success_refreshes(status):
    found = plan(replace(RUN, status=status, status_word="Errored"), [dashboard("a")])
    (decision,) = found.decisions
    assert decision.action is Action.SKIP
    assert "Errored" in decision.reason
    assert found.assets == ()
