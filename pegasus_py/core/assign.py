"""Who gets what, and when the run is over."""

from __future__ import annotations

from pegasus_py.core.moves import Begin, Drop, Finish, Order, Outcome, QueueView, StopLevel, Take, Waiting
from pegasus_py.core.seats import expel
from pegasus_py.core.state import Link, Mode, State

# As in `core.state`.
_MORE, _UNKNOWN, _QUEUE, _LEAVE = QueueView.MORE, QueueView.UNKNOWN, Mode.QUEUE, StopLevel.LEAVE
TAKE_AT_ONCE = 64
"""How many jobs one `Take` asks for at most in queue mode; bounds how long the queue's lock is held."""


def assign(state: State, now: float, orders: list[Order]) -> None:
    """Jobs that wait first, then the queue: one job for each free seat, or one task for all of them."""
    if state.stop or state.taking or (state.settings.require_all and not _all_there(state)):
        return
    if state.ready.jobs:
        _begin_pinned(state, orders)
        _begin_anywhere(state, orders)
    if state.queue is _MORE or state.queue is _UNKNOWN:
        if state.settings.mode is _QUEUE:
            if seats := state.free.first(TAKE_AT_ONCE):
                _take(state, seats, None, orders)
        else:
            _take_round(state, orders)


def _all_there(state: State) -> bool:
    return not (state.undecided or _missing(state))


def _missing(state: State) -> bool:
    """Whether a node that --require-all insists on was not there at the start."""
    if state.started:
        return False
    return any(s.link is not Link.UP for s in state.seats.values() if not s.collects_only)


# --- retries -------------------------------------------------------------------------------------------------


def _begin_pinned(state: State, orders: list[Order]) -> None:
    """A broadcast's retry stays on its sub-node; without that sub-node it is given up."""
    while state.callers:
        name, _ = state.callers.popitem()
        waiting = state.ready.first_pinned(name)
        seat = state.seats.get(name)
        if waiting is not None and (seat is None or not seat.member or seat.link is Link.DEAD):
            state.forget(waiting)
            orders.append(Drop(waiting.job, waiting.number - 1, "its node is not part of this run"))
            state.callers[name] = None
        elif waiting is not None and name in state.free:
            _begin(state, waiting, name, orders)


def _begin_anywhere(state: State, orders: list[Order]) -> None:
    """A retry goes to another host than the last as long as there is one that may become free."""
    for host in state.ready.avoided(TAKE_AT_ONCE) if len(state.free) else ():
        while (waiting := state.ready.first_avoiding(host)) is not None:
            name = _seat_away_from(state, host)
            if name is None:
                break
            _begin(state, waiting, name, orders)


def _seat_away_from(state: State, host: str | None) -> str | None:
    others = len(state.hosts) - (1 if host in state.hosts else 0)
    if host is None or not others:
        return next(iter(state.free), None)
    return state.free.first_not_on(host)


def _begin(state: State, waiting: Waiting, name: str, orders: list[Order]) -> None:
    state.forget(waiting)
    state.beginning.add(waiting.job.id)
    state.reserve(name)
    orders.append(Begin(waiting, name))


# --- the queue -----------------------------------------------------------------------------------------------


def _take(state: State, seats: tuple[str, ...], round_: int | None, orders: list[Order]) -> None:
    state.taking = True
    state.taking_for = seats
    for name in seats:
        state.reserve(name)
    orders.append(Take(seats, round_))


def _take_round(state: State, orders: list[Order]) -> None:
    """Broadcast: the next command for all seats once nobody has work of the round before."""
    if state.undecided or state.busy or state.waiting or state.ready.jobs or state.beginning:
        return
    if state.round_failed and state.settings.error_aborts:
        return
    members = [s for s in state.seats.values() if s.member]
    if not state.started and not state.taken_up and state.ever_up:
        for seat in members:
            if seat.link is not Link.UP:
                expel(state, seat, "it was not there when the first command started", orders)
        members = [s for s in members if s.member]
    if members and all(s.link is Link.UP and not s.ghosts for s in members):
        _take(state, tuple(s.subnode.name for s in members), state.round + 1, orders)


# --- the end -------------------------------------------------------------------------------------------------


def finish_if_over(state: State, orders: list[Order]) -> None:
    if state.holding and state.ever_up and not state.settings.require_all and state.stop is not _LEAVE:
        # Jobs run, which hold the end back whatever else there is: so it is nearly always, and asked first.
        return
    outcome = _outcome(state)
    if outcome is not None:
        state.outcome = outcome
        orders.append(Finish(outcome))
    elif _wants_last_look(state):
        _take(state, (), None, orders)


def _outcome(state: State) -> Outcome | None:
    settings = state.settings
    if state.stop is _LEAVE:
        return Outcome.LEFT
    if state.taking or state.beginning:
        return None
    if not state.undecided and (not state.ever_up or (settings.require_all and _missing(state))):
        return Outcome.NO_NODES
    if state.holding:
        return None
    if state.stop:
        return Outcome.STOPPED
    if state.undecided:
        return None
    if all(not s.member or s.link is Link.DEAD for s in state.seats.values()):
        return Outcome.NO_NODES
    if state.waiting or state.ready.jobs:
        return None
    if settings.mode is Mode.BROADCAST and settings.error_aborts and state.round_failed:
        return Outcome.ABORTED
    if state.queue is QueueView.EMPTY and state.looked and not settings.daemon:
        return Outcome.DONE
    return None


def _wants_last_look(state: State) -> bool:
    """Whether only the queue file can say if the run is over: entries may have been added since the last look."""
    if state.settings.daemon or state.stop or state.taking or state.beginning or state.undecided:
        return False
    if state.holding or state.waiting or state.ready.jobs:
        return False
    return state.queue is QueueView.UNKNOWN or (state.queue is not QueueView.BLOCKED and not state.looked)
