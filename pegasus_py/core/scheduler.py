"""The scheduler's one door: `step(state, fact, now)` changes the state and returns the orders that follow.

No I/O, no clock (`now` is given, in seconds of any steady clock), no asyncio. A job's way through it:

    Take -> Took -> Send -> Exited -> Record          the ordinary way
    Closed -> Opened -> Ask -> Reported -> ...        whenever a connection or a controller was lost
    Kill -> Killed + Exited -> Record                 cancel and timeout
    Record(next=QUEUED) -> Tick -> Begin -> Began     a retry
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pegasus_py.core import recovery
from pegasus_py.core.model import RETRYABLE, Attempt, End, JobState
from pegasus_py.core.moves import (
    Ask,
    Attach,
    Began,
    Begin,
    CancelAsked,
    Closed,
    Drop,
    Exited,
    Expel,
    Fact,
    Fence,
    Finish,
    Kill,
    Killed,
    Look,
    Opened,
    Order,
    Outcome,
    QueueView,
    Record,
    Refused,
    Reported,
    Resumed,
    Send,
    SetAside,
    StopAsked,
    StopLevel,
    Take,
    Tick,
    Took,
    Waiting,
)
from pegasus_py.core.recovery import Verdict
from pegasus_py.core.state import Link, Live, Mode, Phase, Seat, State, Timer

TAKE_AT_ONCE = 64
"""How many jobs one `Take` asks for at most in queue mode; bounds how long the queue's lock is held."""
LEAVE_AFTER = 15.0
"""How long a "stop now" waits for unreachable nodes, in seconds, before it leaves their jobs to the next run."""
LONGEST_REST = 3600.0


def step(state: State, fact: Fact, now: float) -> list[Order]:
    """Take in one fact; return what is to be done, in order."""
    orders: list[Order] = []
    if state.outcome is None:
        _HANDLERS[type(fact)](state, fact, now, orders)
        if state.settings.mode is Mode.QUEUE:
            _assign(state, orders)
        else:
            _assign_round(state, orders)
        _finish_if_over(state, orders)
    return orders


# --- facts -----------------------------------------------------------------------------------------------------


def _resumed(state: State, fact: Resumed, now: float, orders: list[Order]) -> None:
    seat = state.seats[fact.attempt.subnode]
    _add_live(state, seat, fact.attempt, fact.tries, now - fact.elapsed, now)
    if seat.link is Link.UP:
        _ask(state, seat.live[fact.attempt.id], orders)


def _waiting(state: State, fact: Waiting, now: float, orders: list[Order]) -> None:
    state.waiting[fact.job.id] = fact
    state.set_timer(now + fact.delay, Timer.RETRY, str(fact.job.id))


def _opened(state: State, fact: Opened, now: float, orders: list[Order]) -> None:
    seat = state.seats[fact.seat]
    was_usable = seat.usable
    seat.link = Link.UP
    state.ever_up = True
    state.undecided.discard(fact.seat)
    state.refresh(seat, was_usable)
    for live in seat.live.values():
        _ask(state, live, orders)


def _closed(state: State, fact: Closed, now: float, orders: list[Order]) -> None:
    seat = state.seats[fact.seat]
    was_usable = seat.usable
    was_up = seat.link is Link.UP
    seat.link = Link.DEAD if fact.final else Link.DOWN
    state.undecided.discard(fact.seat)
    for live in seat.live.values():
        if live.phase is not Phase.UNSURE:
            live.phase, live.since = Phase.UNSURE, now
            _watch_for_loss(state, live)
        live.killing, live.status = False, None
    state.refresh(seat, was_usable)
    if state.settings.mode is Mode.BROADCAST and was_up:
        state.set_timer(now + state.settings.broadcast_lost_after, Timer.EXPEL, fact.seat)


def _took(state: State, fact: Took, now: float, orders: list[Order]) -> None:
    state.taking = False
    state.queue = fact.view
    state.looked = True
    for name in state.taking_for:
        state.seats[name].reserved = False
    for attempt in fact.attempts:
        _launch(state, attempt, 1, now, orders)
    for name in state.taking_for:
        state.refresh(state.seats[name], state.seats[name].usable)
    state.taking_for = ()
    if fact.attempts and state.settings.mode is Mode.BROADCAST:
        state.round += 1
        state.round_failed = False


def _began(state: State, fact: Began, now: float, orders: list[Order]) -> None:
    seat = state.seats[fact.seat]
    seat.reserved = False
    if fact.attempt is not None:
        _launch(state, fact.attempt, fact.waiting.tries + 1, now, orders)
    elif fact.error:
        orders.append(Drop(fact.waiting.job, fact.error))
    else:
        state.ready.append(fact.waiting)
    state.refresh(seat, seat.usable)


def _look(state: State, fact: Look, now: float, orders: list[Order]) -> None:
    if state.queue is not QueueView.MORE:
        state.queue = QueueView.UNKNOWN


def _exited(state: State, fact: Exited, now: float, orders: list[Order]) -> None:
    live = state.live(fact.attempt)
    if live is None:
        return
    if live.killing:
        live.status = fact.status
        return
    _settle_exit(state, live, fact.status, now, orders)


def _refused(state: State, fact: Refused, now: float, orders: list[Order]) -> None:
    live = state.live(fact.attempt)
    if live is None:
        return
    seat = state.seats[live.attempt.subnode]
    _settle_never(state, live, fact.reason, now, orders)
    _rest(state, seat, fact.reason, now, orders)


def _reported(state: State, fact: Reported, now: float, orders: list[Order]) -> None:
    live = state.live(fact.report.attempt)
    if live is None or state.seats[live.attempt.subnode].link is not Link.UP:
        return
    match recovery.decide(fact.report):
        case Verdict.START if live.ending or state.stop:
            live.phase = Phase.FENCING
            orders.append(Fence(live.attempt))
        case Verdict.START:
            live.phase, live.started = Phase.TOLD, now
            orders.append(Send(live.attempt))
            _watch_timeout(state, live)
        case Verdict.FOLLOW:
            live.phase = Phase.TOLD
            orders.append(Attach(live.attempt))
            _kill_if_wanted(live, orders)
        case Verdict.LOST:
            _settle(state, live, live.ending or JobState.LOST, recovery.reason(fact.report), now, orders)
        case Verdict.NEVER:
            _settle_never(state, live, "it never started", now, orders)
        case Verdict.UNKNOWN:
            live.phase, live.since = Phase.UNSURE, now
            state.set_timer(now + state.settings.unsure_retry, Timer.REASK, live.attempt.id)
            _watch_for_loss(state, live)


def _killed(state: State, fact: Killed, now: float, orders: list[Order]) -> None:
    live = state.live(fact.attempt)
    if live is None or not live.killing:
        return
    live.killing = False
    live.survivors = fact.survivors
    if live.status is not None:
        _settle_exit(state, live, live.status, now, orders)
    elif fact.survivors:
        seat = state.seats[live.attempt.subnode]
        _settle(state, live, live.ending or JobState.CANCELLED, "not all of it could be ended", now, orders)
        _rest(state, seat, "processes there could not be ended", now, orders)


def _stop_asked(state: State, fact: StopAsked, now: float, orders: list[Order]) -> None:
    if state.stop is None or fact.level.value > state.stop.value:
        state.stop = fact.level
    if state.stop is StopLevel.NOW:
        for live in state.lives():
            _end(live, JobState.CANCELLED, orders)
        state.set_timer(now + LEAVE_AFTER, Timer.LEAVE, "")


def _cancel_asked(state: State, fact: CancelAsked, now: float, orders: list[Order]) -> None:
    def wanted(job_id: int) -> bool:
        return fact.jobs is None or job_id in fact.jobs

    for live in state.lives():
        if wanted(live.attempt.job.id):
            _end(live, JobState.CANCELLED, orders)
    for waiting in [w for w in (*state.waiting.values(), *state.ready) if wanted(w.job.id)]:
        state.waiting.pop(waiting.job.id, None)
        if waiting in state.ready:
            state.ready.remove(waiting)
        orders.append(Drop(waiting.job))
        state.round_failed = True


def _tick(state: State, fact: Tick, now: float, orders: list[Order]) -> None:
    for timer, key in state.due(now):
        _TIMERS[timer](state, key, now, orders)


# --- timers ----------------------------------------------------------------------------------------------------


def _on_timeout(state: State, key: str, now: float, orders: list[Order]) -> None:
    live = state.live(key)
    if live is None or live.ending or live.options.timeout is None:
        return
    if live.started + live.options.timeout <= now:
        _end(live, JobState.TIMED_OUT, orders)


def _on_lost(state: State, key: str, now: float, orders: list[Order]) -> None:
    live = state.live(key)
    if live is None or live.phase is not Phase.UNSURE or live.options.lost_after is None:
        return
    if live.since + live.options.lost_after <= now:
        reason = "its node could not be reached for too long"
        _settle(state, live, live.ending or JobState.LOST, reason, now, orders)


def _on_retry(state: State, key: str, now: float, orders: list[Order]) -> None:
    waiting = state.waiting.pop(int(key), None)
    if waiting is not None:
        state.ready.append(waiting)


def _on_rest(state: State, key: str, now: float, orders: list[Order]) -> None:
    seat = state.seats[key]
    if seat.resting_until and seat.resting_until <= now:
        was_usable = seat.usable
        seat.resting_until = 0.0
        state.refresh(seat, was_usable)


def _on_reask(state: State, key: str, now: float, orders: list[Order]) -> None:
    live = state.live(key)
    if live is not None and live.phase is Phase.UNSURE and state.seats[live.attempt.subnode].link is Link.UP:
        _ask(state, live, orders)


def _on_expel(state: State, key: str, now: float, orders: list[Order]) -> None:
    seat = state.seats[key]
    if seat.link is not Link.UP and not seat.expelled:
        _expel(state, seat, "it was lost, and the others go on without it", orders)


def _on_leave(state: State, key: str, now: float, orders: list[Order]) -> None:
    if all(state.seats[live.attempt.subnode].link is not Link.UP for live in state.lives()):
        state.stop = StopLevel.LEAVE
    else:
        state.set_timer(now + LEAVE_AFTER, Timer.LEAVE, "")


# --- the life of an attempt ------------------------------------------------------------------------------------


def _add_live(state: State, seat: Seat, attempt: Attempt, tries: int, started: float, now: float) -> Live:
    options = attempt.job.task.options.over(state.settings.defaults)
    live = Live(attempt, options, tries, started, Phase.UNSURE, now)
    seat.live[attempt.id] = live
    state.seat_of[attempt.id] = seat.subnode.name
    state.refresh(seat, seat.usable)
    _watch_timeout(state, live)
    return live


def _launch(state: State, attempt: Attempt, tries: int, now: float, orders: list[Order]) -> None:
    """A recorded attempt goes to its node, or waits to be asked for if the connection went away meanwhile."""
    seat = state.seats[attempt.subnode]
    live = _add_live(state, seat, attempt, tries, now, now)
    if seat.link is Link.UP and not state.stop:
        live.phase = Phase.TOLD
        orders.append(Send(attempt))
    elif seat.link is Link.UP:
        _ask(state, live, orders)
    else:
        _watch_for_loss(state, live)


def _ask(state: State, live: Live, orders: list[Order]) -> None:
    live.phase = Phase.ASKED
    orders.append(Ask(live.attempt))


def _end(live: Live, why: JobState, orders: list[Order]) -> None:
    """The attempt is to be ended: at once if its node hears us, else as soon as it does."""
    live.ending = live.ending or why
    if live.phase is Phase.TOLD:
        _kill_if_wanted(live, orders)


def _kill_if_wanted(live: Live, orders: list[Order]) -> None:
    if live.ending and not live.killing:
        live.killing = True
        orders.append(Kill(live.attempt))


def _settle_exit(state: State, live: Live, status: int, now: float, orders: list[Order]) -> None:
    live.status = status
    natural = JobState.FAILED if status else JobState.SUCCEEDED
    _settle(state, live, live.ending or natural, "", now, orders)


def _settle(
    state: State, live: Live, end_state: JobState, reason: str, now: float, orders: list[Order]
) -> None:
    """The attempt's end is known: record it, and see whether the job gets another."""
    seat = _remove_live(state, live)
    duration = max(0.0, now - live.started)
    end = End(end_state, live.status, reason, duration, live.survivors)
    _count(state, seat, end, now, orders)
    retry_on = RETRYABLE if live.options.retry_on is None else live.options.retry_on
    if end_state in retry_on and live.tries <= (live.options.retries or 0):
        _requeue(state, live, end, live.options.retry_delay or 0.0, live.tries, now, orders)
    else:
        orders.append(Record(live.attempt, end, end_state))
        state.round_failed |= end_state is not JobState.SUCCEEDED


def _settle_never(state: State, live: Live, reason: str, now: float, orders: list[Order]) -> None:
    """The attempt is proved never to have started: its job goes back to wait, unless it is not wanted any more."""
    _remove_live(state, live)
    end = End(JobState.CANCELLED, None, reason)
    if live.ending:
        orders.append(Record(live.attempt, End(live.ending, None, reason), live.ending))
        state.round_failed = True
    else:
        _requeue(state, live, end, 0.0, live.tries - 1, now, orders)


def _requeue(
    state: State, live: Live, end: End, delay: float, tries: int, now: float, orders: list[Order]
) -> None:
    attempt = live.attempt
    orders.append(Record(attempt, end, JobState.QUEUED, delay))
    host = state.seats[attempt.subnode].subnode.hostname
    state.waiting[attempt.job.id] = Waiting(attempt.job, attempt.number + 1, tries, host, delay)
    state.set_timer(now + delay, Timer.RETRY, str(attempt.job.id))


def _remove_live(state: State, live: Live) -> Seat:
    seat = state.seats[live.attempt.subnode]
    del seat.live[live.attempt.id]
    del state.seat_of[live.attempt.id]
    state.looked = False
    state.refresh(seat, seat.usable)
    return seat


def _watch_timeout(state: State, live: Live) -> None:
    if live.options.timeout is not None:
        state.set_timer(live.started + live.options.timeout, Timer.TIMEOUT, live.attempt.id)


def _watch_for_loss(state: State, live: Live) -> None:
    if live.options.lost_after is not None:
        state.set_timer(live.since + live.options.lost_after, Timer.LOST, live.attempt.id)


# --- seats -----------------------------------------------------------------------------------------------------


def _count(state: State, seat: Seat, end: End, now: float, orders: list[Order]) -> None:
    """A seat where everything fails at once while others succeed would swallow the queue: set it aside."""
    settings = state.settings
    if end.state is JobState.SUCCEEDED:
        seat.good += 1
        state.good += 1
    if end.state is not JobState.FAILED or (end.duration or 0.0) >= settings.quick_failure:
        seat.streak = 0
        return
    good_elsewhere = state.good - seat.good
    if not seat.streak:
        seat.streak_good = good_elsewhere
    seat.streak += 1
    enough = settings.set_aside_after and seat.streak >= settings.set_aside_after
    if enough and good_elsewhere > seat.streak_good and settings.mode is Mode.QUEUE:
        _rest(state, seat, f"{seat.streak} jobs in a row failed there at once", now, orders)


def _rest(state: State, seat: Seat, reason: str, now: float, orders: list[Order]) -> None:
    was_usable = seat.usable
    seconds = min(state.settings.set_aside_for * 2**seat.rests, LONGEST_REST)
    seat.rests += 1
    seat.streak = 0
    seat.resting_until = now + seconds
    state.set_timer(seat.resting_until, Timer.REST, seat.subnode.name)
    state.refresh(seat, was_usable)
    orders.append(SetAside(seat.subnode.name, reason, seconds))


def _expel(state: State, seat: Seat, reason: str, orders: list[Order]) -> None:
    was_usable = seat.usable
    seat.expelled = True
    state.round_failed |= state.started
    state.refresh(seat, was_usable)
    for waiting in [w for w in (*state.waiting.values(), *state.ready) if w.job.subnode == seat.subnode.name]:
        state.waiting.pop(waiting.job.id, None)
        if waiting in state.ready:
            state.ready.remove(waiting)
        orders.append(Drop(waiting.job, "its node left the broadcast"))
    orders.append(Expel(seat.subnode.name, reason))


# --- giving out work -------------------------------------------------------------------------------------------


def _may_start(state: State) -> bool:
    if state.stop or state.taking:
        return False
    return not (state.settings.require_all and (state.undecided or _missing(state)))


def _missing(state: State) -> bool:
    """Whether a node that --require-all insists on was not there at the start."""
    if state.started:
        return False
    return any(s.link is not Link.UP for s in state.seats.values() if not s.collects_only)


def _assign(state: State, orders: list[Order]) -> None:
    """Queue mode: waiting jobs first, then the queue, each to the seat that has been free the longest."""
    if not _may_start(state):
        return
    if state.ready and state.free:
        _begin_ready(state, orders)
    if state.free and state.queue in (QueueView.UNKNOWN, QueueView.MORE):
        _take(state, tuple(state.free)[:TAKE_AT_ONCE], None, orders)


def _begin_ready(state: State, orders: list[Order]) -> None:
    for _ in range(min(len(state.ready), TAKE_AT_ONCE)):
        waiting = state.ready.popleft()
        name = _seat_for(state, waiting)
        if name is None:
            state.ready.append(waiting)
        else:
            _begin(state, waiting, name, orders)


def _seat_for(state: State, waiting: Waiting) -> str | None:
    """A retry goes to another host than the last as long as there is one that may become free."""
    if not state.free:
        return None
    others = len(state.hosts) - (1 if waiting.avoid in state.hosts else 0)
    if waiting.avoid is None or not others:
        return next(iter(state.free))
    return next((n for n in state.free if state.seats[n].subnode.hostname != waiting.avoid), None)


def _begin(state: State, waiting: Waiting, name: str, orders: list[Order]) -> None:
    seat = state.seats[name]
    seat.reserved = True
    state.free.pop(name, None)
    state.started = True
    orders.append(Begin(waiting, name))


def _take(state: State, seats: tuple[str, ...], round_: int | None, orders: list[Order]) -> None:
    state.taking = True
    state.taking_for = seats
    for name in seats:
        state.seats[name].reserved = True
        state.free.pop(name, None)
    state.started = state.started or bool(seats)
    orders.append(Take(seats, round_))


def _assign_round(state: State, orders: list[Order]) -> None:
    """Broadcast: the next command for all seats once nobody has work of the round before."""
    if not _may_start(state):
        return
    _begin_pinned(state, orders)
    if state.undecided or _holding(state):
        return
    if state.round_failed and state.settings.error_aborts:
        return
    members = [s for s in state.seats.values() if not s.expelled and not s.collects_only]
    for seat in members:
        if seat.link is Link.DEAD or (seat.link is Link.DOWN and not state.started and state.ever_up):
            _expel(state, seat, "it was not there when the first command started", orders)
    members = [s for s in members if not s.expelled]
    ready = members and all(s.link is Link.UP and not s.live and not s.reserved for s in members)
    if ready and state.queue in (QueueView.UNKNOWN, QueueView.MORE):
        _take(state, tuple(s.subnode.name for s in members), state.round + 1, orders)


def _begin_pinned(state: State, orders: list[Order]) -> None:
    """A broadcast's retry stays on its node: that is where the command is needed."""
    for _ in range(len(state.ready)):
        waiting = state.ready.popleft()
        name = waiting.job.subnode
        if name in state.free:
            _begin(state, waiting, name, orders)
        else:
            state.ready.append(waiting)


def _holding(state: State) -> bool:
    """Whether there is work that the next round, or the end of the run, has to wait for."""
    if state.waiting or state.ready or state.taking:
        return True
    for attempt_id, name in state.seat_of.items():
        seat = state.seats[name]
        away = seat.link is Link.DOWN or seat.link is Link.DEAD
        if not (away and (seat.expelled or seat.collects_only or seat.link is Link.DEAD)):
            return attempt_id in seat.live
    return any(s.reserved for s in state.seats.values()) if state.settings.mode is Mode.BROADCAST else False


def _finish_if_over(state: State, orders: list[Order]) -> None:
    outcome = _outcome(state, orders)
    if outcome is not None:
        state.outcome = outcome
        orders.append(Finish(outcome))


def _outcome(state: State, orders: list[Order]) -> Outcome | None:
    settings = state.settings
    if state.stop is StopLevel.LEAVE:
        return Outcome.LEFT
    if not state.undecided and not state.ever_up:
        return Outcome.NO_NODES
    if settings.require_all and not state.undecided and not state.started and _missing(state):
        return Outcome.NO_NODES
    if state.stop:
        return None if state.seat_of or state.taking else Outcome.STOPPED
    if state.taking or state.undecided or any(isinstance(order, Begin) for order in orders):
        return None
    if _holding(state):
        return None
    if settings.mode is Mode.BROADCAST and settings.error_aborts and state.round_failed:
        return Outcome.ABORTED
    if all(s.expelled or s.collects_only or s.link is Link.DEAD for s in state.seats.values()):
        return Outcome.NO_NODES
    if settings.daemon:
        return None
    if state.queue is QueueView.EMPTY and state.looked:
        return Outcome.DONE
    if state.queue in (QueueView.EMPTY, QueueView.UNKNOWN):
        _take(state, (), None, orders)
    return None


_HANDLERS: dict[type, Callable[[State, Any, float, list[Order]], None]] = {
    Resumed: _resumed,
    Waiting: _waiting,
    Opened: _opened,
    Closed: _closed,
    Took: _took,
    Began: _began,
    Look: _look,
    Exited: _exited,
    Refused: _refused,
    Reported: _reported,
    Killed: _killed,
    StopAsked: _stop_asked,
    CancelAsked: _cancel_asked,
    Tick: _tick,
}

_TIMERS: dict[Timer, Callable[[State, str, float, list[Order]], None]] = {
    Timer.TIMEOUT: _on_timeout,
    Timer.LOST: _on_lost,
    Timer.RETRY: _on_retry,
    Timer.REST: _on_rest,
    Timer.REASK: _on_reask,
    Timer.EXPEL: _on_expel,
    Timer.LEAVE: _on_leave,
}
