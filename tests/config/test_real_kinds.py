"""The file of the issue and the starter with the kinds that ship."""

import pytest

from downriver.config.template import starter_text
from downriver.connectors.registry import discover
from downriver.core.model import Rule
from downriver.sources.registry import SOURCES


@pytest.fixture
def real():
    registry = discover()
    return {"source_types": SOURCES, "connector_types": {kind: registry.spec(kind) for kind in registry.kinds}}


@pytest.mark.parametrize("text", ["issue", "starter"])
def test_they_load(load_text, real, issue, text):
    config = load_text(issue if text == "issue" else starter_text(), **real)
    assert config.warnings == ()
    assert [(one.name, one.type) for one in config.sources] == [("analytics", "dbt_platform")]
    assert [(one.name, one.type) for one in config.connections] == [("mode", "mode")]
    (dashboard,) = config.as_dashboards()
    (asset,) = dashboard.assets
    assert (asset.ref, asset.parameters) == ("9d2da37fa91e", {"user_id": 123, "location": "San Francisco"})
    assert dashboard.rule == Rule("analytics", ("278164", "Daily Job*"))
    for spec, one in zip((real["connector_types"]["mode"],), config.connections, strict=True):
        assert "planted" not in spec.base_url(one.options)


def test_every_key_the_starter_mentions_is_known(load_text, real):
    """The commented lines are advice: uncommented, they load too."""
    lines = starter_text().splitlines()
    advice = ("base_url:", "timeout:", "limits:", "polling:", "title:", "owner:")
    told = [line.replace("# ", "", 1) if any(f"# {key}" in line for key in advice) else line for line in lines]
    assert sum(a != b for a, b in zip(lines, told, strict=True)) == len(advice)
    config = load_text("\n".join(told), **real)
    assert (config.dashboards[0].title, config.connections[0].limits.concurrency) == ("Weekly revenue", 20)


def test_their_mistakes_are_said_at_their_places(mistakes, real, issue):
    text = issue.replace("acme", "https://app.example/acme").replace("9d2da37fa91e", "9d2da37fa91")
    text = text.replace("\"{{ secret('DBT_WEBHOOK_KEY') }}\"", "[]").replace(
        "    # base_url: https://app.mode.com ", "    base_url: ftp://x "
    )
    said = mistakes(text, **real)
    assert [line.split("  ")[1] for line in said] == [
        "sources[0].webhook_secret", "connections[0].workspace", "connections[0].base_url", "dashboards[0].report",
    ]  # fmt: skip
    assert [line.split(":")[1] for line in said] == ["4", "8", "11", "15"]


def test_numbers_that_are_tokens_and_pasted_addresses(load_text, real, issue):
    for written, token in (("123456789e12", "123456789e12"), ("012345678901", "012345678901")):
        config = load_text(issue.replace("9d2da37fa91e", written), **real)
        assert config.as_dashboards()[0].assets[0].ref == token
    config = load_text(issue.replace("9d2da37fa91e", "https://app.mode.com/acme/reports/9d2da37fa91e"), **real)
    assert config.as_dashboards()[0].assets[0].ref == "9d2da37fa91e"
