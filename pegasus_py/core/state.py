"""The scheduler's state: seats, live attempts, waiting jobs, timers. Plain data and the look-ups that it needs.

Nothing here decides; `core.scheduler` does. Everything that is looked at per decision is a set, a dictionary, a
deque or a heap, so that a decision costs the same with one sub-node and with ten thousand.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum, StrEnum

from pegasus_py.core.model import Attempt, JobOptions, JobState, SubNode
from pegasus_py.core.moves import Outcome, QueueView, StopLevel, Waiting


class Mode(StrEnum):
    """The two ways to run a queue."""

    QUEUE = "queue"
    BROADCAST = "broadcast"


@dataclass(frozen=True, slots=True)
class Settings:
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


class Link(Enum):
    """What is known of a seat's connection."""

    TRYING = "trying"
    """Not open yet, and no try has failed yet."""
    UP = "up"
    DOWN = "down"
    DEAD = "dead"
    """Down, and nobody tries again."""


class Phase(Enum):
    """Where the conversation about a live attempt stands."""

    TOLD = "told"
    """Started or attached over the present connection; its end will come by itself."""
    UNSURE = "unsure"
    """The connection went away (or an earlier controller did): it must be asked for."""
    ASKED = "asked"
    FENCING = "fencing"
    """Its start is being made impossible, because it never started and is not wanted any more."""


@dataclass(slots=True)
class Live:
    """An attempt whose end is not recorded."""

    attempt: Attempt
    options: JobOptions
    tries: int
    started: float
    phase: Phase
    since: float
    """When it became UNSURE."""
    ending: JobState | None = None
    """CANCELLED or TIMED_OUT once it is to be ended."""
    killing: bool = False
    """A Kill was ordered and has not been answered."""
    status: int | None = None
    """The exit status, once it is known while a Kill is still out."""
    survivors: tuple[str, ...] = ()


@dataclass(slots=True)
class Seat:
    """A sub-node in this run."""

    subnode: SubNode
    link: Link = Link.TRYING
    live: dict[str, Live] = field(default_factory=dict)
    reserved: bool = False
    """A Take or Begin for it is out."""
    resting_until: float = 0.0
    rests: int = 0
    streak: int = 0
    """Attempts in a row that failed at once."""
    streak_good: int = 0
    """What `State.good` was when the streak began."""
    good: int = 0
    """Attempts that succeeded here."""
    expelled: bool = False
    """Broadcast: out of step, for the rest of the run."""
    collects_only: bool = False
    """Not in the hosts file any more: it only gives back what an earlier run left there."""

    @property
    def usable(self) -> bool:
        """Whether it may get jobs at all in this run (it may be busy)."""
        return (
            self.link is Link.UP and not self.expelled and not self.collects_only and not self.resting_until
        )


class Timer(Enum):
    """What a timer is for; its key is an attempt id, a job id or a seat's name."""

    TIMEOUT = "timeout"
    LOST = "lost"
    RETRY = "retry"
    REST = "rest"
    REASK = "re-ask"
    EXPEL = "expel"
    LEAVE = "leave"


@dataclass(slots=True)
class State:
    """Everything the scheduler knows. Make it with `new_state`."""

    settings: Settings
    seats: dict[str, Seat]
    free: dict[str, None] = field(default_factory=dict)
    """Usable seats with nothing to do, the one that waited longest first."""
    seat_of: dict[str, str] = field(default_factory=dict)
    """Live attempt id to seat."""
    waiting: dict[int, Waiting] = field(default_factory=dict)
    """Jobs that wait for their delay to pass, by job id."""
    ready: deque[Waiting] = field(default_factory=deque)
    """Jobs that wait for a seat only."""
    hosts: Counter[str] = field(default_factory=Counter)
    """Usable seats by host name."""
    undecided: set[str] = field(default_factory=set)
    """Seats whose first connect has neither succeeded nor failed."""
    timers: list[tuple[float, int, Timer, str]] = field(default_factory=list)
    timer_count: int = 0
    queue: QueueView = QueueView.UNKNOWN
    taking: bool = False
    taking_for: tuple[str, ...] = ()
    """The seats of the Take that is out."""
    started: bool = False
    """Work was given out in this run."""
    ever_up: bool = False
    """Some seat was up at some time."""
    looked: bool = False
    """The queue was looked at since the last attempt ended or the last `Look`."""
    stop: StopLevel | None = None
    outcome: Outcome | None = None
    round: int = 0
    round_failed: bool = False
    good: int = 0
    """Attempts that succeeded, on any seat."""

    def set_timer(self, when: float, timer: Timer, key: str) -> None:
        self.timer_count += 1
        heapq.heappush(self.timers, (when, self.timer_count, timer, key))

    def due(self, now: float) -> Iterator[tuple[Timer, str]]:
        """Take the timers that are due, in order."""
        while self.timers and self.timers[0][0] <= now:
            _, _, timer, key = heapq.heappop(self.timers)
            yield timer, key

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

    def refresh(self, seat: Seat, was_usable: bool) -> None:
        """Put `free` and `hosts` right after a change to `seat`."""
        host = seat.subnode.hostname
        if seat.usable != was_usable:
            self.hosts[host] += 1 if seat.usable else -1
            if not self.hosts[host]:
                del self.hosts[host]
        if seat.usable and not seat.live and not seat.reserved:
            self.free.setdefault(seat.subnode.name)
        else:
            self.free.pop(seat.subnode.name, None)


def new_state(settings: Settings, subnodes: Iterable[SubNode], collectors: Iterable[SubNode] = ()) -> State:
    """The state of a run that has just begun. `collectors` are sub-nodes that only give back old results."""
    seats = {s.name: Seat(s) for s in subnodes}
    seats.update((s.name, Seat(s, collects_only=True)) for s in collectors)
    return State(settings, seats, undecided={n for n, s in seats.items() if not s.collects_only})


def check(state: State) -> None:
    """The invariants, in code. Raises AssertionError with what is wrong; for tests and simulation."""
    for name, seat in state.seats.items():
        idle = seat.usable and not seat.live and not seat.reserved
        assert (name in state.free) == idle, f"free list and {seat!r} disagree"
        assert len(seat.live) <= 1 or all(
            live.phase is not Phase.TOLD for live in list(seat.live.values())[1:]
        ), f"two attempts told at once on {name}"
        for attempt_id, live in seat.live.items():
            assert live.attempt.id == attempt_id and state.seat_of[attempt_id] == name
            assert seat.link is Link.UP or live.phase is Phase.UNSURE, (
                f"{attempt_id} is {live.phase} on a {seat.link}"
            )
    assert len(state.seat_of) == sum(len(seat.live) for seat in state.seats.values())
    assert sum(state.hosts.values()) == sum(seat.usable for seat in state.seats.values())
    jobs = [live.attempt.job.id for live in state.lives()]
    jobs += list(state.waiting) + [w.job.id for w in state.ready]
    assert len(jobs) == len(set(jobs)), f"a job is in two places: {sorted(jobs)}"
