"""The table of moves, by its own rules."""

from __future__ import annotations

import pytest

from downriver.core.states import ACTIVE, MOVES, OUTCOMES, RefreshState, may_move, sources_of


def test_every_state_stands_in_the_table():
    assert set(MOVES) == set(RefreshState) == ACTIVE | OUTCOMES
    assert not ACTIVE & OUTCOMES


@pytest.mark.parametrize("outcome", sorted(OUTCOMES))
def test_an_outcome_is_the_end_and_can_be_reached(outcome):
    assert not MOVES[outcome]
    assert sources_of(outcome)


def test_the_tool_is_never_asked_without_an_intent():
    assert sources_of(RefreshState.RUNNING) == {RefreshState.TRIGGERING}
    assert not may_move(RefreshState.QUEUED, RefreshState.SUCCEEDED)
    assert not may_move(RefreshState.RUNNING, RefreshState.TRIGGERING)


def test_sources_are_the_table_read_backwards():
    for before in RefreshState:
        for target in RefreshState:
            assert may_move(before, target) == (before in sources_of(target))
