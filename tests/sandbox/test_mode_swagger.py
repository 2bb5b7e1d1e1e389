"""Every answer of the Mode stand-in against Mode's own Swagger document (excerpt in tests/specs).

Required keys, enums and nested definitions count; scalar types do not: the document types booleans and
dates as strings and has no nulls, live answers have both.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from downriver.sandbox.mode import SettingsChange

from .conftest import Client, basic

DOCUMENT = json.loads((Path(__file__).parents[1] / "specs" / "mode-excerpt.json").read_text())
REPORT, DATASET, FAILING, NOTEBOOK = "9d2da37fa91e", "24f66e1701b6", "5b0c6f2e8a13", "3a7be19c04d2"


def untyped(schema: Any) -> Any:
    """The schema without scalar types (objects and arrays stay)."""
    if isinstance(schema, list):
        return [untyped(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    scalar = schema.get("type") in ("string", "integer", "number", "boolean")
    return {key: untyped(value) for key, value in schema.items() if not (key == "type" and scalar)}


DEFINITIONS = untyped(DOCUMENT["definitions"])


def check(name: str, answer: object) -> None:
    schema = {"$ref": f"#/definitions/{name}", "definitions": DEFINITIONS}
    jsonschema.Draft4Validator(schema).validate(answer)


@pytest.mark.parametrize("report", [REPORT, FAILING, NOTEBOOK])
async def test_answers_about_reports(client: Client, report: str) -> None:
    client.box.mode.change(SettingsChange(time_scale=0.0))
    check("Account", (await client.mode("GET", "/api/acme")).json)
    check("Report", (await client.mode("GET", f"/api/acme/reports/{report}")).json)
    run = (await client.run(report)).json
    check("ReportRun", run)
    check("ReportRun", (await client.mode("GET", run["_links"]["self"]["href"])).json)
    page = (await client.mode("GET", f"/api/acme/reports/{report}/runs")).json
    check("ReportRuns", page)
    for row in page["_embedded"]["report_runs"]:
        check("ReportRun", row)
    queries = (await client.mode("GET", run["_links"]["query_runs"]["href"])).json
    check("QueryRuns", queries)
    for row in queries["_embedded"]["query_runs"]:
        check("QueryRun", row)
    check("Report", (await client.mode("GET", f"/api/acme/reports/{report}")).json)


async def test_answers_about_datasets_and_collections(client: Client) -> None:
    check("Report", (await client.mode("GET", f"/api/acme/datasets/{DATASET}")).json)
    run = (await client.mode("POST", f"/api/acme/datasets/{DATASET}/runs")).json
    check("DatasetRun", run)
    check("DatasetRun", (await client.mode("GET", run["_links"]["self"]["href"])).json)
    check("ReportRuns", (await client.mode("GET", f"/api/acme/datasets/{DATASET}/runs")).json)
    reports = (await client.mode("GET", "/api/acme/spaces/75737b70402e/reports")).json
    check("Reports", reports)
    for row in reports["_embedded"]["reports"]:
        check("Report", row)


async def test_errors(client: Client) -> None:
    check("Unauthorized", (await client.mode("GET", "/api/verify", auth="")).json)
    check("NotFound", (await client.mode("GET", "/api/nobody")).json)
    check("Forbidden", (await client.run("b162cf8e4079")).json)
    path = f"/api/acme/reports/{REPORT}/runs"
    check("ParamMissing", (await client.mode("POST", path, json={})).json)
    check("BadRequest", (await client.mode("POST", path, json={"parameters": 1})).json)
    check("InternalServerError", (await client.mode("GET", path + "?filter=x")).json)


async def test_rate_limited(client: Client) -> None:
    client.box.mode.change(SettingsChange(rate_limit=1))
    looker = basic("100c0ffee042", "sandbox-look-only")
    assert (await client.mode("GET", "/api/verify", auth=looker)).status == 200
    check("RateLimited", (await client.mode("GET", "/api/verify", auth=looker)).json)


def test_the_check_can_fail() -> None:
    with pytest.raises(jsonschema.ValidationError, match="'_links' is a required property"):
        check("ReportRun", {"state": "enqueued", "token": "0d7a98ed1951"})
    with pytest.raises(jsonschema.ValidationError):
        check("ReportRun", {**{key: {} for key in DEFINITIONS["ReportRun"]["required"]}, "state": "sleeping"})
