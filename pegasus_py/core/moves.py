"""What goes into the scheduler (facts) and what comes out of it (orders). All frozen, all plain data.

Whoever drives the scheduler turns the world into facts and orders into the world: `run.engine` for real,
`tests/sim` from a seed. Orders of one step are carried out in the order given; what `Record` and `Begin` and `Take`
write is durable before any later `Send` leaves.
"""

from __future__ import annotations

from enum import Enum, StrEnum

from msgspec import Struct

from pegasus_py.core.model import Attempt, End, Job, JobState, Report


class QueueView(Enum):
    """What was seen of the queue file after a `Take`."""

    UNKNOWN = "unknown"
    MORE = "more"
    EMPTY = "empty"
    BLOCKED = "blocked"
    """It cannot be read now (bad text, held by an editor, full disk): look again when told so."""


class Outcome(StrEnum):
    """Why a run is over."""

    DONE = "done"
    STOPPED = "stopped"
    ABORTED = "aborted"
    """Broadcast with --error-aborts: a command failed."""
    NO_NODES = "no-nodes"
    LEFT = "left"
    """Left at once on request; jobs may go on and are taken up by the next run."""


class StopLevel(Enum):
    """How hard a stop was asked for."""

    FINISH = 1
    """Nothing new starts; what runs may finish."""
    NOW = 2
    """What runs is ended."""
    LEAVE = 3
    """Leave now; what runs goes on and the next run takes it up."""


# --- facts -----------------------------------------------------------------------------------------------------


class Resumed(Struct, frozen=True, gc=False):
    """At the start of a run: an attempt that an earlier run left open, `elapsed` seconds after its start.

    `unwanted`: the user had asked that run to end it.
    """

    attempt: Attempt
    elapsed: float
    tries: int = 1
    unwanted: bool = False


class Waiting(Struct, frozen=True, gc=False):
    """A job that waits for its next attempt: `tries` attempts are behind it, `avoid` is the host of the last.

    A broadcast's job is pinned to its sub-node, for that is where the command is needed.
    """

    job: Job
    number: int
    tries: int
    avoid: str | None = None
    delay: float = 0.0

    @property
    def pinned(self) -> bool:
        return self.job.round is not None


class Opened(Struct, frozen=True, gc=False):
    """A sub-node's session is open."""

    seat: str


class Closed(Struct, frozen=True, gc=False):
    """A sub-node's session was lost or could not be opened. `final`: nobody will try again."""

    seat: str
    final: bool = False


class Took(Struct, frozen=True, gc=False):
    """The answer to `Take`: attempts that are recorded, and what the queue looks like now."""

    attempts: tuple[Attempt, ...]
    view: QueueView


class Began(Struct, frozen=True, gc=False):
    """The answer to `Begin`: the attempt is recorded. None: it could not be, `error` says why."""

    waiting: Waiting
    seat: str
    attempt: Attempt | None
    error: str = ""


class Look(Struct, frozen=True, gc=False):
    """The queue file may have changed, or what blocked it may be over."""


class Over(Struct, frozen=True, gc=False):
    """An attempt's process has ended, its node says; an `Exited` follows when all of its output is here."""

    attempt: str


class Exited(Struct, frozen=True, gc=False):
    """An attempt's process has ended with `status`, and its whole output is in its log."""

    attempt: str
    status: int


class Refused(Struct, frozen=True, gc=False):
    """The node could not start the attempt, and proved that it has not."""

    attempt: str
    reason: str


class Reported(Struct, frozen=True, gc=False):
    """A node's answer to `Ask`, `Fence`, or what became of an attempt that it was waiting for."""

    report: Report


class Killed(Struct, frozen=True, gc=False):
    """The answer to `Kill`: the process tree was ended; `survivors` are the processes that could not be."""

    attempt: str
    survivors: tuple[str, ...] = ()


class StopAsked(Struct, frozen=True, gc=False):
    """The user wants the run to end."""

    level: StopLevel


class CancelAsked(Struct, frozen=True, gc=False):
    """The user wants these jobs (None: all) to be ended."""

    jobs: frozenset[int] | None


class Tick(Struct, frozen=True, gc=False):
    """Time has passed; timers that are due fire."""


Fact = (
    Resumed
    | Waiting
    | Opened
    | Closed
    | Took
    | Began
    | Look
    | Over
    | Exited
    | Refused
    | Reported
    | Killed
    | StopAsked
    | CancelAsked
    | Tick
)


# --- orders ----------------------------------------------------------------------------------------------------


class Take(Struct, frozen=True, gc=False):
    """Pop one task for each seat, record the attempts; no seats: only look. `round`: one task for all seats."""

    seats: tuple[str, ...]
    round: int | None = None


class Begin(Struct, frozen=True, gc=False):
    """Record a further attempt of a waiting job on this seat."""

    waiting: Waiting
    seat: str


class Send(Struct, frozen=True, gc=False):
    """Start this recorded attempt on its sub-node; not later than `within` seconds from now, if that is not None."""

    attempt: Attempt
    within: float | None = None


class Attach(Struct, frozen=True, gc=False):
    """Wait on the node for the end of this attempt, which was started before."""

    attempt: Attempt


class Ask(Struct, frozen=True, gc=False):
    """Ask the node what became of this attempt."""

    attempt: Attempt


class Fence(Struct, frozen=True, gc=False):
    """Make sure on the node that this attempt can never start; the answer is a `Reported`."""

    attempt: Attempt


class Kill(Struct, frozen=True, gc=False):
    """End the attempt's whole process tree on the node; the answer is a `Killed`."""

    attempt: Attempt


class Record(Struct, frozen=True, gc=False):
    """The attempt has ended; the job's state becomes `next`, QUEUED with `delay` seconds until it is due again.

    `keep`: its start marker must stay on the node until a later run has spoken to it, because a request to start it
    may still be on its way there over a connection that was given up, and without the marker it would start.
    """

    attempt: Attempt
    end: End
    next: JobState
    delay: float | None = None
    keep: bool = False


class Drop(Struct, frozen=True, gc=False):
    """A waiting job is cancelled before its next attempt, `reason` in words if it was not the user's wish.

    `attempts` is how many it has had.
    """

    job: Job
    attempts: int
    reason: str = ""


class SetAside(Struct, frozen=True, gc=False):
    """Tell the user that this seat gets no jobs for `seconds`."""

    seat: str
    reason: str
    seconds: float


class Expel(Struct, frozen=True, gc=False):
    """Broadcast: this seat takes no further part in the run."""

    seat: str
    reason: str


class Finish(Struct, frozen=True, gc=False):
    """The run is over."""

    outcome: Outcome


Order = Take | Begin | Send | Attach | Ask | Fence | Kill | Record | Drop | SetAside | Expel | Finish
