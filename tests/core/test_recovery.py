"""The truth table: every answer that a node can give has one consequence."""

from __future__ import annotations

import pytest

from pegasus_py.core.model import Report, Spot
from pegasus_py.core.recovery import Verdict, decide, reason


@pytest.mark.parametrize(
    ("spot", "verdict"),
    [
        (Spot.ABSENT, Verdict.START),
        (Spot.FENCED, Verdict.NEVER),
        (Spot.STARTING, Verdict.FOLLOW),
        (Spot.RUNNING, Verdict.FOLLOW),
        (Spot.EXITED, Verdict.FOLLOW),
        (Spot.VANISHED, Verdict.LOST),
        (Spot.REBOOTED, Verdict.LOST),
        (Spot.ELSEWHERE, Verdict.UNKNOWN),
    ],
)
def test_what_follows_from_a_report(spot: Spot, verdict: Verdict) -> None:
    assert decide(Report("1.1.0", spot)) is verdict


def test_every_answer_has_a_verdict() -> None:
    assert {decide(Report("1.1.0", spot)) for spot in Spot} == set(Verdict)


def test_a_loss_is_told_in_words() -> None:
    assert "restarted" in reason(Report("1.1.0", Spot.REBOOTED))
    assert "no exit status" in reason(Report("1.1.0", Spot.VANISHED))
