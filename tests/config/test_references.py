import pytest
from hypothesis import given
from hypothesis import strategies as st

from downriver.config.references import BadReference, EnvVar, Resolver, Secret, Unresolved, parse
from downriver.core.errors import SecretMissing, VaultError


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ()),
        ("plain }} {% text %} {# #} { {", ("plain }} {% text %} {# #} { {",)),
        ("{{ env_var('X') }}", (EnvVar("X", None, 0),)),
        ('{{env_var("X","d")}}', (EnvVar("X", "d", 0),)),
        ("{{\n  env_var (\n 'X' , 'd' ) }}", (EnvVar("X", "d", 0),)),
        ("a{{ secret('S_1') }}b{{ env_var('X', '') }}", ("a", Secret("S_1", 1), "b", EnvVar("X", "", 21))),
        ("{{ env_var('X', 'it\\'s }} \\\\ fine') }}", (EnvVar("X", "it's }} \\ fine", 0),)),
        ("{{ '{{' }}x{{ \"}}\" }}", ("{{", "x", "}}")),
    ],
)
def test_references_are_found_in_text(text, parts):
    assert parse(text) == parts


@pytest.mark.parametrize(
    ("text", "offset", "message", "remedy"),
    [
        ("{{", 2, "not a reference", "Write env_var('NAME')"),
        ("{{ }}", 3, "not a reference", "Write env_var('NAME')"),
        ("{{ 12 }}", 3, "not a reference", "Write"),
        ("{{ var('X') }}", 3, "no function `var`", "Did you mean `env_var`?"),
        ("{{ Secret('X') }}", 3, "no function `Secret`", "Did you mean `secret`?"),
        ("{{ xyzzy('X') }}", 3, "no function `xyzzy`", "There are: `env_var`, `secret`."),
        ("{{ env_var }}", 11, "`(` is missing", "Write"),
        ("{{ env_var() }}", 11, "the name must stand in quotes", "Write"),
        ("{{ secret(TOKEN) }}", 10, "the name must stand in quotes", "Write"),
        ("{{ secret('a b') }}", 10, "a secret's name is made of", "Check the name."),
        ("{{ env_var('1X') }}", 11, "an environment variable's name", "Check the name."),
        ("{{ secret('X', 'd') }}", 13, "secret takes no more arguments", "Write"),
        ("{{ env_var('X', 'd', 'e') }}", 19, "env_var takes no more arguments", "Write"),
        ("{{ env_var('X', 5) }}", 16, "the default must be text in quotes", "Write"),
        ("{{ env_var('X', secret('Y')) }}", 16, "the default must be text in quotes", "Write"),
        ("{{ env_var('X' }}", 15, "`)` is missing", "Write"),
        ("{{ env_var('X) }}", 11, "the name must stand in quotes", "Write"),
        ("{{ secret('X') | as_number }}", 15, "filters", "Write"),
        ("{{ secret('X') }", 15, "`}}` is missing", "Write"),
        ("{{ secret('X') + 'y' }}", 15, "`}}` is missing", "Write"),
        ("ok {{ env_var('X') }} {{ secret('Y' }}", 36, "`)` is missing", "Write"),
    ],
)
def test_what_is_no_reference_says_where_and_what_to_write(text, offset, message, remedy):
    with pytest.raises(BadReference) as caught:
        parse(text)
    assert (caught.value.offset, message in caught.value.message) == (offset, True)
    assert caught.value.remedy.startswith(remedy)


@pytest.mark.parametrize(
    ("text", "excerpt"),
    [
        ("x {{ secrt('X') }} y", "{{ secrt('X') }}\n   ^"),
        ("{{ env_var('X', 'planted' 'more') }}", "{{ env_var('X', '·······' '····') }}\n                          ^"),
        ("{{ env_var('X', planted) }}", "{{ env_var('X', ·······) }}\n                ^"),
        ("{{ secret('planted one') }}", "{{ secret('······· ···') }}\n          ^"),
        ("{{ secret(planted) }}", "{{ secret(·······) }}\n          ^"),
        ("{{ secret('X' 'planted') }}", "{{ secret('X' '·······') }}\n              ^"),
        ("pass{{planted", ""),
        ("{{ planted }}", ""),
        ("pass{{planted('x'", ""),
        ("{{ 'planted' + 'x' }}", ""),
    ],
)
def test_the_excerpt_shows_only_what_is_plainly_a_reference(text, excerpt):
    with pytest.raises(BadReference) as caught:
        parse(text)
    assert caught.value.excerpt == excerpt


@pytest.mark.parametrize(
    "text", ["pa{{planted", "{{ planted }}", "{{ 'planted' x }}", "{{ env_var('planted word') }}"]
)
def test_text_that_may_be_a_password_with_braces_is_not_repeated(text):
    with pytest.raises(BadReference) as caught:
        parse(text)
    assert "planted" not in f"{caught.value.message} {caught.value.remedy}"


@given(st.text(alphabet="{}()'\",| \\abenv_rsct\n", max_size=40))
def test_any_text_is_parsed_or_refused_at_a_place_within_it(text):
    found = outcome(text)
    if isinstance(found, BadReference):
        assert 0 <= found.offset <= len(text)
    else:
        assert "{{" in text or found in ((text,), ())


def outcome(text):
    try:
        return parse(text)
    except BadReference as bad:
        return bad


@given(st.text(), st.text())
def test_any_default_can_be_written(default, around):
    quoted = default.replace("\\", "\\\\").replace("'", "\\'")
    around = around.replace("{{", "")
    around = around.rstrip("{")
    resolved = Resolver({}, str).resolve(around + "{{ env_var('X', '" + quoted + "') }}" + around)
    assert resolved.text == around + default + around


def test_resolving():
    asked = []

    def secrets(name):
        asked.append(name)
        if name == "GONE":
            raise SecretMissing(name)
        return f"<{name}>"

    resolver = Resolver({"X": "x", "EMPTY": ""}, secrets)
    resolved = resolver.resolve("{{ env_var('X') }}{{ secret('A') }}{{ secret('A') }}{{ env_var('EMPTY', 'd') }}")
    assert (resolved.text, resolved.secrets, resolved.literal) == ("x<A><A>", ("A", "A"), False)
    assert resolver.resolve("-{{ env_var('X') }}").literal
    assert resolver.resolve("{{ env_var('Y', 'd') }}").literal
    assert not resolver.resolve("{{ env_var('X', 'd') }}").literal
    for _ in range(2):
        with pytest.raises(Unresolved, match="no secret `GONE`"):
            resolver.resolve("{{ secret('GONE') }}")
    with pytest.raises(Unresolved, match="`XX` is not set") as caught:
        resolver.resolve("{{ env_var('XX') }}")
    assert "Did you mean `X`?" in caught.value.remedy
    assert asked == ["A", "GONE"]
    assert resolver.known_values() == ("<A>",)


def test_a_vault_that_cannot_be_read_is_said_once():
    def secrets(name):
        raise VaultError("The key is lost.")

    resolver = Resolver({}, secrets)
    with pytest.raises(Unresolved, match="lost"):
        resolver.resolve("{{ secret('A') }}")
    assert resolver.resolve("{{ secret('B') }}") is None
