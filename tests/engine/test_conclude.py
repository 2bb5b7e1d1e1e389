"""What follows from an answer: pure, so an hour of a tool being down takes no time here."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downriver.core.errors import InDoubt, Permanent, Transient, Unsupported
from downriver.core.model import Asset, Outcome, Refresh, StillRunning, Ticket
from downriver.core.states import OUTCOMES, RefreshState
from downriver.engine.conclude import PERMANENT_LOOKS, Flight, Verb, after_look, after_seek, after_trigger
from downriver.engine.policy import Policy

START = datetime(2026, 1, 2, 6, 0, tzinfo=UTC)
POLICY = Policy()
DOWN = Transient("Mode cannot be reached.")


def flight(state=RefreshState.TRIGGERING, verb=Verb.TRIGGER, **changes):
    refresh = Refresh(
        id="rf_1",
        connection="mode",
        asset=Asset("mode", "report", "9d2da37fa91e"),
        state=state,
        created_at=START,
        wanted_at=START,
        due_at=START,
        attempts=1,
        intent_at=START,
        deadline_at=START + POLICY.timeout,
        ticket=Ticket("run1") if state is RefreshState.RUNNING else None,
    )
    return Flight(replace(refresh, **changes), verb)


def test_a_tool_down_for_an_hour_is_tried_until_it_is_back():
    now, held, tries = START, flight(), 0
    while now < START + timedelta(hours=1):
        step = after_trigger(held, DOWN, POLICY, now=now, jitter=0.5)
        assert step.after.state is RefreshState.QUEUED
        assert step.after.due_at > now
        now, tries = step.after.due_at, tries + 1
        held = Flight(
            replace(step.after, state=RefreshState.TRIGGERING, attempts=held.refresh.attempts + 1), Verb.TRIGGER
        )
    assert 10 <= tries <= 25
    step = after_trigger(held, Ticket("run1"), POLICY, now=now, jitter=0.5)
    assert step.after.state is RefreshState.RUNNING
    assert step.after.ticket == Ticket("run1")


def test_a_tool_down_for_a_day_is_given_up_with_the_reason():
    step = after_trigger(flight(), DOWN, POLICY, now=START + timedelta(hours=24), jitter=0.5)
    assert step.after.state is RefreshState.FAILED
    assert "24 h" in step.after.reason
    assert str(DOWN) in step.after.reason


def test_a_429_waits_as_long_as_asked_and_holds_the_connection_back():
    limited = Transient("Mode asks to wait.", retry_after=90.0, status=429)
    step = after_trigger(flight(), limited, POLICY, now=START, jitter=0.0)
    assert step.after.due_at >= START + timedelta(seconds=90)
    assert step.pause == 90.0


def test_a_lost_answer_is_looked_for_and_never_triggered_again_at_once():
    step = after_trigger(flight(), InDoubt("The connection broke."), POLICY, now=START, jitter=0.5)
    assert step.after.state is RefreshState.TRIGGERING
    assert step.verb is Verb.SEEK
    early = after_seek(flight(verb=Verb.SEEK), (), POLICY, now=START + timedelta(seconds=1), jitter=0.5)
    assert early.verb is Verb.SEEK
    late = after_seek(flight(verb=Verb.SEEK), (), POLICY, now=START + POLICY.settle, jitter=0.5)
    assert late.verb is Verb.TRIGGER
    again = after_seek(flight(verb=Verb.SEEK, attempts=2), (), POLICY, now=START + POLICY.settle, jitter=0.5)
    assert again.after.state is RefreshState.QUEUED


def test_the_newest_run_found_is_adopted():
    old, new = Ticket("old", START), Ticket("new", START + timedelta(seconds=2))
    step = after_seek(flight(verb=Verb.SEEK), (old, new), POLICY, now=START, jitter=0.5)
    assert step.after.state is RefreshState.RUNNING
    assert step.after.ticket is new
    assert "2 could be it" in step.note


@pytest.mark.parametrize("error", [Unsupported("cannot list"), DOWN])
def test_what_cannot_be_found_out_ends_unknown(error):
    late = START + POLICY.timeout + POLICY.grace
    step = after_seek(flight(verb=Verb.SEEK), error, POLICY, now=late, jitter=0.5)
    assert step.after.state is RefreshState.UNKNOWN


def running():
    return flight(RefreshState.RUNNING, Verb.LOOK)


def test_the_deadline_tells_a_known_word_from_an_unknown_one():
    late = START + POLICY.timeout
    known = after_look(running(), StillRunning("pending"), POLICY, now=late, jitter=0.5)
    assert known.after.state is RefreshState.TIMED_OUT
    strange = after_look(running(), StillRunning("resting", known=False), POLICY, now=late, jitter=0.5)
    assert strange.after.state is RefreshState.UNKNOWN
    before = after_look(running(), StillRunning("resting", known=False), POLICY, now=START, jitter=0.5)
    assert before.verb is Verb.LOOK


def test_a_tool_that_is_down_at_the_deadline_is_still_asked_for_the_true_end():
    late = START + POLICY.timeout + timedelta(minutes=5)
    step = after_look(running(), DOWN, POLICY, now=late, jitter=0.5)
    assert step.verb is Verb.LOOK
    end = Outcome(RefreshState.SUCCEEDED, "Mode finished the run.")
    assert after_look(running(), end, POLICY, now=late, jitter=0.5).after.state is RefreshState.SUCCEEDED


def test_a_refused_look_is_asked_again_before_the_end_is_called_unknown():
    held = running()
    steps = [
        after_look(held, Permanent("404"), POLICY, now=START, jitter=0.5).after.state for _ in range(PERMANENT_LOOKS)
    ]
    assert steps == [RefreshState.RUNNING] * (PERMANENT_LOOKS - 1) + [RefreshState.UNKNOWN]


@given(
    answer=st.sampled_from(
        [DOWN, InDoubt("x"), Permanent("x"), Unsupported("x"), Ticket("t"), Outcome(RefreshState.SUCCEEDED, "x")]
    ),
    hours=st.floats(0, 60),
    attempts=st.integers(1, 200),
    jitter=st.floats(0, 1),
)
def test_every_answer_ends_the_refresh_or_says_what_comes_next(answer, hours, attempts, jitter):
    step = after_trigger(flight(attempts=attempts), answer, POLICY, now=START + timedelta(hours=hours), jitter=jitter)
    ended = step.after.state in OUTCOMES
    assert ended == (step.verb is None and step.after.state is not RefreshState.QUEUED)
    assert (step.after.ended_at is not None) == ended
    assert step.note
    if step.after.state is RefreshState.SUCCEEDED:
        assert isinstance(answer, Outcome)
