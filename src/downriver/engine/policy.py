"""When to try again, when to look, when to give up: the numbers, and the arithmetic on them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Policy:
    """The times of one connection. Durations are timedeltas; `concurrency` counts refreshes at the tool.

    `timeout` runs from the intent to trigger. After it a refresh that still runs is `timed_out`; if the
    tool cannot be asked at that moment, looking goes on for `grace` so that the end is still the true one.
    `retry_for` bounds how long a refresh that the tool does not take waits in the queue.
    `clock_skew` is how much earlier than our intent a run may seem to have begun and still be ours.
    """

    timeout: timedelta = timedelta(hours=1)
    first_look: timedelta = timedelta(seconds=2)
    max_look: timedelta = timedelta(seconds=30)
    retry_first: timedelta = timedelta(seconds=5)
    retry_max: timedelta = timedelta(minutes=5)
    retry_for: timedelta = timedelta(hours=24)
    grace: timedelta = timedelta(hours=6)
    clock_skew: timedelta = timedelta(seconds=5)
    settle: timedelta = timedelta(seconds=5)
    """How long a run that may have been started can take to show up in the tool's list."""
    concurrency: int = 20
    parallel_calls: int = 32

    def look_delay(self, looks: int) -> timedelta:
        """The wait before the next look: half as long again each time, up to `max_look`."""
        return min(self.first_look * (1.5 ** min(looks, 40)), self.max_look)

    def retry_delay(self, tries: int, retry_after: float | None, jitter: float) -> timedelta:
        """The wait before the next try: doubled each time, spread by `jitter` (0 to 1), never below `retry_after`."""
        doubled = min(self.retry_first * (2.0 ** min(max(tries - 1, 0), 40)), self.retry_max)
        spread = doubled * (0.75 + 0.5 * jitter)
        asked = timedelta(seconds=retry_after or 0.0)
        # Those who were told the same time by the tool shall not all come back at the same moment.
        return max(spread, asked * (1.0 + 0.1 * jitter))
