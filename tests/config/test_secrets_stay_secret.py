"""Planted secrets are searched for in everything that a person may come to see."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from downriver.config.problems import ConfigProblems
from downriver.core.errors import DownriverError


def everything_of(error):
    """All text of an error, its causes and its problems."""
    said = []
    while error is not None:
        said += [str(error), repr(error), repr(error.args)]
        said += [repr(vars(error))]
        error = error.__cause__ or error.__context__
    return "\n".join(said)


def test_not_in_the_configuration(load_text, issue):
    config = load_text(issue.replace("\"{{ secret('MODE_API_SECRET') }}\"", "planted-in-file-77"))
    said = "\n".join([repr(config), str(config), *map(str, config.warnings), *map(repr, config.warnings)])
    said += "".join(repr(one.options.model_dump()) + one.options.model_dump_json() for one in config.connections)
    assert "planted" not in said
    assert config.warnings


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("workspace: acme", "workspace: \"{{ secret('MODE_API_TOKEN') }}\""),
        ("weekly_revenue", "\"{{ secret('MODE_API_TOKEN') }}\""),
        ("type: mode", "type: \"{{ secret('MODE_API_TOKEN') }}\""),
        ("connection: mode", "connection: \"{{ secret('MODE_API_TOKEN') }}\""),
        ("source: analytics", "source: \"{{ secret('MODE_API_TOKEN') }}\""),
        ("278164", "\"{{ secret('MODE_API_TOKEN') }}\""),
        ("user_id: 123", "user_id: \"{{ secret('MODE_API_TOKEN') }}\""),
        ("sources:", "\"{{ secret('MODE_API_TOKEN') }}\": 1\nsources:"),
        ("\"{{ secret('MODE_API_TOKEN') }}\"", "{a: \"{{ secret('MODE_API_TOKEN') }}\"}"),
        ("\"{{ secret('MODE_API_TOKEN') }}\"", "planted{{word"),
        ("\"{{ secret('MODE_API_TOKEN') }}\"", "\"{{ planted }}\""),
        ("\"{{ secret('MODE_API_TOKEN') }}\"", "*planted"),
        ("\"{{ secret('MODE_API_TOKEN') }}\"", "!planted"),
        ("\"{{ secret('MODE_API_TOKEN') }}\"", "&planted x: y"),
        ("\"{{ secret('MODE_API_TOKEN') }}\"", "@planted"),
        ("\"{{ secret('MODE_API_TOKEN') }}\"", "%planted"),
        ("\"{{ secret('MODE_API_TOKEN') }}\"", "`planted`"),
        ("\"{{ secret('MODE_API_TOKEN') }}\"", "\"planted\\y\""),
        ("\"{{ secret('MODE_API_TOKEN') }}\"", "planted: planted: planted"),
        ("\"{{ secret('MODE_API_TOKEN') }}\"", "[planted, [planted"),
        ("\"{{ secret('MODE_API_TOKEN') }}\"", "\"{{ env_var('X', 'planted' }}\""),
        ("\"{{ secret('MODE_API_TOKEN') }}\"", "\"{{ secret('planted one') }}\""),
        ("\"{{ secret('MODE_API_SECRET') }}\"", "wrong-planted-value"),
        ("\"{{ secret('MODE_API_SECRET') }}\"", "\"wrong{{ secret('MODE_API_SECRET') }}\""),
    ],
)  # fmt: skip
def test_not_in_the_errors(load_text, issue, old, new):
    assert old in issue
    with pytest.raises(ConfigProblems) as caught:
        load_text(issue.replace(old, new, 1))
    assert caught.value.problems
    assert "planted" not in everything_of(caught.value)


def test_a_kind_that_repeats_a_secret_in_its_error_is_struck_out(mistakes, issue, secrets):
    secrets.values["MODE_API_SECRET"] = "wrong-planted-value"
    assert mistakes(issue) == ["downriver.yml:10:13  connections[0].secret  ••• is not what a secret looks like."]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_not_after_any_change_of_the_file(load_text, issue, vault_values, data):
    """Lines moved, lost, doubled and re-indented: whatever then happens, no value of the vault is said."""
    lines = issue.splitlines()
    for _ in range(data.draw(st.integers(1, 3))):
        a = data.draw(st.integers(0, len(lines) - 1))
        b = data.draw(st.integers(0, len(lines) - 1))
        match data.draw(st.sampled_from(["swap", "drop", "double", "indent", "requote", "value"])):
            case "swap":
                lines[a], lines[b] = lines[b], lines[a]
            case "drop" if len(lines) > 1:
                del lines[a]
            case "double":
                lines.insert(b, lines[a])
            case "indent":
                lines[a] = " " * data.draw(st.integers(1, 4)) + lines[a]
            case "requote":
                lines[a] = lines[a].replace('"', data.draw(st.sampled_from(["", "'", "|"])))
            case "value":
                key, _, _ = lines[a].partition(":")
                lines[a] = f"{key}: {lines[b].partition(':')[2]}"
    try:
        said = repr(load_text("\n".join(lines)))
    except DownriverError as error:
        said = everything_of(error)
    assert not [value for value in vault_values if value in said]
