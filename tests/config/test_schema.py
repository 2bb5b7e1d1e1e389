import jsonschema
import pytest
import yaml
from pydantic import BaseModel, ConfigDict, SecretStr

from downriver.config.schema import schema
from downriver.config.template import starter_text
from downriver.connectors.registry import discover
from downriver.sources.registry import SOURCES


@pytest.fixture
def validator(source_types, connector_types):
    made = schema(source_types, connector_types)
    jsonschema.Draft202012Validator.check_schema(made)
    return jsonschema.Draft202012Validator(made)


def changed(issue, old, new):
    assert old in issue
    return yaml.safe_load(issue.replace(old, new))


def test_it_accepts_the_issue_s_file_and_the_starter(validator, issue):
    validator.validate(yaml.safe_load(issue))
    validator.validate(yaml.safe_load(starter_text()))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("sources:", "version: 1\nsources:"),
        ("workspace: acme", "workspace: \"{{ env_var('W') }}\""),
        ("workspace: acme", "workspace: 12"),
        ("workspace: acme", "workspace: acme\n    timeout: \"{{ env_var('T') }}\"\n    limits: {concurrency: \"{{ env_var('C') }}\"}"),
        ("workspace: acme", "workspace: acme\n    timeout: 1h30m\n    polling: {first: 1s}\n    limits: {requests_per_second: 4}"),
        ("name: analytics", "name: \"{{ env_var('N') }}\""),
        ("report: 9d2da37fa91e", "report: 982734501234"),
        ("{source: analytics, jobs: [278164, \"Daily Job*\"]}", "{jobs: 278164}"),
        ("{source: analytics, jobs: [278164, \"Daily Job*\"]}", "{}"),
        ("dashboards:", "dashboards: []\n#"),
    ],
)  # fmt: skip
def test_it_accepts_what_load_accepts(validator, load_text, issue, old, new):
    text = issue.replace(old, new, 1)
    if text.startswith("sources") and "dashboards: []" in text:
        text = text[: text.index("dashboards: []") + len("dashboards: []\n")]
    load_text(text, environ={"W": "w", "T": "5s", "C": "3", "N": "analytics"})
    validator.validate(yaml.safe_load(text))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("sources:", "surces: []\nsources:"),
        ("workspace: acme", "workspace: acme\n    wrkspace: acme"),
        ("workspace: acme", "limits: {}"),
        ("workspace: acme", "workspace: acme\n    limits: {concurency: 3}"),
        ("workspace: acme", "workspace: acme\n    limits: {concurrency: 0}"),
        ("workspace: acme", "workspace: acme\n    timeout: 5"),
        ("workspace: acme", "workspace: acme\n    timeout: five"),
        ("workspace: acme", "workspace: [acme]"),
        ("type: mode", "type: moode"),
        ("type: dbt_platform", "type: mode"),
        ("name: analytics", "name: an alytics"),
        ("report: 9d2da37fa91e", "reprt: 9d2da37fa91e"),
        ("report: 9d2da37fa91e", "report: {a: b}"),
        ("{source: analytics,", "{sorce: analytics,"),
        ("  - name: weekly_revenue", "  - nme: weekly_revenue"),
    ],
)
def test_it_refuses_what_load_refuses(validator, mistakes, issue, old, new):
    text = issue.replace(old, new, 1)
    assert mistakes(text)
    assert list(validator.iter_errors(yaml.safe_load(text)))


class OtherAuth(BaseModel):
    user: str
    password: SecretStr


class OtherConfig(BaseModel):
    auth: OtherAuth


class OtherAsset(BaseModel):
    model_config = ConfigDict(extra="forbid")
    report: int
    view: str | None = None


def test_several_kinds_are_told_apart_by_type_and_dashboards_take_keys_of_all(
    source_types, connector_types, kind_of, issue
):
    other = kind_of("other", "Other", OtherConfig, OtherAsset)
    made = schema(source_types, {**connector_types, "other": other})
    validator = jsonschema.Draft202012Validator(made)
    data = yaml.safe_load(issue)
    data["connections"].append({"name": "o", "type": "other", "auth": {"user": "u", "password": "{{ secret('P') }}"}})
    data["dashboards"].append({"name": "x", "connection": "o", "report": 12, "view": "v", "refresh_on": {}})
    validator.validate(data)
    data["connections"][1]["auth"]["usr"] = "u"
    assert list(validator.iter_errors(data))
    del data["connections"][1]["auth"]["usr"]
    data["connections"][1]["workspace"] = "acme"
    assert list(validator.iter_errors(data))


def test_the_schema_of_the_real_kinds(issue):
    registry = discover()
    made = schema(SOURCES, {kind: registry.spec(kind) for kind in registry.kinds})
    validator = jsonschema.Draft202012Validator(made)
    validator.check_schema(made)
    validator.validate(yaml.safe_load(issue))
    validator.validate(yaml.safe_load(starter_text()))
    assert list(validator.iter_errors(changed(issue, "report:", "reprt:")))
    assert list(validator.iter_errors(changed(issue, "workspace:", "worksapce:")))


def test_no_kinds_at_all():
    made = schema({}, {})
    jsonschema.Draft202012Validator.check_schema(made)
    jsonschema.Draft202012Validator(made).validate({"version": 1, "sources": None})
