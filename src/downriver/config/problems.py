"""A mistake in a configuration file, and all of them as one error."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from downriver.core.errors import ConfigError

_SHOWN: Final = 100
"""Mistakes listed by `str()`; a file with more of them has one mistake of another sort."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is wrong (or, as a warning, unwise), at its place.

    `line` and `column` count from 1. `key` is the path to it (`dashboards[0].report`), empty for the
    file as a whole. `remedy` says what to do, `excerpt` is a line with a caret under it. None of them
    ever holds the value of a secret, nor text that might be one.
    """

    line: int
    column: int
    file: str
    key: str
    message: str
    remedy: str = ""
    excerpt: str = ""

    def __str__(self) -> str:
        """`downriver.yml:12:5  dashboards[0].conection  unknown key. Did you mean `connection`?`."""
        said = " ".join(part for part in (self.message, self.remedy) if part)
        head = "  ".join(part for part in (f"{self.file}:{self.line}:{self.column}", self.key, said) if part)
        indented = "".join(f"\n    {line}" for line in self.excerpt.splitlines())
        return head + indented


class ConfigProblems(ConfigError):
    """Every mistake of one file. `problems` are in the order of their lines; `path` is the file."""

    def __init__(self, path: Path, problems: Iterable[Problem]) -> None:
        self.path = path
        self.problems = tuple(sorted(problems))
        super().__init__(str(self))

    def __str__(self) -> str:
        """A line that counts, then one mistake per line."""
        count = len(self.problems)
        lines = [f"{path_text(self.path)} has {'1 mistake' if count == 1 else f'{count} mistakes'}:"]
        lines += [str(problem) for problem in self.problems[:_SHOWN]]
        if count > _SHOWN:
            lines.append(f"… and {count - _SHOWN} more.")
        return "\n".join(lines)


def path_text(path: Path) -> str:
    """`path` for people: characters that cannot be shown are escaped."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word most like `word` (compared without case), when one is like it at all."""
    by_folded = {name.casefold(): name for name in known}
    found = get_close_matches(word.casefold(), by_folded, n=1, cutoff=0.6)
    return by_folded[found[0]] if found else None


def suggestion(word: str, known: Iterable[str], kind: str = "They are") -> str:
    """`Did you mean `x`?`, or else the list of what there is; empty when there is nothing."""
    names = sorted(set(known))
    near = nearest(word, names)
    if near is not None:
        return f"Did you mean `{near}`?"
    return f"{kind}: {listed(names)}." if names else ""


def listed(names: Iterable[str]) -> str:
    """`` `a`, `b`, `c` ``."""
    return ", ".join(f"`{name}`" for name in names)


def key_path(parts: Iterable[str | int]) -> str:
    """`dashboards[0].parameters.user_id`."""
    said = ""
    for part in parts:
        if isinstance(part, int):
            said += f"[{part}]"
        else:
            said += ("." if said else "") + shown(part)
    return said


def shown(text: str, limit: int = 60) -> str:
    """`text` on one line and not too long, for a message: control characters escaped, the rest cut."""
    flat = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"
