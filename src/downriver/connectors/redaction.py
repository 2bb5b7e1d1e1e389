"""What of an answer may be shown: one line, cut, without the connection's secrets, without SQL."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final
from urllib.parse import quote

import msgspec

DETAIL_LIMIT: Final = 300
"""Characters of an answer that an error may carry."""
_SHORTEST_SECRET: Final = 4
"""Shorter texts stand in ordinary words; credentials are never that short."""


def cut(text: str, limit: int = DETAIL_LIMIT) -> str:
    """`text` on one line without control characters, at most `limit` characters, cut where a word ends."""
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in text[:20_000]).split())
    if len(text) <= limit:
        return text
    head = text[: limit - 2]
    return (head.rpartition(" ")[0] or head) + " …"


def secrets_in(auth_headers: Mapping[str, str]) -> list[str]:
    """The secret texts behind credentials: header values, what follows `Basic` or `Bearer`, user and password."""
    found: list[str] = []
    for value in auth_headers.values():
        scheme, _, rest = value.partition(" ")
        found += [value, rest]
        if scheme.lower() == "basic":
            try:
                pair = base64.b64decode(rest, validate=True).decode()
            except (binascii.Error, UnicodeDecodeError):
                continue
            found += [pair, *pair.split(":", 1)]
    return found


def scrubber(secrets: Iterable[str]) -> Callable[[str], str]:
    """A function that blots these texts out, also where they stand percent-encoded or as a JSON string."""
    forms: set[str] = set()
    for secret in secrets:
        if len(secret) >= _SHORTEST_SECRET:
            forms |= {secret, quote(secret), quote(secret, safe=""), msgspec.json.encode(secret).decode()[1:-1]}
    if not forms:
        return lambda text: text
    pattern = re.compile("|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True)))
    return lambda text: pattern.sub("[redacted]", text)


def without_sql(message: str, sources: Sequence[str]) -> str:
    """A database's error message without the SQL it quotes.

    Databases quote the statement around the fault: PostgreSQL as `LINE 3: …`, others inside the sentence.
    Such lines go, and so does any run of three or more words that stands in one of `sources` too.
    """
    kept = (line for line in message.splitlines() if not re.match(r"\s*(LINE \d+:|\^\s*$)", line))
    words = " ".join(kept).split()
    quoted: set[tuple[str, ...]] = set()
    for source in sources:
        parts = source.split()
        if 0 < len(parts) < 3:
            quoted.add(tuple(parts))
        quoted.update(zip(parts, parts[1:], parts[2:], strict=False))
    hidden: set[int] = set()
    for size in {len(run) for run in quoted}:
        for start in range(len(words) - size + 1):
            run = words[start : start + size]
            if tuple(run) in quoted or _unquoted(run) in quoted:
                hidden.update(range(start, start + size))
    shown = [
        word if place not in hidden else "[SQL]"
        for place, word in enumerate(words)
        if place not in hidden or place - 1 not in hidden
    ]
    return " ".join(shown)


def _unquoted(words: Sequence[str]) -> tuple[str, ...]:
    """The words without the quotation marks and the stop that a sentence puts around them."""
    if len(words) == 1:
        return (words[0].strip("\"'`().,:;"),)
    return (words[0].lstrip("\"'`("), *words[1:-1], words[-1].rstrip("\"'`).,:;"))
