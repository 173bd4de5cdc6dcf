"""What becomes of an attempt: launched, asked for, fenced, ended, settled, and whether its job gets another."""

from __future__ import annotations

from pegasus_py.core.model import RETRYABLE, Attempt, End, JobState
from pegasus_py.core.moves import Ask, Fence, Kill, Order, Record, Send, Waiting
from pegasus_py.core.seats import count
from pegasus_py.core.state import Link, Live, Phase, Seat, State, Timer

# As in `core.state`.
_UP, _TOLD, _UNSURE, _TIMEOUT = Link.UP, Phase.TOLD, Phase.UNSURE, Timer.TIMEOUT
_SUCCEEDED = JobState.SUCCEEDED

# --- the conversation ----------------------------------------------------------------------------------------


def launch(
    state: State, attempt: Attempt, tries: int, now: float, orders: list[Order], *, unwanted: bool = False
) -> None:
    """A recorded attempt goes to its node; or it never will, if the world has changed since it was asked for."""
    seat = state.seats[attempt.subnode]
    live = add_live(state, seat, attempt, tries, now, now)
    if unwanted:
        live.ending = JobState.CANCELLED
        settle_never(state, live, "", now, orders)
    elif state.stop:
        settle_never(state, live, "the run was stopped before it started", now, orders)
    elif seat.link is not _UP:
        settle_never(state, live, "its node went away before it started", now, orders)
    else:
        send(live, orders)


def add_live(state: State, seat: Seat, attempt: Attempt, tries: int, started: float, now: float) -> Live:
    options = state.full_options(attempt.job.task.options)
    live = Live(attempt, options, tries, started, _UNSURE, now)
    seat.live[attempt.id] = live
    state.seat_of[attempt.id] = seat.subnode.name
    state.occupy(seat)
    watch_timeout(state, live)
    return live


def send(live: Live, orders: list[Order]) -> None:
    live.phase = _TOLD
    live.sends += 1
    lost_after = live.options.lost_after
    # Half of it: a start that is given up after `lost_after` could not happen any more long since, whatever the clocks.
    orders.append(Send(live.attempt, None if lost_after is None else lost_after / 2))


def ask(live: Live, orders: list[Order]) -> None:
    live.phase = Phase.ASKED
    orders.append(Ask(live.attempt))


def fence(live: Live, now: float, orders: list[Order]) -> None:
    """Have its start made impossible, or learn that it has started."""
    if live.phase is Phase.TOLD:
        live.since = now
    live.phase, live.killing = Phase.FENCING, False
    orders.append(Fence(live.attempt))


def lose_sight(state: State, live: Live, now: float) -> None:
    """Nobody knows any more what it does; `lost_after` counts from here on."""
    if live.phase is Phase.TOLD:
        live.since = now
    live.phase = Phase.UNSURE
    live.killing, live.status = False, None
    if live.options.lost_after is not None:
        state.set_timer(live.since + live.options.lost_after, Timer.LOST, live.attempt.id)


def end(live: Live, why: JobState, orders: list[Order]) -> None:
    """The attempt is to be ended: at once if its node hears us, else as soon as it does."""
    if live.ending is not JobState.CANCELLED:
        live.ending = why
    if live.phase is Phase.TOLD and not live.killing and not live.over:
        kill(live, orders)


def kill(live: Live, orders: list[Order]) -> None:
    live.killing = live.killed = True
    orders.append(Kill(live.attempt))


# --- its end -------------------------------------------------------------------------------------------------


def settle(state: State, live: Live, natural: JobState, reason: str, now: float, orders: list[Order]) -> None:
    """The attempt's end is known: record it, and see whether the job gets another."""
    how = _how_it_ended(live, natural)
    seat = remove_live(state, live)
    until = now if live.ended is None else live.ended
    ended = End(how, live.status, reason, max(0.0, until - live.started), live.survivors)
    options = live.options
    again = live.tries <= (options.retries or 0) and how in (
        RETRYABLE if options.retry_on is None else options.retry_on
    )
    if again and not live.survivors and _has_place(live, seat):
        _requeue(state, live, ended, options.retry_delay or 0.0, live.tries, now, orders)
    else:
        orders.append(Record(live.attempt, ended, how, None, _keep(live, seat)))
        state.round_failed |= how is not _SUCCEEDED
    count(state, seat, ended, now, orders)


def _how_it_ended(live: Live, natural: JobState) -> JobState:
    """What ended it: itself, or our signals."""
    if live.ending is None or (live.over and natural is JobState.SUCCEEDED):
        return natural
    if live.ending is JobState.TIMED_OUT and not live.killed:
        return natural
    return live.ending


def settle_never(state: State, live: Live, reason: str, now: float, orders: list[Order]) -> None:
    """The attempt is proved never to have started: its job goes back to wait, unless it is not wanted any more."""
    cancelled = live.ending is JobState.CANCELLED
    if live.refusal and live.attempt.job.round is not None and not cancelled:
        # In a broadcast the others would wait for as long as this node refuses.
        settle(state, live, JobState.FAILED, reason, now, orders)
        return
    seat = remove_live(state, live)
    ended = End(JobState.CANCELLED, None, reason)
    if cancelled or not _has_place(live, seat):
        orders.append(Record(live.attempt, ended, JobState.CANCELLED, None, _keep(live, seat)))
        state.round_failed = True
    else:
        _requeue(state, live, ended, 0.0, live.tries - 1, now, orders)


def remove_live(state: State, live: Live) -> Seat:
    seat = state.seats[live.attempt.subnode]
    del seat.live[live.attempt.id]
    del state.seat_of[live.attempt.id]
    state.looked = False
    state.vacate(seat)
    return seat


def _requeue(
    state: State, live: Live, ended: End, delay: float, tries: int, now: float, orders: list[Order]
) -> None:
    attempt = live.attempt
    seat = state.seats[attempt.subnode]
    orders.append(Record(attempt, ended, JobState.QUEUED, delay, _keep(live, seat)))
    host = seat.subnode.hostname
    state.waiting[attempt.job.id] = Waiting(attempt.job, attempt.number + 1, tries, host, delay)
    # By a timer even without a delay: this attempt's end must be recorded before the next one's beginning.
    state.set_timer(now + delay, Timer.RETRY, str(attempt.job.id))


def _has_place(live: Live, seat: Seat) -> bool:
    """Whether the job could run again in this run: a broadcast's must stay on its sub-node."""
    return live.attempt.job.round is None or seat.member


def _keep(live: Live, seat: Seat) -> bool:
    return live.astray or bool(live.survivors) or live.attempt.id in seat.ghosts


# --- its timers ----------------------------------------------------------------------------------------------


def on_timeout(state: State, key: str, now: float, orders: list[Order]) -> None:
    live = state.live(key)
    if live is None or live.ending or live.options.timeout is None:
        return
    if live.started + live.options.timeout <= now:
        end(live, JobState.TIMED_OUT, orders)


def on_lost(state: State, key: str, now: float, orders: list[Order]) -> None:
    live = state.live(key)
    if live is None or live.phase is not Phase.UNSURE or live.options.lost_after is None:
        return
    if live.since + live.options.lost_after <= now:
        _haunt(state, live, orders)
        settle(state, live, JobState.LOST, "its node could not be reached for too long", now, orders)


def _haunt(state: State, live: Live, orders: list[Order]) -> None:
    """It is given up, but may be running or yet start: its seat must see to that before it gets anything new."""
    seat = state.seats[live.attempt.subnode]
    seat.ghosts[live.attempt.id] = live.attempt
    state.ghost_of[live.attempt.id] = seat.subnode.name
    if seat.link is Link.UP:
        orders.append(Fence(live.attempt))


def watch_timeout(state: State, live: Live) -> None:
    if live.options.timeout is not None:
        state.set_timer(live.started + live.options.timeout, _TIMEOUT, live.attempt.id)
