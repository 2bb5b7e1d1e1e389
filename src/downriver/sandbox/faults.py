"""Faults as data: what goes wrong, on which route, how often.

Every stand-in owns one `FaultBoard`. A test, the demo or another process (through the control API)
arms faults on it while the stand-in runs; the front door asks the board about every request and acts
out what it says (`frontdoor.py`).

=========  ==============================================================================================
latency    the answer is late by `seconds`; before the request is worked, or after it with `after_effect`
status     the answer is `status` (with `retry_after`, if given); the request is not worked, unless
           `after_effect`: then it was, and only its answer is lost (what a gateway time-out does)
cut        the connection is dropped without an answer, before or (`after_effect`) after the work
truncate   the work is done, half of the true answer is sent, then the connection is dropped
html       200 with an HTML page (a proxy's or a login page), not worked unless `after_effect`
=========  ==============================================================================================
"""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import random
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Annotated, Literal

import msgspec

Kind = Literal["latency", "status", "cut", "truncate", "html"]
Seconds = Annotated[float, msgspec.Meta(ge=0)]
AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One thing that goes wrong; also the JSON body of `POST /_sandbox/<stand-in>/faults`.

    `method` is an HTTP method or `*`; `path` is a glob over the whole request path in which `*` also
    matches slashes (`*/runs`, `/api/acme/reports/9d2da37fa91e/*`).
    """

    kind: Kind
    method: str = "*"
    path: str = "*"
    after_effect: bool = False
    seconds: Seconds = 0.0
    status: Annotated[int, msgspec.Meta(ge=200, le=599)] = 503
    retry_after: str | int | None = None
    """Value of the Retry-After header: seconds, or an HTTP date; `None` leaves the header out."""
    body: str | None = None
    """Body of the answer instead of the stand-in's own (`status`) or the built-in page (`html`)."""
    times: AtLeastOne | None = None
    """Fires for that many requests, then is over; `None` fires until cleared."""
    skip: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Lets that many matching requests through first."""
    chance: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    """Probability that a matching request is hit; the board's own seeded generator decides."""

    def __post_init__(self) -> None:
        if self.kind == "latency" and self.seconds == 0:
            raise ValueError("a latency fault needs seconds > 0")


@dataclass(slots=True)
class Armed:
    """A fault on the board, with what it has done so far."""

    id: int
    fault: Fault
    pattern: re.Pattern[str] = field(repr=False)
    skipped: int = 0
    fired: int = 0

    @property
    def spent(self) -> bool:
        """Whether a count-limited fault has fired as often as it was told to."""
        return self.fault.times is not None and self.fired >= self.fault.times

    def matches(self, method: str, path: str) -> bool:
        return self.fault.method in ("*", method) and self.pattern.match(path) is not None


class FaultBoard:
    """The faults armed on one stand-in. Not thread-safe: it lives in the stand-in's event loop."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._random = random.Random(seed)  # noqa: S311 - dice for faults, not for secrets
        self._armed: list[Armed] = []
        self._next_id = 1
        self._released = asyncio.Event()
        self.fired: Counter[str] = Counter()
        """How often each kind has fired since the last `reset()`."""

    @property
    def armed(self) -> tuple[Armed, ...]:
        """The faults that can still fire, in the order they were armed."""
        return tuple(self._armed)

    @property
    def any(self) -> bool:
        """Whether anything is armed; the front door's hot path asks only this."""
        return bool(self._armed)

    def arm(self, fault: Fault) -> int:
        """Arm a fault; gives the id to disarm it by."""
        armed = Armed(self._next_id, fault, re.compile(fnmatch.translate(fault.path)))
        self._next_id += 1
        self._armed.append(armed)
        return armed.id

    def disarm(self, fault_id: int) -> bool:
        """Take one fault off the board; `False` when it is not there (never was, or is spent)."""
        left = [armed for armed in self._armed if armed.id != fault_id]
        found = len(left) < len(self._armed)
        self._armed = left
        return found

    def clear(self) -> None:
        """Take everything off the board; requests held up by a latency go on at once."""
        self._armed = []
        self._released.set()
        self._released = asyncio.Event()

    def reset(self) -> None:
        """As `clear()`, and the counts and the dice start anew."""
        self.clear()
        self.fired.clear()
        self._random.seed(self._seed)

    def take(self, method: str, path: str) -> tuple[Fault, ...]:
        """What happens to this request: any latencies, then at most one fault of another kind.

        Faults are asked in the order they were armed. The counts move only for faults that fire.
        """
        taken: list[Fault] = []
        for armed in self._armed:
            fault = armed.fault
            if not armed.matches(method, path):
                continue
            if armed.skipped < fault.skip:
                armed.skipped += 1
                continue
            if fault.chance < 1 and self._random.random() >= fault.chance:
                continue
            armed.fired += 1
            self.fired[fault.kind] += 1
            taken.append(fault)
            if fault.kind != "latency":
                break
        if taken:
            self._armed = [armed for armed in self._armed if not armed.spent]
        return tuple(taken)

    async def hold(self, seconds: float) -> None:
        """Wait `seconds`, or until the board is cleared."""
        released = self._released
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await released.wait()
