"""Whatever stands in the file: a Config, or ConfigProblems with places within the file. Nothing else."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from downriver.config.model import Config
from downriver.config.problems import ConfigProblems

SETTINGS = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SNIPPETS = st.sampled_from(
    [
        "{{", "}}", "{{ secret('X') }}", "{{ env_var('X', 'y') }}", "[", "]", "{", "}", ":", ": ", "- ", "\n", "\n  ", "\t", "'", '"',
        "&a ", "*a", "!!str ", "!x ", "<<: *a", "|", ">", "%", "---", "...", "#", "? ", "\\", "\0", "\x7f", "\ufeff", "\u2028", "\x85",
        "~", "null", "true", ".nan", "1e999", "9" * 500, "0o8", "0x", "name: ", "type: ", "%YAML 1.1\n", "%TAG ! x\n", "ä", "😀", "\ud800",
    ]
)  # fmt: skip


def outcome(load_text, text):
    try:
        return load_text(text)
    except ConfigProblems as error:
        return error


def check(load_text, text):
    found = outcome(load_text, text)
    if isinstance(found, Config):
        return found
    count = (text.count(b"\n") if isinstance(text, bytes) else len(text.splitlines()) + text.count("\n")) + 2
    assert found.problems
    for problem in found.problems:
        assert 1 <= problem.line <= count
        assert problem.column >= 1
        assert problem.message.strip()
        assert problem.message[-1] in ".?!"
    return None


@SETTINGS
@given(st.data())
def test_the_issue_s_file_with_pieces_put_in_or_cut_out(load_text, issue, data):
    text = issue
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        cut = data.draw(st.integers(0, 20))
        text = text[:at] + data.draw(SNIPPETS | st.text(max_size=5)) + text[at + cut :]
    check(load_text, text)


@SETTINGS
@given(st.lists(SNIPPETS, max_size=30).map("".join))
def test_pieces_alone(load_text, text):
    check(load_text, text)


@SETTINGS
@given(st.binary(max_size=200))
def test_bytes(load_text, text):
    check(load_text, text)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["mode", "analytics", "1h", "{{ secret('NO') }}"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@SETTINGS
@given(st.data())
def test_any_value_at_any_key(load_text, issue, data):
    """YAML that is right, with values of the wrong sort: JSON is YAML, so the values are written as such."""
    import json

    keys = [
        "version", "name", "type", "webhook_secret", "workspace", "token", "limits", "requests_per_second", "concurrency", "timeout",
        "polling", "first", "max", "connection", "report", "parameters", "refresh_on", "source", "jobs", "title", "owner", "pages",
    ]  # fmt: skip

    def item(*choices):
        chosen = data.draw(st.lists(st.sampled_from([*choices, *keys]), max_size=4, unique=True))
        return {key: data.draw(VALUES) for key in chosen}

    document = {
        "sources": [item("name", "type", "webhook_secret") for _ in range(data.draw(st.integers(0, 2)))],
        "connections": [
            {"name": "tool", "type": "mode"} | item("workspace", "limits", "polling"),
            item("name", "type", "timeout"),
        ],
        "dashboards": [{"name": "d", "connection": "tool"} | item("refresh_on", "report", "parameters")],
    }
    text = json.dumps(document).replace("NaN", ".nan").replace("Infinity", ".inf")
    check(load_text, text)


def test_the_check_itself_sees_a_good_file(load_text, issue):
    assert check(load_text, issue) is not None
    assert check(load_text, "a: 1") is None
