"""What to do with an attempt whose end is not known, once its node has answered: the truth table.

The table is the whole of recovery. It is the same after a lost connection and after a controller's death, because
the scheduler never remembers more of an attempt than the ledger does.
"""

from __future__ import annotations

from enum import Enum

from pegasus_py.core.model import Report, Spot


class Verdict(Enum):
    """What follows from a node's report."""

    START = "start"
    """It never started: send the same attempt again. The start marker keeps it to one start."""
    FOLLOW = "follow"
    """It runs or has ended: wait for its exit status and take its output."""
    LOST = "lost"
    """It started, or may have, and its exit status is gone."""
    NEVER = "never"
    """It never started and never will: somebody took the marker away from it."""
    UNKNOWN = "unknown"
    """This node cannot tell. Ask again later."""


_TABLE = {
    Spot.ABSENT: Verdict.START,
    Spot.FENCED: Verdict.NEVER,
    Spot.STARTING: Verdict.FOLLOW,
    Spot.RUNNING: Verdict.FOLLOW,
    Spot.EXITED: Verdict.FOLLOW,
    Spot.VANISHED: Verdict.LOST,
    Spot.REBOOTED: Verdict.LOST,
    Spot.ELSEWHERE: Verdict.UNKNOWN,
}

_REASONS = {
    Spot.VANISHED: "its processes are gone and left no exit status",
    Spot.REBOOTED: "the node was restarted while it ran",
}


def decide(report: Report) -> Verdict:
    """The verdict for one report."""
    return _TABLE[report.spot]


def reason(report: Report) -> str:
    """Why an attempt is lost, in words for the user."""
    return _REASONS.get(report.spot, str(report.spot))
