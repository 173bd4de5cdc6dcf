"""When a seat gets no jobs: set aside because all fails there, or out of step in a broadcast."""

from __future__ import annotations

from pegasus_py.core.model import End, JobState
from pegasus_py.core.moves import Drop, Expel, Order, SetAside
from pegasus_py.core.state import Link, Mode, Phase, Seat, State, Timer

_SUCCEEDED = JobState.SUCCEEDED
"""As in `core.state`."""
LONGEST_REST = 3600.0
"""Seconds that a seat is set aside at most; each time in a row is twice as long as the one before."""


def count(state: State, seat: Seat, ended: End, now: float, orders: list[Order]) -> None:
    """A seat where everything fails at once, while elsewhere it does not, would swallow the queue: set it aside."""
    settings = state.settings
    if ended.state is _SUCCEEDED:
        seat.good += 1
        state.good += 1
        seat.rests = seat.streak = 0
        return
    if ended.state is not JobState.FAILED or (ended.duration or 0.0) >= settings.quick_failure:
        seat.streak = 0
        return
    good_elsewhere = state.good - seat.good
    if not seat.streak:
        seat.streak_good = good_elsewhere
    seat.streak += 1
    if (
        not settings.set_aside_after
        or seat.streak < settings.set_aside_after
        or settings.mode is not Mode.QUEUE
    ):
        return
    # That all are looked at is not to be paid for by each of thousands of jobs that fail everywhere.
    may_look = seat.streak % settings.set_aside_after == 0
    if good_elsewhere > seat.streak_good or (may_look and _one_holds_elsewhere(state, seat, now)):
        rest(state, seat, f"{seat.streak} jobs in a row failed there at once", now, orders)


def _one_holds_elsewhere(state: State, seat: Seat, now: float) -> bool:
    """Whether a job runs on another seat that has not failed at once there: long jobs have no success to show yet."""
    return any(
        live.phase is Phase.TOLD and now - live.started >= state.settings.quick_failure
        for other in state.seats.values()
        if other is not seat
        for live in other.live.values()
    )


def rest(state: State, seat: Seat, reason: str, now: float, orders: list[Order]) -> None:
    """No jobs for this seat for a while."""
    seconds = min(state.settings.set_aside_for * 2**seat.rests, LONGEST_REST)
    seat.rests = min(seat.rests + 1, 16)
    seat.streak = 0
    seat.resting_until = now + seconds
    state.set_timer(seat.resting_until, Timer.REST, seat.subnode.name)
    state.refresh(seat)
    orders.append(SetAside(seat.subnode.name, reason, seconds))


def on_rest(state: State, key: str, now: float, orders: list[Order]) -> None:
    seat = state.seats[key]
    if seat.resting_until and seat.resting_until <= now:
        seat.resting_until = 0.0
        state.refresh(seat)


def expel(state: State, seat: Seat, reason: str, orders: list[Order]) -> None:
    """A broadcast goes on without this seat; what waits for it is given up."""
    seat.expelled = True
    state.round_failed |= state.started
    state.refresh(seat)
    name = seat.subnode.name
    for waiting in [w for w in (*state.waiting.values(), *state.ready) if w.pinned and w.job.subnode == name]:
        state.forget(waiting)
        orders.append(Drop(waiting.job, waiting.number - 1, "its node left the broadcast"))
    orders.append(Expel(name, reason))


def on_expel(state: State, key: str, now: float, orders: list[Order]) -> None:
    seat = state.seats[key]
    if seat.link is Link.UP or seat.down_since is None or not seat.member:
        return
    if seat.down_since + state.settings.broadcast_lost_after <= now:
        expel(state, seat, "it was lost, and the others go on without it", orders)
