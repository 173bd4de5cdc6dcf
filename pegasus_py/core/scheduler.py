"""The scheduler's one door: `step(state, fact, now)` changes the state and returns the orders that follow.

No I/O, no clock (`now` is given, in seconds of any steady clock), no asyncio. A job's way through it:

    Take -> Took -> Send -> Exited -> Record          the ordinary way
    Closed -> Opened -> Ask -> Reported -> ...        whenever a connection or a controller was lost
    Kill -> Killed + Exited -> Record                 cancel and timeout
    Record(next=QUEUED) -> Tick -> Begin -> Began     a retry

Here facts come in. `core.life` has what becomes of an attempt, `core.assign` who gets what and when it is over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pegasus_py.core import recovery
from pegasus_py.core.assign import assign, finish_if_over
from pegasus_py.core.life import (
    add_live,
    ask,
    end,
    fence,
    kill,
    launch,
    lose_sight,
    on_lost,
    on_timeout,
    send,
    settle,
    settle_never,
    watch_timeout,
)
from pegasus_py.core.model import JobState, Report, Spot
from pegasus_py.core.moves import (
    Attach,
    Began,
    CancelAsked,
    Closed,
    Drop,
    Exited,
    Fact,
    Fence,
    Kill,
    Killed,
    Look,
    Opened,
    Order,
    Over,
    QueueView,
    Refused,
    Reported,
    Resumed,
    StopAsked,
    StopLevel,
    Tick,
    Took,
    Waiting,
)
from pegasus_py.core.recovery import Verdict
from pegasus_py.core.seats import expel, on_expel, on_rest, rest
from pegasus_py.core.state import Link, Live, Mode, Phase, State, Timer

# As in `core.state`.
_BROADCAST, _SUCCEEDED, _FAILED = Mode.BROADCAST, JobState.SUCCEEDED, JobState.FAILED
LEAVE_AFTER = 15.0
"""How long a "stop now" waits for unreachable nodes, in seconds, before it leaves their jobs to the next run."""


def step(state: State, fact: Fact, now: float, *, more: bool = False) -> list[Order]:
    """Take in one fact; return what is to be done, in order.

    `more`: another fact follows at once. Who gets what is decided after the last, for all seats that are free by then.
    """
    orders: list[Order] = []
    if state.outcome is None:
        _HANDLERS[type(fact)](state, fact, now, orders)
        if not more:
            assign(state, now, orders)
            finish_if_over(state, orders)
    return orders


# --- the start of a run, and connections ---------------------------------------------------------------------


def _resumed(state: State, fact: Resumed, now: float, orders: list[Order]) -> None:
    seat = state.seats[fact.attempt.subnode]
    live = add_live(state, seat, fact.attempt, fact.tries, now - fact.elapsed, now)
    # A round that an earlier run began: who is away for a moment is waited for, as in the middle of a run.
    state.taken_up |= state.settings.mode is Mode.BROADCAST and seat.member
    if fact.unwanted:
        live.ending = JobState.CANCELLED
    if seat.link is Link.UP:
        ask(live, orders)
    else:
        lose_sight(state, live, now)


def _waiting(state: State, fact: Waiting, now: float, orders: list[Order]) -> None:
    state.waiting[fact.job.id] = fact
    state.set_timer(now + fact.delay, Timer.RETRY, str(fact.job.id))


def _opened(state: State, fact: Opened, now: float, orders: list[Order]) -> None:
    seat = state.seats[fact.seat]
    seat.link, seat.down_since = Link.UP, None
    state.ever_up |= not seat.collects_only
    state.undecided.discard(fact.seat)
    state.refresh(seat)
    for ghost in seat.ghosts.values():
        orders.append(Fence(ghost))
    for live in seat.live.values():
        ask(live, orders)


def _closed(state: State, fact: Closed, now: float, orders: list[Order]) -> None:
    seat = state.seats[fact.seat]
    seat.link = Link.DEAD if fact.final else Link.DOWN
    state.undecided.discard(fact.seat)
    for live in seat.live.values():
        lose_sight(state, live, now)
    if seat.down_since is None:
        seat.down_since = now
        if state.settings.mode is Mode.BROADCAST:
            state.set_timer(now + state.settings.broadcast_lost_after, Timer.EXPEL, fact.seat)
    state.refresh(seat)
    state.callers[fact.seat] = None
    if fact.final and state.started and state.settings.mode is Mode.BROADCAST and seat.member:
        expel(state, seat, "it is lost for good, and the others go on without it", orders)


# --- what was recorded ---------------------------------------------------------------------------------------


def _took(state: State, fact: Took, now: float, orders: list[Order]) -> None:
    state.taking = False
    state.queue = fact.view
    state.looked = True
    if fact.attempts and state.settings.mode is _BROADCAST:
        state.round += 1
        state.round_failed = False
    seats = [state.seats[name] for name in state.taking_for]
    state.taking_for = ()
    for seat in seats:
        seat.reserved = False
    for attempt in fact.attempts:
        launch(state, attempt, 1, now, orders)
    for seat in seats:
        if not seat.live:
            state.refresh(seat)


def _began(state: State, fact: Began, now: float, orders: list[Order]) -> None:
    seat, job = state.seats[fact.seat], fact.waiting.job
    seat.reserved = False
    state.beginning.discard(job.id)
    unwanted = job.id in state.unwanted
    state.unwanted.discard(job.id)
    if fact.attempt is not None:
        launch(state, fact.attempt, fact.waiting.tries + 1, now, orders, unwanted=unwanted)
    elif fact.error or unwanted:
        orders.append(Drop(job, fact.waiting.number - 1, fact.error))
        state.round_failed = True
    else:
        state.waiting[job.id] = fact.waiting
        state.set_timer(now + state.settings.begin_retry, Timer.RETRY, str(job.id))
    state.refresh(seat)


def _look(state: State, fact: Look, now: float, orders: list[Order]) -> None:
    if state.queue is not QueueView.MORE:
        state.queue = QueueView.UNKNOWN


# --- what nodes say ------------------------------------------------------------------------------------------


def _over(state: State, fact: Over, now: float, orders: list[Order]) -> None:
    """From now on no timeout counts, and there is nothing to be ended, however long its output takes to come."""
    live = state.live(fact.attempt)
    if live is not None:
        live.seen, live.over = True, live.over or not live.killed
        if live.ended is None:
            live.ended = now


def _exited(state: State, fact: Exited, now: float, orders: list[Order]) -> None:
    live = state.live(fact.attempt)
    if live is None:
        return
    live.seen = True
    if live.killing:
        live.status = fact.status
    else:
        _settle_exit(state, live, fact.status, now, orders)


def _settle_exit(state: State, live: Live, status: int, now: float, orders: list[Order]) -> None:
    live.status = status
    settle(state, live, _FAILED if status else _SUCCEEDED, "", now, orders)


def _refused(state: State, fact: Refused, now: float, orders: list[Order]) -> None:
    live = state.live(fact.attempt)
    if live is None:
        return
    live.sends -= 1
    live.refusal = fact.reason
    seat = state.seats[live.attempt.subnode]
    if live.astray:
        fence(live, now, orders)
    else:
        settle_never(state, live, fact.reason, now, orders)
    if live.attempt.job.round is None:
        rest(state, seat, fact.reason, now, orders)


def _reported(state: State, fact: Reported, now: float, orders: list[Order]) -> None:
    report = fact.report
    live = state.live(report.attempt)
    if live is None:
        _ghost_reported(state, report, now, orders)
    elif state.seats[live.attempt.subnode].link is Link.UP:
        _settle_report(state, live, report, now, orders)


def _settle_report(state: State, live: Live, report: Report, now: float, orders: list[Order]) -> None:
    match recovery.decide(report):
        case Verdict.START if live.seen:
            settle(state, live, JobState.LOST, "what its node kept of it is gone", now, orders)
        case Verdict.START if live.phase is Phase.FENCING:
            _ask_again_later(state, live, now)
        case Verdict.START if live.ending or state.stop or state.seats[live.attempt.subnode].collects_only:
            fence(live, now, orders)
        case Verdict.START:
            live.started = now
            watch_timeout(state, live)
            send(live, orders)
        case Verdict.FOLLOW:
            live.phase, live.seen = Phase.TOLD, True
            live.over |= report.spot is Spot.EXITED and not live.killed
            orders.append(Attach(live.attempt))
            if live.ending and not live.over and not live.killing:
                kill(live, orders)
        case Verdict.LOST:
            live.seen = True
            settle(state, live, JobState.LOST, recovery.reason(report), now, orders)
        case Verdict.NEVER:
            settle_never(state, live, live.refusal or "it never started", now, orders)
        case Verdict.UNKNOWN:
            _ask_again_later(state, live, now)


def _ask_again_later(state: State, live: Live, now: float) -> None:
    lose_sight(state, live, now)
    state.set_timer(now + state.settings.unsure_retry, Timer.REASK, live.attempt.id)


def _ghost_reported(state: State, report: Report, now: float, orders: list[Order]) -> None:
    """A given-up attempt: nothing of it may be running or able to start before its seat gets anything new."""
    name = state.ghost_of.get(report.attempt)
    if name is None or state.seats[name].link is not Link.UP:
        return
    match recovery.decide(report):
        case Verdict.START:
            state.set_timer(now + state.settings.unsure_retry, Timer.REASK, report.attempt)
        case Verdict.FOLLOW if report.spot is not Spot.EXITED:
            orders.append(Kill(state.seats[name].ghosts[report.attempt]))
        case _:
            _lay(state, report.attempt)


def _lay(state: State, ghost: str) -> None:
    seat = state.seats[state.ghost_of.pop(ghost)]
    del seat.ghosts[ghost]
    state.refresh(seat)


def _killed(state: State, fact: Killed, now: float, orders: list[Order]) -> None:
    live = state.live(fact.attempt)
    if live is None:
        _ghost_killed(state, fact, orders)
        return
    if not live.killing:
        return
    live.killing = False
    live.survivors = fact.survivors
    if live.status is not None:
        _settle_exit(state, live, live.status, now, orders)
    elif fact.survivors:
        seat = state.seats[live.attempt.subnode]
        settle(state, live, JobState.CANCELLED, "not all of it could be ended", now, orders)
        rest(state, seat, "processes there could not be ended", now, orders)
    else:
        # It may have been ended before it started: the request to start it was still on its way.
        fence(live, now, orders)


def _ghost_killed(state: State, fact: Killed, orders: list[Order]) -> None:
    name = state.ghost_of.get(fact.attempt)
    if name is None or state.seats[name].link is not Link.UP:
        return
    if fact.survivors:
        _lay(state, fact.attempt)
    else:
        orders.append(Fence(state.seats[name].ghosts[fact.attempt]))


# --- what the user wants -------------------------------------------------------------------------------------


def _stop_asked(state: State, fact: StopAsked, now: float, orders: list[Order]) -> None:
    if state.stop is None or fact.level.value > state.stop.value:
        state.stop = fact.level
    if state.stop is StopLevel.NOW:
        for live in state.lives():
            end(live, JobState.CANCELLED, orders)
        state.set_timer(now + LEAVE_AFTER, Timer.LEAVE, "")


def _cancel_asked(state: State, fact: CancelAsked, now: float, orders: list[Order]) -> None:
    def wanted(job_id: int) -> bool:
        return fact.jobs is None or job_id in fact.jobs

    for live in state.lives():
        if wanted(live.attempt.job.id):
            end(live, JobState.CANCELLED, orders)
    for waiting in [w for w in (*state.waiting.values(), *state.ready) if wanted(w.job.id)]:
        state.forget(waiting)
        orders.append(Drop(waiting.job, waiting.number - 1))
        state.round_failed = True
    state.unwanted |= {job for job in state.beginning if wanted(job)}


# --- timers --------------------------------------------------------------------------------------------------


def _tick(state: State, fact: Tick, now: float, orders: list[Order]) -> None:
    for timer, key in state.due(now):
        _TIMERS[timer](state, key, now, orders)


def _on_retry(state: State, key: str, now: float, orders: list[Order]) -> None:
    waiting = state.waiting.pop(int(key), None)
    if waiting is not None:
        state.make_ready(waiting)


def _on_reask(state: State, key: str, now: float, orders: list[Order]) -> None:
    live, haunted = state.live(key), state.ghost_of.get(key)
    if live is not None and live.phase is Phase.UNSURE and state.seats[live.attempt.subnode].link is Link.UP:
        ask(live, orders)
    elif haunted is not None and state.seats[haunted].link is Link.UP:
        orders.append(Fence(state.seats[haunted].ghosts[key]))


def _on_leave(state: State, key: str, now: float, orders: list[Order]) -> None:
    if all(live.phase is Phase.UNSURE for live in state.lives()):
        state.stop = StopLevel.LEAVE
    else:
        state.set_timer(now + LEAVE_AFTER, Timer.LEAVE, "")


_HANDLERS: dict[type, Callable[[State, Any, float, list[Order]], None]] = {
    Resumed: _resumed,
    Waiting: _waiting,
    Opened: _opened,
    Closed: _closed,
    Took: _took,
    Began: _began,
    Look: _look,
    Over: _over,
    Exited: _exited,
    Refused: _refused,
    Reported: _reported,
    Killed: _killed,
    StopAsked: _stop_asked,
    CancelAsked: _cancel_asked,
    Tick: _tick,
}

_TIMERS: dict[Timer, Callable[[State, str, float, list[Order]], None]] = {
    Timer.TIMEOUT: on_timeout,
    Timer.LOST: on_lost,
    Timer.RETRY: _on_retry,
    Timer.REST: on_rest,
    Timer.REASK: _on_reask,
    Timer.EXPEL: on_expel,
    Timer.LEAVE: _on_leave,
}
