"""Durations, read and written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pegasus_py.core.text import MAX_DURATION, format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2h", 7200),
        ("30m", 1800),
        ("10s", 10),
        ("1h30m", 5400),
        ("45", 45),
        ("0.5s", 0.5),
        ("500ms", 0.5),
        ("2d", 172800),
        ("1.5h", 5400),
        ("0", 0),
        ("0s", 0),
        ("1m1ms", 60.001),
        ("0.1", 0.1),
    ],
)
def test_durations_are_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "1x",
        "-1s",
        "1 h",
        "h",
        "1e3",
        "inf",
        "nan",
        "1h 30m",
        "1.s",
        ".5s",
        "٣s",
        "11y",
        "4000d",
        "9" * 101,
    ],
)
def test_what_is_no_duration_says_so(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|ten years"):
        parse_duration(text)


@given(st.one_of(st.floats(0, MAX_DURATION), st.integers(0, int(MAX_DURATION)).map(float)))
def test_durations_read_back_as_written(seconds: float) -> None:
    text = format_duration(seconds)
    if len(text) <= 100:
        assert parse_duration(text) == seconds


def test_durations_are_written_as_people_do() -> None:
    written = [format_duration(seconds) for seconds in (0, 45, 60, 5400, 7200, 172800, 0.25, 90061)]
    assert written == ["0s", "45s", "1m", "1h30m", "2h", "2d", "0.25s", "1d1h1m1s"]
