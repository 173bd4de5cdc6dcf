"""The scheduler's state: seats, live attempts, waiting jobs, timers. Plain data and the look-ups that it needs.

Nothing here decides; `core.scheduler` does. Everything that is looked at per decision is a set, a dictionary or a
heap, so that a decision costs the same with one sub-node and with ten thousand.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable
from enum import Enum, StrEnum

from msgspec import Struct, field

from pegasus_py.core.model import Attempt, JobOptions, JobState, SubNode
from pegasus_py.core.moves import Outcome, QueueView, StopLevel, Waiting
from pegasus_py.core.pool import FreeSeats, Ready


class Mode(StrEnum):
    """The two ways to run a queue."""

    QUEUE = "queue"
    BROADCAST = "broadcast"


class Settings(Struct, frozen=True):
    """What a run was asked for. `defaults` fill what an entry's options leave open; durations are seconds."""

    mode: Mode = Mode.QUEUE
    daemon: bool = False
    error_aborts: bool = False
    require_all: bool = False
    defaults: JobOptions = JobOptions()
    quick_failure: float = 1.0
    """An attempt that fails within this time failed "at once"."""
    set_aside_after: int = 5
    """So many attempts in a row that failed at once on one sub-node set it aside, while others succeed. 0: never."""
    set_aside_for: float = 60.0
    broadcast_lost_after: float = 60.0
    """How long a broadcast round waits for a node that went away."""
    unsure_retry: float = 5.0
    """How soon a node that could not tell is asked again."""
    begin_retry: float = 1.0
    """How soon a retry that could not be recorded (a full disk, say) is tried again."""


class Link(Enum):
    """What is known of a seat's connection."""

    TRYING = "trying"
    """Not open yet, and no try has failed yet."""
    UP = "up"
    DOWN = "down"
    DEAD = "dead"
    """Down, and nobody tries again."""


# Asked for in each decision. To find a member of an enum takes Python 3.11 0.1 us, all of them a seventh of a decision.
_UP, _DOWN, _DEAD = Link.UP, Link.DOWN, Link.DEAD


class Phase(Enum):
    """Where the conversation about a live attempt stands."""

    TOLD = "told"
    """Started or attached over the present connection; its end will come by itself."""
    UNSURE = "unsure"
    """The connection went away (or an earlier controller did): it must be asked for."""
    ASKED = "asked"
    FENCING = "fencing"
    """Its start is being made impossible, unless it turns out that it has started."""


class Live(Struct, gc=False):
    """An attempt whose end is not recorded."""

    attempt: Attempt
    options: JobOptions
    tries: int
    started: float
    phase: Phase
    since: float
    """When it was last known for certain what it does."""
    sends: int = 0
    """Requests to start it that left in this run and were not answered with a refusal."""
    seen: bool = False
    """Its node has said that it started."""
    ending: JobState | None = None
    """CANCELLED or TIMED_OUT once it is to be ended."""
    killing: bool = False
    """A Kill was ordered and has not been answered."""
    killed: bool = False
    """A Kill was ordered at some time."""
    over: bool = False
    """It had ended by itself before any Kill."""
    ended: float | None = None
    """When its node said that it has ended; its output may come for long after."""
    refusal: str = ""
    """Why its node would not start it."""
    status: int | None = None
    """The exit status, once it is known while a Kill is still out."""
    survivors: tuple[str, ...] = ()

    @property
    def astray(self) -> bool:
        """Whether a request to start it may still be on its way to the node, over a connection that was given up."""
        return self.sends > (1 if self.seen else 0)


class Seat(Struct):
    """A sub-node in this run."""

    subnode: SubNode
    link: Link = Link.TRYING
    down_since: float | None = None
    """When the link went down, or its first try failed; None while it is up or nobody knows."""
    live: dict[str, Live] = field(default_factory=dict)
    ghosts: dict[str, Attempt] = field(default_factory=dict)
    """Attempts that were given up while the node was away, and must be fenced or ended before it gets anything new."""
    reserved: bool = False
    """A Take or Begin for it is out."""
    resting_until: float = 0.0
    rests: int = 0
    streak: int = 0
    """Attempts in a row that failed at once."""
    streak_good: int = 0
    """How many attempts had succeeded elsewhere when the streak began."""
    good: int = 0
    """Attempts that succeeded here."""
    expelled: bool = False
    """Broadcast: out of step, for the rest of the run."""
    collects_only: bool = False
    """Not in the hosts file any more: it only gives back what an earlier run left there."""
    counted: bool = False
    """Whether it is counted in `State.hosts`."""

    @property
    def member(self) -> bool:
        """Whether it takes part in this run as a place to run jobs, be it up or down."""
        return not (self.expelled or self.collects_only)

    @property
    def usable(self) -> bool:
        """Whether it may get jobs now (it may be busy)."""
        return self.link is _UP and not (
            self.expelled or self.collects_only or self.resting_until or self.ghosts
        )

    @property
    def holds(self) -> bool:
        """Whether the end of the run waits for its live attempts: not if its node may never come back."""
        if self.link is _DEAD or not self.live:
            return False
        return self.member or self.link is not _DOWN


class Timer(Enum):
    """What a timer is for; its key is an attempt id, a job id or a seat's name."""

    TIMEOUT = "timeout"
    LOST = "lost"
    RETRY = "retry"
    REST = "rest"
    REASK = "re-ask"
    EXPEL = "expel"
    LEAVE = "leave"


class State(Struct):
    """Everything the scheduler knows. Make it with `new_state`; call `refresh` after a change to a seat."""

    settings: Settings
    seats: dict[str, Seat]
    free: FreeSeats = field(default_factory=FreeSeats)
    """Usable seats with nothing to do."""
    seat_of: dict[str, str] = field(default_factory=dict)
    """Live attempt id to seat."""
    ghost_of: dict[str, str] = field(default_factory=dict)
    """Given-up attempt id to seat."""
    waiting: dict[int, Waiting] = field(default_factory=dict)
    """Jobs that wait for their delay to pass, by job id."""
    ready: Ready = field(default_factory=Ready)
    """Jobs that wait for a seat only."""
    callers: dict[str, None] = field(default_factory=dict)
    """Seats where a pinned job may have become startable, or hopeless."""
    beginning: set[int] = field(default_factory=set)
    """Jobs for which a Begin is out."""
    unwanted: set[int] = field(default_factory=set)
    """Those of `beginning` that were cancelled meanwhile."""
    hosts: Counter[str] = field(default_factory=Counter)
    """Usable seats by host name."""
    holding: set[str] = field(default_factory=set)
    """Seats with live attempts that the end of the run waits for."""
    busy: set[str] = field(default_factory=set)
    """Member seats that are reserved or have live attempts."""
    undecided: set[str] = field(default_factory=set)
    """Seats whose first connect has neither succeeded nor failed."""
    timers: list[tuple[float, int, Timer, str]] = field(default_factory=list)
    timer_count: int = 0
    timer_limit: int = 1000
    """When there are more timers than this, it is time to look for stale ones."""
    queue: QueueView = QueueView.UNKNOWN
    taking: bool = False
    taking_for: tuple[str, ...] = ()
    """The seats of the Take that is out."""
    started: bool = False
    """Work was given out in this run."""
    taken_up: bool = False
    """A broadcast that an earlier run began goes on."""
    ever_up: bool = False
    """Some seat that may get jobs was up at some time."""
    looked: bool = False
    """The queue was looked at since the last attempt ended or the last `Look`."""
    stop: StopLevel | None = None
    outcome: Outcome | None = None
    round: int = 0
    round_failed: bool = False
    good: int = 0
    """Attempts that succeeded, on any seat."""
    last_options: tuple[JobOptions, JobOptions] | None = None
    """Those of the last attempt, as written and in full."""

    def set_timer(self, when: float, timer: Timer, key: str) -> None:
        if len(self.timers) > self.timer_limit:
            self._drop_stale_timers()
        self.timer_count += 1
        heapq.heappush(self.timers, (when, self.timer_count, timer, key))

    def _drop_stale_timers(self) -> None:
        """Timers of attempts that ended would pile up for as long as their timeout is."""
        attempts = (Timer.TIMEOUT, Timer.LOST, Timer.REASK)
        known = self.seat_of.keys() | self.ghost_of.keys()
        self.timers = [t for t in self.timers if t[2] not in attempts or t[3] in known]
        heapq.heapify(self.timers)
        self.timer_limit = 2 * len(self.timers) + 1000

    def due(self, now: float) -> list[tuple[Timer, str]]:
        """Take the timers that are due, in order. What is set from now on waits for the next `Tick`."""
        found = []
        while self.timers and self.timers[0][0] <= now:
            _, _, timer, key = heapq.heappop(self.timers)
            found.append((timer, key))
        return found

    @property
    def next_wake(self) -> float | None:
        """When the next `Tick` is wanted, on the clock of `now`; None: not at all."""
        return self.timers[0][0] if self.timers else None

    def live(self, attempt_id: str) -> Live | None:
        name = self.seat_of.get(attempt_id)
        return self.seats[name].live[attempt_id] if name is not None else None

    def lives(self) -> list[Live]:
        """All live attempts."""
        return [self.seats[seat].live[attempt] for attempt, seat in self.seat_of.items()]

    def refresh(self, seat: Seat) -> None:
        """Put everything right that is derived from `seat`."""
        name, host, usable = seat.subnode.name, seat.subnode.hostname, seat.usable
        taken = seat.reserved or bool(seat.live)
        if usable != seat.counted:
            seat.counted = usable
            self.hosts[host] += 1 if usable else -1
            if not self.hosts[host]:
                del self.hosts[host]
        if usable and not taken:
            self.free.add(name, host)
            if self.ready.first_pinned(name) is not None:
                self.callers[name] = None
        else:
            self.free.discard(name)
        (self.busy.add if taken and seat.member else self.busy.discard)(name)
        (self.holding.add if seat.holds else self.holding.discard)(name)

    # For the ordinary way of a job, which changes less than `refresh` looks at.

    def reserve(self, name: str) -> None:
        """A Take or Begin for this seat, which is free, is on its way."""
        self.seats[name].reserved = self.started = True
        self.free.discard(name)
        self.busy.add(name)

    def occupy(self, seat: Seat) -> None:
        """The seat has got work."""
        name = seat.subnode.name
        self.free.discard(name)
        if seat.member:
            self.busy.add(name)
        if seat.holds:
            self.holding.add(name)

    def vacate(self, seat: Seat) -> None:
        """The seat's work is over."""
        usable = seat.usable
        if seat.live or seat.reserved or usable != seat.counted:
            self.refresh(seat)
            return
        name = seat.subnode.name
        self.busy.discard(name)
        self.holding.discard(name)
        if usable:
            self.free.add(name, seat.subnode.hostname)
            if self.ready.first_pinned(name) is not None:
                self.callers[name] = None

    def full_options(self, options: JobOptions) -> JobOptions:
        """An entry's options with the run's defaults; the jobs of one entry share both."""
        if self.last_options is None or self.last_options[0] is not options:
            self.last_options = (options, options.over(self.settings.defaults))
        return self.last_options[1]

    def make_ready(self, waiting: Waiting) -> None:
        """A job waits for a seat only."""
        self.ready.add(waiting)
        if waiting.pinned:
            self.callers[waiting.job.subnode] = None

    def forget(self, waiting: Waiting) -> None:
        """A job waits no longer."""
        self.waiting.pop(waiting.job.id, None)
        self.ready.pop(waiting.job.id)


def new_state(settings: Settings, subnodes: Iterable[SubNode], collectors: Iterable[SubNode] = ()) -> State:
    """The state of a run that has just begun. `collectors` are sub-nodes that only give back old results."""
    seats = {s.name: Seat(s) for s in subnodes}
    seats.update((s.name, Seat(s, collects_only=True)) for s in collectors)
    return State(settings, seats, undecided={n for n, s in seats.items() if not s.collects_only})


def check(state: State) -> None:
    """The invariants, in code. Raises AssertionError with what is wrong; for tests and simulation."""
    for name, seat in state.seats.items():
        taken = bool(seat.live) or seat.reserved
        assert (name in state.free) == (seat.usable and not taken), f"free list and {seat!r} disagree"
        assert (name in state.busy) == (seat.member and taken), f"busy seats and {seat!r} disagree"
        assert (name in state.holding) == seat.holds, f"holding seats and {seat!r} disagree"
        assert not (seat.reserved and seat.live), f"{name} has work and was promised more"
        assert (seat.down_since is None) == (seat.link in (Link.UP, Link.TRYING))
        for attempt_id, live in seat.live.items():
            assert live.attempt.id == attempt_id and state.seat_of[attempt_id] == name
            assert attempt_id not in seat.ghosts
            assert seat.link is Link.UP or live.phase is Phase.UNSURE, (
                f"{attempt_id} is {live.phase} on a {seat.link}"
            )
            assert not live.killing or live.phase is Phase.TOLD, f"{live!r} is killed blindly"
            assert live.ending is None or live.killing or live.over or live.phase is not Phase.TOLD, (
                f"{live!r} goes on"
            )
        assert all(state.ghost_of[ghost] == name for ghost in seat.ghosts)
    assert len(state.seat_of) == sum(len(seat.live) for seat in state.seats.values())
    assert len(state.ghost_of) == sum(len(seat.ghosts) for seat in state.seats.values())
    assert state.hosts.total() == sum(seat.usable for seat in state.seats.values())
    jobs = [live.attempt.job.id for live in state.lives()]
    jobs += [*state.waiting, *state.beginning, *(w.job.id for w in state.ready)]
    assert len(jobs) == len(set(jobs)), f"a job is in two places: {sorted(jobs)}"
    assert state.unwanted <= state.beginning
