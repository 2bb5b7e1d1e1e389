"""What follows from an answer of a BI tool: pure functions from (flight, answer) to the next step.

The driver makes the calls; these functions say what they mean for the refresh: which move, with which
sentence, and when to act next. No clock, no I/O: `now` and `jitter` are arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Final

from downriver.core.errors import CallError, InDoubt, Transient, Unsupported
from downriver.core.model import Outcome, Refresh, StillRunning, Ticket
from downriver.core.states import RefreshState
from downriver.engine.policy import Policy

PERMANENT_LOOKS: Final = 3
"""How often in a row a look must be refused for good before the end is called unknown."""

QUICK_TRIES: Final = 2
"""How many triggers in a row may follow each other at once when the tool shows no trace of them."""


class Verb(Enum):
    """What the driver does next for a refresh it holds."""

    TRIGGER = "trigger"
    SEEK = "seek"
    LOOK = "look"


@dataclass(slots=True)
class Flight:
    """A refresh the driver holds in memory, and how it is getting on. Rebuilt from its row after a restart."""

    refresh: Refresh
    verb: Verb
    looks: int = 0
    faults: int = 0
    refusals: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """What follows: the refresh as it shall be, the sentence for the history (None: not worth a line), the
    next verb with its delay (None: the driver lets go), and how long the whole connection shall pause."""

    after: Refresh
    note: str | None
    verb: Verb | None = None
    delay: timedelta = timedelta(0)
    pause: float = 0.0


def after_trigger(
    flight: Flight, answer: Ticket | Outcome | CallError, policy: Policy, *, now: datetime, jitter: float
) -> Step:
    """The tool was asked to refresh."""
    refresh = flight.refresh
    if isinstance(answer, Ticket):
        return _running(refresh, answer, policy, now, f"started as {answer.id}")
    if isinstance(answer, Outcome):
        return _ended(refresh, answer, now)
    if isinstance(answer, Transient):
        return _try_again(flight, answer, policy, now, jitter)
    if isinstance(answer, InDoubt):
        note = f"{answer} It may have started all the same: looking for it before anything else."
        return Step(refresh, note, Verb.SEEK, _seek_delay(policy))
    return _outcome(refresh, RefreshState.FAILED, str(answer), now)


def after_seek(
    flight: Flight,
    answer: Sequence[Ticket] | CallError,
    policy: Policy,
    *,
    now: datetime,
    jitter: float,
) -> Step:
    """The tool was asked for recent runs that may be ours (tickets of other refreshes already taken out)."""
    refresh = flight.refresh
    intent = refresh.intent_at or refresh.created_at
    if isinstance(answer, Unsupported):
        return _outcome(refresh, RefreshState.UNKNOWN, f"Whether it started cannot be found out: {answer}", now)
    if isinstance(answer, CallError):
        if refresh.deadline_at is not None and now >= refresh.deadline_at + policy.grace:
            return _outcome(refresh, RefreshState.UNKNOWN, f"Whether it started was never found out: {answer}", now)
        flight.faults += 1
        after = answer.retry_after if isinstance(answer, Transient) else None
        return Step(refresh, f"{answer} Looking again later.", Verb.SEEK,
                    policy.retry_delay(flight.faults, after, jitter), _pause(answer))  # fmt: skip
    if answer:
        found = max(answer, key=lambda ticket: ticket.created_at or intent)
        more = f" ({len(answer)} could be it; the newest was taken)" if len(answer) > 1 else ""
        return _running(refresh, found, policy, now, f"found {found.id} at the tool and adopted it{more}")
    if now < intent + policy.settle:
        return Step(refresh, None, Verb.SEEK, _seek_delay(policy))
    if refresh.attempts >= QUICK_TRIES:  # a tool that answers like this needs time, not more requests
        lost = Transient("The request got no clear answer, and the tool knows no such run.")
        return _try_again(flight, lost, policy, now, jitter)
    again = replace(refresh, attempts=refresh.attempts + 1)
    return Step(again, "the tool knows no such run: triggering again", Verb.TRIGGER)


def after_look(
    flight: Flight, answer: StillRunning | Outcome | CallError, policy: Policy, *, now: datetime, jitter: float
) -> Step:
    """The tool was asked how the run is getting on."""
    refresh = flight.refresh
    deadline = refresh.deadline_at or now
    if isinstance(answer, Outcome):
        return _ended(refresh, answer, now)
    if isinstance(answer, StillRunning):
        return _still_running(flight, answer, policy, now, deadline)
    if isinstance(answer, Transient):
        flight.faults += 1
        if now >= deadline + policy.grace:
            return _outcome(refresh, RefreshState.UNKNOWN, f"The end was never learned: {answer}", now)
        note = f"{answer} Still following." if flight.faults == 1 else None
        delay = max(
            policy.look_delay(flight.looks),
            policy.retry_delay(flight.faults, answer.retry_after, jitter),
        )
        return Step(refresh, note, Verb.LOOK, delay, _pause(answer))
    flight.refusals += 1
    if flight.refusals >= PERMANENT_LOOKS:
        return _outcome(refresh, RefreshState.UNKNOWN, f"It was started, but cannot be followed: {answer}", now)
    note = f"{answer} Asking again to be sure." if flight.refusals == 1 else None
    return Step(refresh, note, Verb.LOOK, policy.look_delay(flight.looks + flight.refusals))


def _still_running(flight: Flight, answer: StillRunning, policy: Policy, now: datetime, deadline: datetime) -> Step:
    refresh = flight.refresh
    if now >= deadline:
        after = f"after {policy.timeout.total_seconds():.0f} s"
        if answer.known:
            reason = f'Still "{answer.word}" {after}; Downriver stopped watching (the tool may go on).'
            return _outcome(refresh, RefreshState.TIMED_OUT, reason, now)
        reason = f'The tool says "{answer.word}" {after}, a word nobody documented: the end is not known.'
        return _outcome(refresh, RefreshState.UNKNOWN, reason, now)
    flight.looks += 1
    flight.faults = flight.refusals = 0
    delay = min(policy.look_delay(flight.looks), max(deadline - now, timedelta(0)))
    return Step(refresh, None, Verb.LOOK, delay)


def _running(refresh: Refresh, ticket: Ticket, policy: Policy, now: datetime, note: str) -> Step:
    after = replace(
        refresh,
        state=RefreshState.RUNNING,
        ticket=ticket,
        started_at=now,
        url=ticket.url or refresh.url,
        reason=None,
        due_at=now + policy.first_look,
    )
    return Step(after, note, Verb.LOOK, policy.first_look)


def _try_again(flight: Flight, error: Transient, policy: Policy, now: datetime, jitter: float) -> Step:
    refresh = flight.refresh
    if now - refresh.created_at >= policy.retry_for:
        hours = policy.retry_for.total_seconds() / 3600
        return _outcome(refresh, RefreshState.FAILED, f"Given up after {hours:g} h of tries: {error}", now)
    due = now + policy.retry_delay(refresh.attempts, error.retry_after, jitter)
    after = replace(refresh, state=RefreshState.QUEUED, due_at=due, reason=str(error))
    return Step(after, f"{error} Trying again at {due:%H:%M:%S} UTC.", pause=_pause(error))


def _ended(refresh: Refresh, outcome: Outcome, now: datetime) -> Step:
    after = replace(refresh, state=outcome.state, ended_at=now, reason=outcome.reason, url=outcome.url or refresh.url)
    return Step(after, outcome.reason)


def _outcome(refresh: Refresh, state: RefreshState, reason: str, now: datetime) -> Step:
    return Step(replace(refresh, state=state, ended_at=now, reason=reason), reason)


def _pause(error: CallError) -> float:
    return (error.retry_after or 0.0) if isinstance(error, Transient) and error.status == 429 else 0.0


def _seek_delay(policy: Policy) -> timedelta:
    return min(timedelta(seconds=1), policy.settle)
