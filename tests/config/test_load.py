from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, SecretStr

from downriver.config.model import LimitsConfig, PollingConfig
from downriver.core.errors import VaultError
from downriver.core.model import Asset, Dashboard, Rule

SOURCE = "sources: [{name: analytics, type: dbt_platform, webhook_secret: \"{{ secret('DBT_WEBHOOK_KEY') }}\"}]\n"
CONNECTION = (
    "connections:\n  - name: tool\n    type: mode\n    workspace: acme\n"
    "    token: \"{{ secret('MODE_API_TOKEN') }}\"\n    secret: \"{{ secret('MODE_API_SECRET') }}\"\n"
)


def dashboard(*lines):
    return "dashboards:\n  - name: d\n    connection: tool\n" + "".join(f"    {line}\n" for line in lines)


def test_the_issue_s_file_is_accepted_as_written(load_text, issue, tmp_path):
    config = load_text(issue)
    assert config.path == tmp_path / "downriver.yml"
    assert config.home == tmp_path / ".downriver"
    assert config.warnings == ()
    (source,), (connection,), (one,) = config.sources, config.connections, config.dashboards
    assert (source.name, source.type, source.line) == ("analytics", "dbt_platform", 2)
    assert source.options.webhook_secret.get_secret_value() == "planted-webhook-1f0e"
    assert (connection.name, connection.type, connection.line) == ("mode", "mode", 6)
    assert connection.options.workspace == "acme"
    assert connection.options.token.get_secret_value() == "planted-token-2b3c"
    assert connection.timeout == timedelta(hours=1)
    assert connection.limits == LimitsConfig(None, None)
    assert connection.polling == PollingConfig(timedelta(seconds=2), timedelta(seconds=30))
    asset = Asset("mode", "report", "9d2da37fa91e", {"user_id": 123, "location": "San Francisco"})
    assert (one.name, one.connection, one.line, one.assets) == ("weekly_revenue", "mode", 13, (asset,))
    rule = Rule("analytics", ("278164", "Daily Job*"))
    assert config.as_dashboards() == (Dashboard("weekly_revenue", (asset,), rule, None, None),)


def test_every_secret_is_asked_for_once(load_text, secrets, issue):
    load_text(issue.replace("MODE_API_SECRET", "MODE_API_TOKEN"))
    assert sorted(secrets.asked) == ["DBT_WEBHOOK_KEY", "MODE_API_TOKEN"]


def test_all_of_a_connection_s_keys(load_text):
    text = CONNECTION + (
        "    base_url: http://127.0.0.1:1\n    timeout: 1h30m\n"
        "    limits: {requests_per_second: 0.5, concurrency: '7'}\n    polling: {first: 50ms, max: 2s}\n"
    )
    (connection,) = load_text(text).connections
    assert connection.options.base_url == "http://127.0.0.1:1"
    assert connection.timeout == timedelta(minutes=90)
    assert connection.limits == LimitsConfig(0.5, 7)
    assert connection.polling == PollingConfig(timedelta(milliseconds=50), timedelta(seconds=2))


@pytest.mark.parametrize("text", ["version: 1\n", "sources:\nconnections:\ndashboards:\n", "sources: []", "{}"])
def test_little_or_nothing_is_a_configuration_too(load_text, text):
    config = load_text(text)
    assert config.sources == config.connections == config.dashboards == ()


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("refresh_on: {source: analytics}", Rule("analytics", ())),
        ("refresh_on: {}", Rule("analytics", ())),
        ("refresh_on: {jobs: 278164}", Rule("analytics", ("278164",))),
        ("refresh_on: {jobs: Daily Job}", Rule("analytics", ("Daily Job",))),
        ("refresh_on: {jobs: [0123, 1e5, '7', true]}", Rule("analytics", ("0123", "1e5", "7", "true"))),
        ("refresh_on: {jobs: 9007199254740993}", Rule("analytics", ("9007199254740993",))),
        ("title: only by hand", None),
    ],
)
def test_rules(load_text, line, rule):
    config = load_text(SOURCE + CONNECTION + dashboard("report: r", line))
    assert config.as_dashboards()[0].rule == rule


@pytest.mark.parametrize(
    "token", ["123456789012", "012345678901", "123456789e12", "1234567e9012", "0x1234567890", "true"]
)
def test_a_token_that_looks_like_a_number_stays_what_it_is(load_text, token):
    """Hex tokens of digits and one `e` are floats to YAML, infinite ones even; leading zeros would be lost."""
    config = load_text(CONNECTION + dashboard(f"report: {token}"))
    assert config.dashboards[0].assets[0].ref == token


def test_parameters_have_the_types_of_yaml_1_2(load_text):
    lines = "parameters: {i: 12, f: 1.5, e: 1e3, t: true, n: ~, no: no, y: yes, s: '12', d: 2026-01-02, x: 0x1f, o: 0o17, z: 012, l: [1, {a: b}]}"
    config = load_text(CONNECTION + dashboard("report: r", lines))
    assert config.dashboards[0].options.parameters == {
        "i": 12, "f": 1.5, "e": 1000.0, "t": True, "n": None, "no": "no", "y": "yes", "s": "12", "d": "2026-01-02",
        "x": 31, "o": 15, "z": 12, "l": [1, {"a": "b"}],
    }  # fmt: skip


def test_references_stand_alone_or_in_text_and_make_numbers(load_text):
    text = CONNECTION.replace("acme", "\"{{ env_var('WS') }}-{{env_var(\\\"STAGE\\\",'dev')}}\"") + (
        "    limits: {concurrency: \"{{ env_var('N') }}\"}\n"
    )
    (connection,) = load_text(text, environ={"WS": "acme", "N": "12"}).connections
    assert connection.options.workspace == "acme-dev"
    assert connection.limits.concurrency == 12


def test_names_and_types_may_be_references(load_text):
    text = (SOURCE + CONNECTION).replace("name: analytics", "name: \"{{ env_var('SRC') }}\"")
    text = text.replace("type: mode", "type: \"{{ env_var('T', 'mode') }}\"").replace("name: tool", "name: my_secret")
    text += dashboard("report: r", "refresh_on: {source: src}").replace("connection: tool", "connection: my_secret")
    config = load_text(text, environ={"SRC": "src"})
    assert config.dashboards[0].rule == Rule("src", ())
    assert config.connections[0].type == "mode"


def test_a_secret_within_text_stays_one(load_text):
    config = load_text(
        CONNECTION.replace("\"{{ secret('MODE_API_TOKEN') }}\"", "\"Bearer {{ secret('MODE_API_TOKEN') }}\"")
    )
    token = config.connections[0].options.token
    assert isinstance(token, SecretStr)
    assert token.get_secret_value() == "Bearer planted-token-2b3c"
    assert config.warnings == ()


def test_braces_can_be_written(load_text):
    config = load_text(CONNECTION + dashboard("report: r", "title: \"{{ '{{' }} x }}\""))
    assert config.dashboards[0].title == "{{ x }}"


def test_a_list_of_secrets(load_text):
    text = SOURCE.replace(
        "\"{{ secret('DBT_WEBHOOK_KEY') }}\"", "[\"{{ secret('DBT_WEBHOOK_KEY') }}\", \"{{ env_var('OLD') }}\"]"
    )
    config = load_text(text, environ={"OLD": "old-key"})
    assert [one.get_secret_value() for one in config.sources[0].options.webhook_secret] == [
        "planted-webhook-1f0e",
        "old-key",
    ]
    assert config.warnings == ()


def test_anchors_and_merges(load_text):
    text = (
        CONNECTION.replace("- name", "- &base\n    name")
        + ("  - <<: *base\n    name: second\n    workspace: other\n")
        + dashboard("report: r", "parameters: &p {a: 1, b: 2}", "pages: [1]")
        + (
            "  - {name: e, connection: second, report: r, parameters: {<<: *p, b: 3}}\n"
            "  - {name: f, connection: second, report: r, parameters: {<<: [*p, {c: 4}]}}\n"
        )
    )
    config = load_text(text)
    assert [(c.name, c.options.workspace) for c in config.connections] == [("tool", "acme"), ("second", "other")]
    assert [d.options.parameters for d in config.dashboards] == [
        {"a": 1, "b": 2},
        {"b": 3, "a": 1},
        {"a": 1, "b": 2, "c": 4},
    ]


def test_a_bom_and_windows_line_ends(load_text, issue):
    config = load_text(b"\xef\xbb\xbf" + issue.replace("\n", "\r\n").encode())
    assert (config.dashboards[0].line, config.as_dashboards()[0].rule.jobs) == (13, ("278164", "Daily Job*"))


@pytest.mark.parametrize(
    ("said", "home"), [("", ".downriver"), ("data", "data"), ("/var/lib/downriver", "/var/lib/downriver")]
)
def test_the_data_home(load_text, tmp_path, said, home):
    assert load_text("version: 1", environ={"DOWNRIVER_HOME": said}).home == tmp_path / Path(home)


# -- warnings ---------------------------------------------------------------------------------------


def test_a_secret_in_plain_text_is_accepted_and_warned_of(load_text):
    config = load_text(CONNECTION.replace("\"{{ secret('MODE_API_TOKEN') }}\"", "written-here-77"))
    (warning,) = config.warnings
    assert config.connections[0].options.token.get_secret_value() == "written-here-77"
    assert str(warning) == (
        "downriver.yml:5:12  connections[0].token  this secret stands in the file as plain text. Put it in the vault: "
        "`downriver secrets set TOOL_TOKEN`, and write \"{{ secret('TOOL_TOKEN') }}\" here."
    )


@pytest.mark.parametrize(
    ("value", "environ", "warned"),
    [
        ("{{ env_var('X') }}", {"X": "from-env"}, []),
        ("{{ env_var('X', 'written-here') }}", {"X": "from-env"}, []),
        ("{{ env_var('X', 'written-here') }}", {}, ["plain text"]),
        ("{{ env_var('X') }}", {"X": "from-env\n"}, ["white space"]),
        (" written-here", {}, ["white space", "plain text"]),
    ],
)
def test_warnings_of_secrets(load_text, value, environ, warned):
    config = load_text(CONNECTION.replace("{{ secret('MODE_API_TOKEN') }}", value), environ=environ)
    assert len(config.warnings) == len(warned)
    assert all(word in warning.message for word, warning in zip(warned, config.warnings, strict=True))


# -- kinds ------------------------------------------------------------------------------------------


def test_kinds_are_made_only_when_asked_for(load_text, connector_types):
    class Lazy(dict):
        made = []

        def __getitem__(self, key):
            self.made.append(key)
            return super().__getitem__(key)

    kinds = Lazy(connector_types, other=connector_types["mode"])
    load_text(CONNECTION, connector_types=kinds)
    assert set(kinds.made) == {"mode"}


class NestedAuth(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: str
    password: SecretStr


class Nesting(BaseModel):
    auth: NestedAuth
    headers: dict[str, SecretStr] = {}
    extra: dict[str, str] = {}
    anything: object = None


def test_secrets_may_stand_wherever_a_model_wants_them(load_text, kind_of):
    text = (
        "connections:\n- name: n\n  type: nest\n  auth: {kind: basic, password: \"{{ secret('MODE_API_TOKEN') }}\"}\n"
        "  headers: {x: \"{{ secret('MODE_API_SECRET') }}\"}\n  extra: {a: 012}\n  anything: {a: [012]}\n"
    )
    config = load_text(text, connector_types={"nest": kind_of("nest", "N", Nesting)})
    options = config.connections[0].options
    assert options.auth.password.get_secret_value() == "planted-token-2b3c"
    assert options.headers["x"].get_secret_value() == "planted-secret-9d8a"
    assert (options.extra, options.anything) == ({"a": "012"}, {"a": [12]})
    assert "planted" not in repr(config)


def test_a_locked_vault_is_said_once(mistakes, issue):
    def locked(name):
        raise VaultError("The vault's key is lost.")

    assert mistakes(issue, secrets=locked) == [
        "downriver.yml:4:22  sources[0].webhook_secret  The vault's key is lost."
    ]
