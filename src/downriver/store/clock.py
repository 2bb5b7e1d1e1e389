"""Times as the database holds them: integer microseconds since the epoch, UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import overload

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@overload
def micros(at: datetime) -> int: ...
@overload
def micros(at: datetime | None) -> int | None: ...
def micros(at: datetime | None) -> int | None:
    """`at` as whole microseconds since the epoch, exactly (no float in between)."""
    return None if at is None else (at - _EPOCH) // _MICROSECOND


@overload
def utc(value: int) -> datetime: ...
@overload
def utc(value: int | None) -> datetime | None: ...
def utc(value: int | None) -> datetime | None:
    """The aware UTC datetime of a database time."""
    return None if value is None else _EPOCH + timedelta(microseconds=value)
