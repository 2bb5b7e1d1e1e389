"""Holds a request against Mode's own Swagger document (tests/specs/mode)."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jsonschema

from downriver.connectors.http import Request

DOCUMENT: dict[str, Any] = json.loads((Path(__file__).parents[1] / "specs" / "mode" / "requests.json").read_text())
PAGING = {"page", "per_page"}
"""Query parameters of every list that the document leaves out."""


def check_request(request: Request) -> str:
    """The operation that the request is; AssertionError where it departs from the document."""
    parts = urlsplit(request.url)
    template, operation = _operation(request.method, parts.path)
    assert request.headers["Accept"] in DOCUMENT["produces"]
    scheme, _, pair = request.headers["Authorization"].partition(" ")
    assert scheme == "Basic"
    assert base64.b64decode(pair, validate=True).decode().count(":") == 1
    documented = {one["name"] for one in operation.get("parameters", []) if one["in"] == "query"}
    asked = set(parse_qs(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    # `filter` is documented, and answers 500 on every list of runs (facts/bi-core.md §2.5).
    assert asked <= (documented | PAGING) - {"filter"}, f"unknown query parameters: {asked}"
    if request.method == "POST":
        assert request.headers["Content-Type"] in DOCUMENT["consumes"]
        assert template == "/{account}/reports/{report}/runs", "the one POST we make"
        schema = {"$ref": "#/definitions/RunReportRequestBody", "definitions": DOCUMENT["definitions"]}
        jsonschema.Draft4Validator(schema).validate(json.loads(request.body or b""))
        assert json.loads(request.body or b"").keys() == {"parameters"}
        return "runReport"
    assert request.body is None
    return str(operation["operationId"])


def _operation(method: str, path: str) -> tuple[str, dict[str, Any]]:
    base = DOCUMENT["basePath"]
    for template, operations in DOCUMENT["paths"].items():
        whole = template if template.startswith(base + "/") else base + template
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", whole), path) and method.lower() in operations:
            return template, operations[method.lower()]
    raise AssertionError(f"Mode's document has no {method} {path}")
