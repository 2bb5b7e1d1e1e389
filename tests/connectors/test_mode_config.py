"""What downriver.yml may say of a Mode connection and its reports."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from pydantic import ValidationError

from downriver.connectors.mode import SPEC, ModeAsset, ModeConfig
from downriver.core.model import Asset

from .test_mode import CONFIG, REPORT, RUN, SINCE


def assets(report: object, **config: Any) -> Asset:
    (one,) = SPEC.assets(
        "here", ModeConfig.model_validate({**CONFIG, **config}), ModeAsset.model_validate({"report": report})
    )
    return one


ADDRESSES = [
    f"https://app.mode.com/acme/reports/{REPORT}",
    f"https://app.mode.com/acme/reports/{REPORT}/",
    f"https://app.mode.com/acme/reports/{REPORT}/details",
    f"https://app.mode.com/acme/reports/{REPORT}?param_x=1&utm=y#frag",
    f"https://app.mode.com/acme/reports/{REPORT}/runs/{RUN}",
    f"https://app.mode.com/acme/reports/{REPORT}/runs/{RUN}?embed=1",
    f"https://app.mode.com/editor/acme/reports/{REPORT}",
    f"https://app.mode.com/editor/acme/reports/{REPORT}/queries/aaaaaaaaaaaa",
    f"https://app.mode.com/acme/spaces/75737b70402e/reports/{REPORT}",
    f"https://app.mode.com/acme/collections/75737b70402e/reports/{REPORT}",
    f"https://app.mode.com/api/acme/reports/{REPORT}",
    f"https://mode.com/acme/reports/{REPORT}",
    f"https://www.mode.com/acme/reports/{REPORT}",
    f"http://modeanalytics.com/acme/reports/{REPORT}",
    f"https://www.modeanalytics.com/ACME/reports/{REPORT}",
    f"  https://app.mode.com:443/acme/reports/{REPORT}  ",
]


@pytest.mark.parametrize("address", [REPORT, f" {REPORT} ", *ADDRESSES])
def test_every_form_of_an_address_names_the_same_asset(address: str) -> None:
    one = assets(address)
    assert one.key == f"report:{REPORT}"
    assert one.url == f"https://app.mode.com/acme/reports/{REPORT}"


def test_an_address_of_the_base_urls_own_host_is_good() -> None:
    one = assets(f"http://127.0.0.1:8322/acme/reports/{REPORT}", base_url="http://127.0.0.1:8322")
    assert one.url == f"http://127.0.0.1:8322/acme/reports/{REPORT}"


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        (f"https://app.mode.com/rivals/reports/{REPORT}", '"rivals", but connection "here" is for "acme"'),
        (f"https://app.mode.com.evil.test/acme/reports/{REPORT}", "neither Mode nor the base_url"),
        (f"https://app.mode.com:8443/acme/reports/{REPORT}", "neither Mode nor the base_url"),
        (f"https://tableau.example.test/acme/reports/{REPORT}", "neither Mode nor the base_url"),
        (f"http://127.0.0.1:8322/acme/reports/{REPORT}", "neither Mode nor the base_url"),
        (f"ftp://app.mode.com/acme/reports/{REPORT}", "https://"),
        (f"app.mode.com/acme/reports/{REPORT}", "https://"),
        (f"https://me:pw@app.mode.com/acme/reports/{REPORT}", "user name or password"),
        ("https://app.mode.com/acme/datasets/24f66e1701b6", "names a dataset"),
        ("https://app.mode.com/acme/reports/weekly", "no report token"),
        ("https://app.mode.com/acme/reports/9D2DA37FA91E", "no report token"),
        ("https://app.mode.com/acme", "names no report"),
        ("https://app.mode.com/", "names no report"),
        ("https://[bad/acme/reports/x", "https://"),
        ("weekly_revenue", "12-character token"),
        (REPORT + "0", "12-character token"),
        (REPORT.upper(), "12-character token"),
        ("", "12-character token"),
        (120456789012, "in quotes"),
        (float("inf"), "in quotes"),
    ],
)
def test_a_reference_that_names_something_else_is_refused_with_a_sentence(reference: object, words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("(", r"\(")) as caught:
        assets(reference)
    assert "me:pw" not in str(caught.value)


def test_dates_in_parameters_become_the_text_they_were_written_as() -> None:
    raw = {"report": REPORT, "parameters": {"day": date(2026, 3, 1), "deep": [{"at": SINCE}]}}
    parameters = ModeAsset.model_validate(raw).parameters
    assert parameters == {"day": "2026-03-01", "deep": [{"at": "2026-03-01T12:00:00+00:00"}]}


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), [float("inf")], object(), b"x"])
def test_parameters_that_json_cannot_carry_are_refused(value: object) -> None:
    with pytest.raises(ValidationError):
        ModeAsset.model_validate({"report": REPORT, "parameters": {"x": value}})


@pytest.mark.parametrize(
    "changes",
    [
        {"workspace": "acme/reports"},
        {"workspace": "https://app.mode.com/acme"},
        {"workspace": ""},
        {"token": "has blank"},
        {"token": "tok:en"},
        {"token": ""},
        {"secret": "line\nend"},
        {"base_url": "app.mode.com"},
        {"base_url": "http://mode.example.test"},
        {"base_url": "https://me:pw@mode.example.test"},
        {"base_url": "https://mode.example.test?x=1"},
        {"base_url": "https://mode.example.test:port"},
        {"base_url": "ftp://mode.example.test"},
    ],
)
def test_a_wrong_connection_is_refused_without_repeating_what_was_put_in(changes: dict[str, str]) -> None:
    (key,) = changes
    with pytest.raises(ValidationError) as caught:
        ModeConfig.model_validate({**CONFIG, **changes})
    (error,) = caught.value.errors(include_input=False, include_url=False)
    assert error["loc"] == (key,)
    assert not changes[key] or changes[key] not in str(caught.value)


@pytest.mark.parametrize(
    "base_url", ["https://app.mode.com/", "https://app.mode.com/api", "https://app.mode.com/api/"]
)
def test_base_url_may_be_written_as_the_vendor_writes_it(base_url: str) -> None:
    assert SPEC.base_url(ModeConfig.model_validate({**CONFIG, "base_url": base_url})) == "https://app.mode.com"
