"""Lengths of time as people write them: `45s`, `90m`, `1h`, `1h30m`, `500ms`, `2d`."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, WithJsonSchema

_UNITS: Final = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}
_PART: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)\s*(ms|s|m|h|d)\s*")
PATTERN: Final = r"^\s*([0-9]{1,9}(\.[0-9]{1,6})?\s*(ms|s|m|h|d)\s*)+$"


def parse_duration(text: str) -> timedelta:
    """The length of time that `text` says. Raises ValueError with a sentence."""
    total = timedelta()
    position = len(text) - len(text.lstrip())
    while position < len(text):
        found = _PART.match(text, position)
        if found is None:
            break
        try:
            total += float(found.group(1)) * _UNITS[found.group(2)]
        except OverflowError:
            raise ValueError("this is too long a time") from None
        position = found.end()
    if position < len(text) or not text.strip():
        raise ValueError("expected a length of time with its unit, such as `45s`, `90m`, `1h` or `1h30m`")
    return total


def duration_text(length: timedelta) -> str:
    """`length` as `parse_duration` reads it: `1h30m`."""
    left = round(length / _UNITS["ms"])
    said = ""
    for unit in ("d", "h", "m", "s", "ms"):
        count, left = divmod(left, _UNITS[unit] // _UNITS["ms"])
        said += f"{count}{unit}" if count else ""
    return said or "0s"


def _read(value: Any) -> Any:
    return parse_duration(value) if isinstance(value, str) else value


Duration = Annotated[timedelta, BeforeValidator(_read), WithJsonSchema({"type": "string", "pattern": PATTERN})]
"""A pydantic type: a timedelta written as text with its unit."""
