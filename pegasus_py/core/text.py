"""Durations as people write them."""

from __future__ import annotations

import re
from decimal import Decimal

MAX_DURATION = 10 * 365 * 86400.0
"""Seconds; more is a mistake."""

_SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_UNITS = {"ms": Decimal("0.001"), **{unit: Decimal(count) for unit, count in _SECONDS.items()}}
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|[dhms]))+")
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|[dhms])")
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")


def parse_duration(text: str) -> float:
    """Seconds in `2d`, `1h30m`, `0.5s`, `500ms` or `45` (seconds).

    Raises ValueError, whose message completes "KEY: ".
    """
    if len(text) > 100:
        raise ValueError("too long for a duration")
    if _NUMBER.fullmatch(text):
        seconds = Decimal(text)
    elif _DURATION.fullmatch(text):
        seconds = sum((Decimal(n) * _UNITS[unit] for n, unit in _PART.findall(text)), Decimal(0))
    else:
        raise ValueError(f"{text!r} is not a duration; write 90, 10s, 30m, 2h, 1h30m, 2d or 500ms")
    if seconds > MAX_DURATION:
        raise ValueError(f"{text!r} is longer than ten years")
    return float(seconds)


def format_duration(seconds: float) -> str:
    """The shortest usual form, which `parse_duration` reads back as the same number."""
    if seconds != int(seconds):
        return f"{Decimal(repr(seconds)):f}s"
    left = int(seconds)
    parts = []
    for unit, length in _SECONDS.items():
        count, left = divmod(left, length)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"
