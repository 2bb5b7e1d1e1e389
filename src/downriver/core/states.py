"""The states of a refresh and every allowed move, in one table.

::

    queued ──> triggering ──> running ──> succeeded | failed | cancelled | timed_out | unknown
       │  ^        │
       │  └────────┘  (nothing happened at the tool: the trigger is tried again later)
       └──> superseded | failed | cancelled | timed_out

`triggering` is the *intent*, committed before the tool is called; `running` carries the *ticket* of the
tool's own run. A trigger that the tool refused for good, or whose fate cannot be found out, ends from
`triggering`. The one function that changes a state is `store.refreshes.move`, and it asks this table.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class RefreshState(StrEnum):
    """Where a refresh is. The last six are outcomes: they never change again."""

    QUEUED = "queued"
    TRIGGERING = "triggering"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    UNKNOWN = "unknown"
    SUPERSEDED = "superseded"


_S = RefreshState

OUTCOMES: Final[frozenset[RefreshState]] = frozenset(
    {_S.SUCCEEDED, _S.FAILED, _S.CANCELLED, _S.TIMED_OUT, _S.UNKNOWN, _S.SUPERSEDED}
)

MOVES: Final[dict[RefreshState, frozenset[RefreshState]]] = {
    _S.QUEUED: frozenset({_S.TRIGGERING, _S.SUPERSEDED, _S.FAILED, _S.CANCELLED, _S.TIMED_OUT}),
    _S.TRIGGERING: frozenset(
        # back to queued: the tool surely did nothing. Also straight to an outcome: an `invalidate` or
        # `warm` connector is done inside the call, a refusal is final, a lost trigger stays unknown.
        {_S.QUEUED, _S.RUNNING, _S.SUCCEEDED, _S.FAILED, _S.CANCELLED, _S.TIMED_OUT, _S.UNKNOWN}
    ),
    _S.RUNNING: frozenset({_S.SUCCEEDED, _S.FAILED, _S.CANCELLED, _S.TIMED_OUT, _S.UNKNOWN}),
    **{outcome: frozenset() for outcome in OUTCOMES},
}

ACTIVE: Final[frozenset[RefreshState]] = frozenset(_S) - OUTCOMES


def sources_of(target: RefreshState) -> frozenset[RefreshState]:
    """The states from which `target` may be reached."""
    return frozenset(state for state, targets in MOVES.items() if target in targets)


def may_move(current: RefreshState, target: RefreshState) -> bool:
    """Whether the table allows `current` → `target`."""
    return target in MOVES[current]
