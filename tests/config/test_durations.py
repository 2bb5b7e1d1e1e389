from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downriver.config.durations import duration_text, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("45s", 45), ("90m", 5400), ("1h", 3600), ("1h30m", 5400), (" 1h 30m ", 5400), ("500ms", 0.5), ("2d", 172800), ("1.5h", 5400), ("0s", 0)],
)  # fmt: skip
def test_lengths_of_time(text, seconds):
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", " ", "5", "h", "-1h", "1H", "1 hour", "1h!", "1h 2", "1e3s", "٣s", "PT1H", "1h\n2x"]
)
def test_what_is_no_length_of_time(text):
    with pytest.raises(ValueError, match="unit"):
        parse_duration(text)


def test_too_long_a_time():
    with pytest.raises(ValueError, match="too long"):
        parse_duration("999999999d" * 3)


@given(st.integers(0, 10**12))
def test_text_and_back(milliseconds):
    length = timedelta(milliseconds=milliseconds)
    assert parse_duration(duration_text(length)) == length
