"""References inside values: `{{ env_var('X') }}`, `{{ env_var('X', 'default') }}`, `{{ secret('X') }}`.

A strict little parser of our own. What looks like dbt's Jinja is only these three calls, alone or within
text, plus `{{ '{{' }}` for text that needs the braces themselves. No filters, no expressions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from downriver.config.problems import nearest, suggestion
from downriver.core.errors import SecretMissing, VaultError

FUNCTIONS: Final = ("env_var", "secret")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<word>[A-Za-z_][A-Za-z0-9_]*)|(?P<string>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|(?P<mark>[(),|]))""",
    re.DOTALL,
)
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_CALL: Final = re.compile(
    r"""(?P<shown>\{\{\s*[A-Za-z_]\w*\s*\((?:\s*(['"])[A-Za-z_]\w*\2)?)(?P<rest>.*)""", re.ASCII
)
_HIDDEN: Final = re.compile(r"[^\s'\"(),|]")
_MAX_EXCERPT: Final = 200
_FORMS: Final = "Write env_var('NAME'), env_var('NAME', 'default') or secret('NAME')."


@dataclass(frozen=True, slots=True)
class EnvVar:
    """`env_var('name')`, or with a `default`. `start` is the offset of `{{` in the value."""

    name: str
    default: str | None = field(repr=False)
    start: int


@dataclass(frozen=True, slots=True)
class Secret:
    """`secret('name')`."""

    name: str
    start: int


Part = str | EnvVar | Secret


class BadReference(ValueError):
    """A reference that cannot be read: at which `offset` of the value, what to do, and how it looks.

    `excerpt` is the reference with a caret under the place, or empty where showing it might show a
    secret written by hand.
    """

    def __init__(self, offset: int, message: str, remedy: str = _FORMS, excerpt: str = "") -> None:
        super().__init__(message)
        self.offset = offset
        self.message = message
        self.remedy = remedy
        self.excerpt = excerpt


def parse(text: str) -> tuple[Part, ...]:
    """The literal text and references of a value, in order. Raises BadReference."""
    parts: list[Part] = []
    position = 0
    while (start := text.find("{{", position)) >= 0:
        if start > position:
            parts.append(text[position:start])
        reader = _Reader(text, start)
        parts.append(reader.reference())
        position = reader.position
    if position < len(text):
        parts.append(text[position:])
    return tuple(parts)


class _Reader:
    """Reads one reference that begins at `start`."""

    def __init__(self, text: str, start: int) -> None:
        self.text = text
        self.start = start
        self.position = start + 2
        self._at = self.position

    def reference(self) -> Part:
        word, string = self._next("word", "string")
        if string is not None:
            self._close()
            return string
        if word is None:
            raise self._bad("this is not a reference.")
        self._function(word)
        if self._mark() != "(":
            raise self._bad("`(` is missing.")
        name = self._name(word)
        mark = self._mark()
        default: str | None = None
        if mark == "," and word == "env_var":
            _, default = self._next("string")
            if default is None:
                raise self._bad("the default must be text in quotes.")
            mark = self._mark()
        if mark != ")":
            raise self._bad("`)` is missing." if mark != "," else f"{word} takes no more arguments.")
        self._close()
        return Secret(name, self.start) if word == "secret" else EnvVar(name, default, self.start)

    def _function(self, word: str) -> None:
        if word in FUNCTIONS:
            return
        if not self.text[self.position :].lstrip().startswith("("):
            # Not even a call: perhaps somebody's password with braces in it, so it is not repeated.
            raise self._bad("this is not a reference.", "Write '{{' as {{ '{{' }} if you mean the braces.")
        raise self._bad(f"there is no function `{word}`.", suggestion(word, FUNCTIONS, "There are"))

    def _name(self, function: str) -> str:
        _, name = self._next("string")
        if name is None:
            raise self._bad("the name must stand in quotes.")
        if not _NAME.fullmatch(name):
            what = "an environment variable's name" if function == "env_var" else "a secret's name"
            raise self._bad(f"{what} is made of letters, digits and `_`.", "Check the name.")
        return name

    def _next(self, *kinds: str) -> tuple[str | None, str | None]:
        """The next word and string, one of which is None; both when neither is allowed here."""
        found = _TOKEN.match(self.text, self.position)
        kind = found.lastgroup if found else None
        if found is None or kind is None or kind not in kinds:
            self._at = self._skip_space()
            return None, None
        self._at = found.start(kind)
        self.position = found.end()
        value = found.group(kind)
        return (value, None) if kind == "word" else (None, _ESCAPE.sub(r"\1", value[1:-1]))

    def _mark(self) -> str | None:
        found = _TOKEN.match(self.text, self.position)
        if found is None or found.lastgroup != "mark":
            self._at = self._skip_space()
            return None
        self._at = found.start("mark")
        self.position = found.end()
        return found.group("mark")

    def _close(self) -> None:
        self._at = self._skip_space()
        if self.text.startswith("}}", self._at):
            self.position = self._at + 2
        elif self.text.startswith("|", self._at):
            raise self._bad("filters (`|`) are not supported.")
        else:
            raise self._bad("`}}` is missing.")

    def _skip_space(self) -> int:
        rest = self.text[self.position :]
        return self.position + len(rest) - len(rest.lstrip())

    def _bad(self, message: str, remedy: str = _FORMS) -> BadReference:
        return BadReference(self._at, message, remedy, self._excerpt())

    def _excerpt(self) -> str:
        """The reference with a caret, when it is plainly one: a call, closed, on one line.

        Only the function and a well-formed name are shown; whatever else stands in it might be a secret.
        """
        end = self.text.find("}}", self.start)
        found = _CALL.fullmatch(self.text[self.start : end]) if end >= 0 else None
        if found is None or not found.group().isprintable() or end - self.start > _MAX_EXCERPT:
            return ""
        shown = found.group("shown") + _HIDDEN.sub("·", found.group("rest")) + "}}"
        return f"{shown}\n{' ' * (self._at - self.start)}^"


# -- resolving --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Resolved:
    """A value with its references filled in.

    `secrets` names the secrets it holds. `literal` is False only when nothing but references' values
    makes up the text (a written default counts as literal).
    """

    text: str = field(repr=False)
    secrets: tuple[str, ...]
    literal: bool


class Unresolved(ValueError):
    """A reference that names nothing. `message` and `remedy` are for the person, `offset` the place."""

    def __init__(self, offset: int, message: str, remedy: str) -> None:
        super().__init__(message)
        self.offset = offset
        self.message = message
        self.remedy = remedy


class Resolver:
    """Looks references up, each secret once.

    `secrets(name)` returns the value or raises a VaultError: `SecretMissing` when there is none of that
    name, any other when the vault cannot be read. The latter is reported once, not for every reference.
    """

    def __init__(self, environ: Mapping[str, str], secrets: Callable[[str], str]) -> None:
        self._environ = environ
        self._secrets = secrets
        self._seen: dict[str, str | VaultError] = {}
        self._vault_faults: set[str] = set()

    def resolve(self, text: str) -> Resolved | None:
        """`text` with its references filled in. None when what is wrong with the vault was said before.

        Raises BadReference or Unresolved.
        """
        said: list[str] = []
        names: list[str] = []
        literal = False
        for part in parse(text):
            if isinstance(part, Secret):
                value = self._secret(part)
                if value is None:
                    return None
                said.append(value)
                names.append(part.name)
            elif isinstance(part, EnvVar):
                said.append(self._env_var(part))
                literal = literal or bool(part.default and part.name not in self._environ)
            else:
                said.append(part)
                literal = True
        return Resolved("".join(said), tuple(names), literal)

    def known_values(self) -> tuple[str, ...]:
        """Every secret's value seen so far: what must never stand in a message."""
        return tuple(value for value in self._seen.values() if isinstance(value, str))

    def _env_var(self, part: EnvVar) -> str:
        value = self._environ.get(part.name, part.default)
        if value is not None:
            return value
        near = nearest(part.name, self._environ)
        remedy = f"Did you mean `{near}`? " if near else ""
        remedy += f"Set it, or give a default: {{{{ env_var('{part.name}', 'default') }}}}."
        raise Unresolved(part.start, f"the environment variable `{part.name}` is not set.", remedy)

    def _secret(self, part: Secret) -> str | None:
        if part.name not in self._seen:
            try:
                self._seen[part.name] = self._secrets(part.name)
            except VaultError as error:
                self._seen[part.name] = error
        found = self._seen[part.name]
        if isinstance(found, str):
            return found
        if isinstance(found, SecretMissing):
            message = f"the vault has no secret `{part.name}`."
            raise Unresolved(part.start, message, f"Set it: `downriver secrets set {part.name}`.")
        message = str(found)
        if message in self._vault_faults:
            return None
        self._vault_faults.add(message)
        raise Unresolved(part.start, message, "")
