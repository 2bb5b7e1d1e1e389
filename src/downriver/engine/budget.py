"""The request budget of one connection: so many a second, with a second's worth of burst."""

from __future__ import annotations

import asyncio


class RateBudget:
    """`await spend()` before each request; waits until the budget allows it. None: no limit.

    Fair: waiting callers go in the order they came. `pause(seconds)` holds everybody back, as a
    `Retry-After` asks.
    """

    def __init__(self, per_second: float | None) -> None:
        self._interval = 1.0 / per_second if per_second else 0.0
        self._burst = max(1.0, per_second or 1.0)
        self._next = 0.0
        self._paused_until = 0.0

    async def spend(self) -> None:
        """Take one request from the budget, waiting for it if need be."""
        now = asyncio.get_running_loop().time()
        if not self._interval and now >= self._paused_until:
            return
        # `_next` is when the next request would be due at an even pace; the burst lets it lag behind now.
        start = max(self._next, now - self._burst * self._interval, self._paused_until)
        self._next = start + self._interval
        wait = start - now
        if wait > 0:
            await asyncio.sleep(wait)

    def pause(self, seconds: float) -> None:
        """Nobody asks the tool again before `seconds` have passed."""
        until = asyncio.get_running_loop().time() + seconds
        self._paused_until = max(self._paused_until, until)
