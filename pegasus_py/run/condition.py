"""What a run that goes on is at, as `pegasus status` asks for it: who gets no jobs, and why nothing is taken."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from pegasus_py.core.state import Link as LinkState
from pegasus_py.core.state import Seat
from pegasus_py.run.engine import Engine
from pegasus_py.run.link import Link
from pegasus_py.show.words import seconds


def condition(engine: Engine) -> dict[str, Any]:
    """For JSON: the number of `subnodes`, those that are `absent`, and what `trouble` there is with the queue."""
    seats = [seat for seat in engine.state.seats.values() if not seat.collects_only]
    reasons = {seat.subnode.name: _absence(seat, engine.links, time.monotonic()) for seat in seats}
    return {
        "subnodes": len(seats),
        "absent": [{"subnode": name, "reason": reason} for name, reason in reasons.items() if reason],
        "trouble": engine.trouble,
        "stopping": engine.state.stop is not None,
    }


def _absence(seat: Seat, links: Mapping[str, Link], now: float) -> str:
    """Why the seat gets no jobs; nothing if it does."""
    reason = links[seat.subnode.name].reason
    if seat.expelled:
        return f"out of the broadcast{': ' + reason if reason else ''}"
    match seat.link:
        case LinkState.TRYING:
            return "connecting"
        case LinkState.DOWN:
            return f"{reason}; trying again"
        case LinkState.DEAD:
            return f"{reason}; not tried again in this run"
    if seat.resting_until > now:
        return f"set aside for another {seconds(seat.resting_until - now)}"
    return ""
