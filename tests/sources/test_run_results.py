"""What dbt's commands did: run results and source freshness, real ones, other versions, odd shapes."""

import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from downriver.core.errors import BadInput
from downriver.core.model import NodeResult
from downriver.sources.artifacts import (
    decode_run_results,
    decode_run_results_file,
    decode_sources,
    decode_sources_file,
    merge_results,
)

CASES = Path(__file__).parents[1] / "data" / "artifacts"


def results(case):
    return decode_run_results_file(CASES / case / "run_results.json")


def test_real_results_of_a_failing_test():
    ran = results("failing_test/1-build")
    assert (ran.which, ran.building, ran.schema_version, ran.dbt_version) == ("build", True, 6, "1.11.16")
    assert ran.command == "dbt build --profiles-dir ."
    assert ran.generated_at.tzinfo is UTC
    by_id = {one.unique_id: one for one in ran.results}
    failed = by_id["test.jaffle.assert_payments_are_positive"]
    assert (failed.status, failed.failures) == ("fail", 1)
    assert failed.message == "Got 1 result, configured to fail if != 0"
    assert by_id["model.jaffle.orders"] == NodeResult("model.jaffle.orders", "skipped", execution_time=0.0)
    built = by_id["model.jaffle.stg_payments"]
    assert (built.status, built.message) == ("success", "OK")
    assert built.completed_at.tzinfo is UTC
    assert built.execution_time > 0
    assert Counter(one.status for one in ran.results) == {
        "pass": 15,
        "success": 9,
        "skipped": 12,
        "fail": 1,
        "no-op": 2,
    }


def test_an_error_message_is_short_and_without_sql():
    by_id = {one.unique_id: one for one in results("broken_model/1-build").results}
    assert by_id["model.jaffle.tickets_daily"].message == (
        "Runtime Error in model tickets_daily (models/marts/support/tickets_daily.sql) · Binder Error: Referenced"
        ' column "no_such_column" not found in FROM clause! · Candidate bindings: "topic"'
    )


@pytest.mark.parametrize(
    ("message", "short"),
    [
        (
            'Database Error in model m (m.sql)\n  syntax error at or near "x"\n  LINE 9: select secret\n   ^',
            'Database Error in model m (m.sql) · syntax error at or near "x"',
        ),
        ("Database Error\n  boom\n  compiled code at target/run/m.sql", "Database Error · boom"),
        ("[PARSE_ERROR] near x\n\n== SQL ==\nselect secret", "[PARSE_ERROR] near x"),
        ("(ProgrammingError) no such table [SQL: select secret]", "(ProgrammingError) no such table"),
        ("\n\n", None),
        ("", None),
        (None, None),
        ("x" * 1000, "x" * 300),
        ("1\n2\n3\n4", "1 · 2 · 3"),
    ],
)
def test_messages_stop_where_sql_begins(message, short):
    (one,) = decode_run_results(_ran([{"unique_id": "model.p.m", "status": "error", "message": message}])).results
    assert one.message == short


def _ran(entries, which="build", version=6, **args):
    return json.dumps(
        {
            "metadata": {"dbt_schema_version": f"https://schemas.getdbt.com/dbt/run-results/v{version}.json"},
            "results": entries,
            "args": {"which": which, **args},
        }
    ).encode()


def test_docs_generate_is_not_building_although_it_calls_everything_a_success():
    docs = results("docs_last/2-docs")
    assert (docs.which, docs.building) == ("generate", False)
    assert {one.status for one in docs.results} == {"success"}
    merged = {one.unique_id: one.status for one in merge_results([results("docs_last/1-build"), docs])}
    assert merged["model.jaffle.tickets_daily"] == "error"
    assert merged == {one.unique_id: one.status for one in results("docs_last/1-build").results}


def test_a_retry_carries_the_word_of_what_it_retried_and_completes_it():
    retry = results("broken_model/2-retry")
    assert (retry.which, retry.building, len(retry.results)) == ("build", True, 3)
    first = results("broken_model/1-build")
    merged = {one.unique_id: one.status for one in merge_results([first, retry])}
    assert len(merged) == len(first.results)
    assert merged["model.jaffle.tickets_daily"] == "success"
    assert merged["exposure.jaffle.support_load"] == "no-op"
    assert "error" not in merged.values()
    assert merge_results([retry, first]) != merge_results([first, retry])


def test_steps_of_one_run_are_united():
    steps = [results(f"run_then_test/{step}") for step in ("1-seed", "2-run", "3-test")]
    assert [step.which for step in steps] == ["seed", "run", "test"]
    merged = {one.unique_id: one.status for one in merge_results(steps)}
    assert len(merged) == sum(len(step.results) for step in steps)
    assert merged["seed.jaffle.stores"] == merged["model.jaffle.orders"] == "success"
    assert merged["test.jaffle.assert_payments_are_positive"] == "fail"
    assert merge_results([]) == ()


def test_a_run_of_nothing():
    assert results("nothing/2-build").results == ()
    assert results("nothing/2-build").building


@pytest.mark.parametrize("version", [4, 5, 6, 7])
def test_other_versions_of_run_results(version):
    ran = decode_run_results(_ran([{"unique_id": "model.p.m", "status": "success"}], version=version))
    assert ran.results == (NodeResult("model.p.m", "success"),)
    assert bool(ran.notes) == (version == 7)


def test_unknown_statuses_are_kept_and_odd_results_read_as_far_as_they_go():
    ran = decode_run_results(
        _ran(
            [
                {"unique_id": "model.p.a", "status": "partial success", "adapter_response": {"rows_affected": 12}},
                {"unique_id": "model.p.b", "status": "reused", "adapter_response": {"rows_affected": -1}},
                {"unique_id": "model.p.c", "status": "transmogrified", "adapter_response": "INSERT 0 1"},
                {
                    "unique_id": "model.p.d",
                    "status": "success",
                    "timing": "soon",
                    "adapter_response": {"rows_affected": "7"},
                },
                {"unique_id": "model.p.e", "adapter_response": {"rows_affected": True}},
                {"unique_id": "model.p.f", "status": "success", "failures": "3", "execution_time": "1.5"},
                {
                    "unique_id": "model.p.g",
                    "status": "success",
                    "timing": [{"name": "execute", "completed_at": "2026-09-01T05:00:00.123456789Z"}],
                },
                {
                    "unique_id": "model.p.h",
                    "status": "success",
                    "timing": [{"name": "execute", "completed_at": "yesterday"}, {}],
                },
                {
                    "unique_id": "model.p.i",
                    "status": "success",
                    "timing": [{"name": "compile", "completed_at": "2026-09-01 05:00:00"}],
                },
                {"status": "success"},
                7,
            ]
        )
    )
    by_name = {one.unique_id[-1]: one for one in ran.results}
    assert [one.status for one in ran.results] == [
        "partial success",
        "reused",
        "transmogrified",
        "success",
        "unknown",
        "success",
        "success",
        "success",
        "success",
    ]
    assert [by_name[name].rows_affected for name in "abcde"] == [12, None, None, None, None]
    assert (by_name["f"].failures, by_name["f"].execution_time) == (3, 1.5)
    assert by_name["g"].completed_at == datetime(2026, 9, 1, 5, 0, 0, 123456, tzinfo=UTC)
    assert by_name["h"].completed_at is None
    assert by_name["i"].completed_at == datetime(2026, 9, 1, 5, tzinfo=UTC)
    assert len(ran.notes) == 4


@pytest.mark.parametrize(
    ("args", "which", "building"),
    [
        ({"which": "run"}, "run", True),
        ({"which": "generate"}, "generate", False),
        ({"which": None, "invocation_command": "dbt --quiet build --select x"}, "build", True),
        ({"which": None, "invocation_command": "dbt docs generate"}, "docs", False),
        ({"which": 3}, "", False),
        ({}, "build", True),
    ],
)
def test_which_command_it_was(args, which, building):
    ran = decode_run_results(_ran([], **args))
    assert (ran.which, ran.building) == (which, building)


def test_results_without_args_or_of_a_wrong_shape():
    bare = b'{"metadata": {"dbt_schema_version": "https://schemas.getdbt.com/dbt/run-results/v6.json"}}'
    assert decode_run_results(bare).results == ()
    assert not decode_run_results(bare).building
    with pytest.raises(BadInput, match="shape"):
        decode_run_results(b'{"results": {}, "metadata": {"dbt_schema_version": "/dbt/run-results/v6"}}')


# ------------------------------------------------------------------------------- source freshness


def test_real_source_freshness():
    stale = decode_sources_file(CASES / "stale_sources/1-freshness/sources.json")
    fresh = decode_sources_file(CASES / "fresh_sources/1-freshness/sources.json")
    assert [(one.unique_id, one.status) for one in stale.results] == [
        (f"source.jaffle.shop.{table}", "error") for table in ("customers", "orders", "payments")
    ]
    assert {one.status for one in fresh.results} == {"pass"}
    one = fresh.results[0]
    assert one.max_loaded_at == datetime(2026, 8, 1, 5, 40, tzinfo=UTC)
    assert one.age_seconds == pytest.approx((one.snapshotted_at - one.max_loaded_at).total_seconds(), abs=1)
    assert stale.invocation_id
    assert stale.generated_at > one.max_loaded_at


def test_a_freshness_check_that_failed():
    document = {
        "metadata": {"dbt_schema_version": "https://schemas.getdbt.com/dbt/sources/v3.json"},
        "results": [
            {"unique_id": "source.p.s.t", "error": "no such table\nLINE 1: select x", "status": "runtime error"},
            {},
        ],
    }
    (one,) = decode_sources(json.dumps(document).encode()).results
    assert (one.status, one.error, one.max_loaded_at) == ("runtime error", "no such table", None)
