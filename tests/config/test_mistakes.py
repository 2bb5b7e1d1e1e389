import pytest
from pydantic import BaseModel

from downriver.config.load import load
from downriver.config.problems import ConfigProblems
from downriver.core.errors import ConfigError

MANY = """\
version: 2
source: []
sources:
  - name: analytics
    type: dbt_platfrom
    webhook_secret: ["{{ secret('DBT_WEBHOOK_KEY') }}", "{{ secret('NOPE') }}", {a: b}]
  - name: a b
    type: dbt_platform
    webhook_secret: {a: b}
  - 12
connections:
  - name: mode
    type: mode
    workspace: "{{ secret('MODE_API_TOKEN') }}"
    tokn: "{{ secrt('MODE_API_TOKEN') }}"
    secret: literal-one
    polling: {frist: 3x}
    limits: {concurrency: lots, requests_per_second: -1}
    timeout: 3600
  - name: mode
    type: moode
    workspce: acme
    token: "{{ env_var('HOSTT') }}"
  - type: 7
dashboards:
  - name: weekly_revenue
    conection: mode
    report: [9d2da37fa91e]
    parameters: [1]
    refresh_on: {source: analytcs, jobs: []}
    refresh_on: x
  - name: x
    connection: mod
    report: 123456789e12
    refresh_on:
  - name: y
    connection: mode
    report: 12
    refresh_on: {jobs: [{a: 1}]}
"""

SAID = """\
1:10  version  expected 1.
2:1  source  unknown key. Did you mean `sources`?
5:11  sources[0].type  there is no type `dbt_platfrom`. Did you mean `dbt_platform`?
6:58  sources[0].webhook_secret[1]  the vault has no secret `NOPE`. Set it: `downriver secrets set NOPE`.
6:81  sources[0].webhook_secret[2]  expected text, found a mapping.
7:11  sources[1].name  a name is made of letters, digits, `_`, `-` and `.`, begins with a letter, digit or `_`, and has at most 100 characters: it stands in addresses.
9:21  sources[1].webhook_secret  expected text or a list, found a mapping.
10:5  sources[2]  expected a mapping, beginning with `- name: …`.
14:16  connections[0].workspace  a secret cannot stand here: this value is shown on pages and in listings. Secrets may stand only in `token`, `secret`.
15:5  connections[0].tokn  unknown key. Did you mean `token`?
15:15  connections[0].token  there is no function `secrt`. Did you mean `secret`?
    {{ secrt('MODE_API_TOKEN') }}
       ^
17:15  connections[0].polling.frist  unknown key. Did you mean `first`?
17:22  connections[0].polling.first  expected a length of time with its unit, such as `45s`, `90m`, `1h` or `1h30m`.
18:27  connections[0].limits.concurrency  expected a whole number.
18:54  connections[0].limits.requests_per_second  it should be greater than 0.
19:14  connections[0].timeout  expected a length of time with its unit, such as `45s`, `90m`, `1h` or `1h30m`.
20:5  connections[1].secret  `secret` is missing.
20:11  connections[1].name  a second `mode`: the first begins on line 12. Names are given once.
21:11  connections[1].type  there is no type `moode`. Did you mean `mode`?
22:5  connections[1].workspce  unknown key. Did you mean `workspace`?
23:13  connections[1].token  the environment variable `HOSTT` is not set. Did you mean `HOST`? Set it, or give a default: {{ env_var('HOSTT', 'default') }}.
24:5  connections[2].name  `name` is missing. How you call this connection.
24:11  connections[2].type  there is no type `7`. There are: `mode`.
27:5  dashboards[0].conection  unknown key. Did you mean `connection`?
28:13  dashboards[0].report  expected text, found a list.
29:17  dashboards[0].parameters  expected a mapping (`key: value`), found a list.
30:42  dashboards[0].refresh_on.jobs  nothing stands here: name jobs, or leave `jobs` out for every job.
31:5  dashboards[0].refresh_on  the same key twice. It stands on line 30 already: keep one.
33:17  dashboards[1].connection  there is no connection `mod`. Did you mean `mode`?
35:5  dashboards[1].refresh_on  nothing stands here: write `refresh_on: {}` for every job, or leave the key out.
39:25  dashboards[2].refresh_on.jobs[0]  expected text, found a mapping.
"""


def test_every_mistake_is_said_in_one_go(load_text, tmp_path):
    with pytest.raises(ConfigError) as caught:
        load_text(MANY, environ={"HOST": "x"})
    heading, *lines = str(caught.value).splitlines()
    said = [line.removeprefix("downriver.yml:") for line in lines]
    assert said == SAID.splitlines()
    assert heading == f"{tmp_path / 'downriver.yml'} has 31 mistakes:"
    assert caught.value.path == tmp_path / "downriver.yml"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["timeout: 1h", "timeout: 2h"], "9:5  connections[0].timeout  the same key twice. It stands on line 8 already: keep one."),
        (["limits: {a: 1, b: 2, a: 3}", "limts: 3"], "8:26  connections[0].limits.a  the same key twice."),
        (["limits: fast"], "8:13  connections[0].limits  expected a mapping (`key: value`)."),
        (["limits:"], "8:5  connections[0].limits  expected a mapping (`key: value`), found nothing."),
        (["limits: {concurrency: 0}"], "8:27  connections[0].limits.concurrency  it should be greater than or equal to 1."),
        (["limits: {concurrency: 1.5}"], "8:27  connections[0].limits.concurrency  expected a whole number."),
        (["limits: {requests_per_second: .nan}"], "8:35  connections[0].limits.requests_per_second  this is no number that can be sent as JSON."),
        (["timeout: 1 fortnight"], "8:14  connections[0].timeout  expected a length of time"),
        (["timeout: 8d"], "8:14  connections[0].timeout  expected between `1s` and `7d`."),
        (["polling: {first: 40s}"], "8:14  connections[0].polling  `max` is shorter than `first`."),
        (["polling: {first: 1s, max: 2h}"], "8:31  connections[0].polling.max  expected between `10ms` and `1h`."),
        (["region: mars"], "8:13  connections[0].region  there are only eu and us."),
        (["xyzzy: 1"], "8:5  connections[0].xyzzy  unknown key. The keys here are: `base_url`, `limits`, `name`, `polling`, `region`, `secret`, `timeout`, `token`, `type`, `workspace`."),
        (["Region: eu"], "8:5  connections[0].Region  unknown key. Did you mean `region`?"),
        (["12: eu"], "8:5  connections[0].12  unknown key."),
        (["? [a, b]", ": eu"], "8:7  a key must be a single word, not a list or mapping."),
        (["region: *nowhere"], "8:13  this alias (`*…`) names no anchor (`&…`) above it. Put quotes around a value that begins with `*`."),
        (["region: !secret eu"], "8:13  YAML tags (`!…`) are not used here."),
        (["region: {{ env_var('X') }}"], "8:13  YAML reads `{{` without quotes as a mapping. Put quotes around the value:"),
        (["<<: 3"], "8:9  <<  `<<` merges mappings, and this is none."),
        (["region: \"{{ env_var('X') }}\""], "8:14  connections[0].region  the environment variable `X` is not set. Set it, or give a default"),
        (["region: \"in {{ env_var('X' }}\""], "8:32  connections[0].region  `)` is missing."),
    ],
)  # fmt: skip
def test_mistakes_in_a_connection(in_connection, lines, said):
    found = in_connection(lines)
    assert [line for line in found if line.startswith(f"downriver.yml:{said}")], "\n".join(found)


DASHBOARD = """\
connections:
  - name: tool
    type: mode
    workspace: acme
    token: "{{ secret('MODE_API_TOKEN') }}"
    secret: "{{ secret('MODE_API_SECRET') }}"
dashboards:
  - name: d
    connection: tool
    report: r
"""
SOURCE = "{name: %s, type: dbt_platform, webhook_secret: \"{{ secret('DBT_WEBHOOK_KEY') }}\"}"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["report: elsewhere"], "10:13  dashboards[0].report  the report is not in acme."),
        (["report: nothing"], "10:13  dashboards[0].report  this names nothing that could be refreshed."),
        (["report: r", "pages: [1, x]"], "11:16  dashboards[0].pages[1]  expected a whole number."),
        (["report: r", "parameters: {a: .inf}"], "11:21  dashboards[0].parameters.a  this is no number that can be sent"),
        (["report: r", "parameters: {a: 1e999}"], "11:21  dashboards[0].parameters.a  a number too large"),
        (["report: r", f"parameters: {{a: {'9' * 5000}}}"], "11:21  dashboards[0].parameters.a  a number of more than 400 digits."),
        (["report: r", "parameters: {a: \"{{ secret('MODE_API_TOKEN') }}\"}"], "11:21  dashboards[0].parameters.a  a secret cannot stand here: this value is shown on pages and in listings. Nothing here takes a secret."),
        (["report: r", "title: \"{{ secret('MODE_API_TOKEN') }}\""], "11:12  dashboards[0].title  a secret cannot stand here"),
        (["report: r", "refresh_on: {}"], "11:17  dashboards[0].refresh_on.source  there is no source to listen to. Declare one under `sources`."),
        (["report: r", "refresh_on: {source: s}"], "11:26  dashboards[0].refresh_on.source  there is no source `s`. Declare it under `sources`."),
        (["report: r", "refresh_on: {jobs: ['']}"], "11:25  dashboards[0].refresh_on.jobs[0]  a job is its id or a glob of its name, and this is empty."),
        (["report: r", "refresh_on: {jobs: ~}"], "11:24  dashboards[0].refresh_on.jobs  nothing stands here"),
        (["report: r", "token: x"], "11:5  dashboards[0].token  unknown key. The keys here are:"),
        (["title: t"], "8:5  dashboards[0].report  `report` is missing. The report's token."),
    ],
)  # fmt: skip
def test_mistakes_in_a_dashboard(mistakes, lines, said):
    found = mistakes(DASHBOARD.replace("    report: r\n", "".join(f"    {line}\n" for line in lines)))
    assert len(found) == 1
    assert found[0].startswith(f"downriver.yml:{said}")


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("{}", "there is more than one. Name one of `one`, `two`."),
        ("{source: tow}", "there is no source `tow`. Did you mean `two`?"),
        ("{source: xyz}", "there is no source `xyz`. There are: `one`, `two`."),
    ],
)
def test_a_rule_must_name_its_source_among_several(mistakes, rule, said):
    text = DASHBOARD + f"    refresh_on: {rule}\nsources: [{SOURCE % 'one'}, {SOURCE % 'two'}]\n"
    (found,) = mistakes(text)
    assert found.startswith("downriver.yml:11:")
    assert said in found


def test_a_mistake_in_a_source_or_connection_is_not_repeated_by_those_who_use_it(mistakes, issue):
    text = issue.replace("webhook_secret", "webhook_sekret").replace("workspace: acme", "workspace: [acme]")
    assert [line.split("  ")[1] for line in mistakes(text)] == [
        "sources[0].webhook_sekret",
        "connections[0].workspace",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "1:1  the file is empty. `downriver init` writes one to start from."),
        ("# nothing\n\n", "1:1  the file is empty."),
        ("~", "1:1  the file is empty."),
        ("---\n...\n", "1:1  the file is empty."),
        ("- a\n- b\n", "1:1  expected keys (`version`, `sources`, `connections`, `dashboards`) at the top of the file."),
        ("hello", "1:1  expected keys"),
        ("sources: {a: 1}", "1:10  sources  expected a list. Begin each item with `- name: …`."),
        ("sources: [[1]]", "1:11  sources[0]  expected a mapping, beginning with `- name: …`."),
        ("sources: [~]", "1:11  sources[0]  expected a mapping"),
        ("version: '2'", "1:10  version  expected 1."),
        ("a: 1\n---\nb: 2", "2:1  a second YAML document begins here. Keep one: remove the `---`."),
        ("a:\n\t- b\n\t- c\n", "3:1  a tab indents this line; YAML allows only spaces. Use spaces."),
        ("a:\n  \tb: 1\n", "2:3  a tab indents this line"),
        ("a: [1, 2", "1:9  a list `[…]` that is not closed, or lacks a comma."),
        ("a: {b: 1\nc: 2", "a mapping `{…}` that is not closed, or lacks a comma."),
        ("a: b: c", "1:5  a `:` where no key can stand."),
        ("- a\nb: c", "2:1  this line does not fit the ones above."),
        ("a: 'x", "1:6  a quoted value that never ends. Close the quote."),
        ("a: \"\\y\"", "1:6  an unknown escape `\\…` in double quotes."),
        ("a: @x", "1:4  a value cannot begin with this character. Put quotes around the value."),
        ("a: x\0y", "1:5  a control character cannot stand in YAML. Remove it."),
        ("%YAML 9.9\n---\na: 1", "1:1  a YAML version this cannot read. Remove the `%YAML` line."),
        ("a: {{ env_var('X', 'd') }}", "1:23  a reference whose quotes YAML cannot read. Put quotes around the value:"),
        ("a: x{{ env_var('X') }}: y", "1:23  a reference whose quotes YAML cannot read."),
        ('a: "{{ secret("X") }}"', "1:16  a reference whose quotes YAML cannot read. Inside double quotes use single ones:"),
        ("[" * 200, "1:65  this is nested more than 64 levels deep."),
        ("&a [*a]", "1:5  this alias stands inside the thing it names."),
    ],
)  # fmt: skip
def test_files_that_are_no_configuration(mistakes, text, said):
    assert any(said in line for line in mistakes(text)), mistakes(text)


def test_bytes_that_are_no_text(mistakes):
    assert mistakes("version: 1\nnäme: ".encode() + b"\xff") == [
        "downriver.yml:2:7  this is not UTF-8 text. Save the file as UTF-8."
    ]
    assert "not UTF-8" in mistakes("version: 1".encode("utf-16"))[0]


def test_a_file_that_is_too_large(mistakes):
    assert "larger than 4 MiB" in mistakes("#" * (4 * 1024 * 1024 + 1))[0]


def test_a_file_that_cannot_be_read(tmp_path):
    for path, why in ((tmp_path, "Is a directory"), (tmp_path / "gone.yml", "No such file")):
        with pytest.raises(ConfigProblems, match=why):
            load(path, source_types={}, connector_types={}, environ={}, secrets=str)


def test_aliases_cannot_unfold_without_bound(mistakes):
    text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    for n in range(1, 12):
        text += f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n"
    assert "aliases unfold to more than 200000 values" in "\n".join(mistakes(text))


def test_very_many_mistakes_are_cut_short(load_text):
    with pytest.raises(ConfigProblems) as caught:
        load_text("sources:\n" + "  - 1\n" * 250)
    assert len(caught.value.problems) == 250
    assert len(str(caught.value).splitlines()) == 102
    assert str(caught.value).endswith("… and 150 more.")


# -- kinds ------------------------------------------------------------------------------------------


class Greedy(BaseModel):
    timeout: int


def test_a_kind_that_takes_our_keys_is_refused_when_used(mistakes, kind_of, connector_types, load_text):
    kinds = {**connector_types, "greedy": kind_of("greedy", "G", Greedy)}
    assert mistakes("connections: [{name: g, type: greedy}]", connector_types=kinds) == [
        "downriver.yml:1:31  connections[0].type  the kind `greedy` declares `timeout`, which Downriver uses itself."
    ]
    load_text("version: 1", connector_types=kinds)


def test_a_broken_kind_is_said_where_it_is_used(mistakes, connector_types):
    class Broken(dict):
        def __getitem__(self, key):
            if key == "broken":
                raise ConfigError("the package behind it cannot be imported.")
            return super().__getitem__(key)

    kinds = Broken(connector_types, broken=None)
    said = mistakes("connections: [{name: g, type: broken}, {name: h, tipe: x}]", connector_types=kinds)
    assert "connections[0].type  the package behind it cannot be imported." in said[0]
    assert any("connections[1].tipe  unknown key. Did you mean `type`?" in line for line in said)
