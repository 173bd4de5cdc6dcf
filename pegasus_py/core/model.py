"""The nouns: sub-nodes, entries, jobs, attempts, and how an attempt ended. All frozen, all plain data.

Words are those of docs/architecture.md. Times are seconds; ids are text where they leave this process.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from msgspec import Struct
from msgspec.structs import asdict, force_setattr, replace

from pegasus_py.errors import Place

Params = tuple[tuple[str, str], ...]
"""Parameters in the order written, name and source text; a tuple so that it can be hashed and never changes."""


class JobState(StrEnum):
    """A job's life. The first four are open; the others are ends and never change again (except by `retry`)."""

    QUEUED = "queued"
    """Known to the ledger and waiting for a sub-node (a retry, say); what is in queue.yaml is not a job yet."""
    STARTING = "starting"
    """Recorded as about to start; whether the node has started it is not known yet."""
    RUNNING = "running"
    UNREACHABLE = "unreachable"
    """Started, or about to be, on a node that cannot be reached now; what became of it is asked when it is back."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed-out"
    LOST = "lost"
    """It started, or may have, and its end can never be known: the node rebooted, or its spool is gone."""

    @property
    def is_end(self) -> bool:
        return self not in _OPEN


_OPEN = (JobState.QUEUED, JobState.STARTING, JobState.RUNNING, JobState.UNREACHABLE)
RETRYABLE = (JobState.LOST, JobState.FAILED, JobState.TIMED_OUT)


class JobOptions(Struct, frozen=True, gc=False):
    """What steers a job: the reserved mapping `options:` of an entry. None means: the run's default.

    Durations are seconds. `cancel` is a template like a command, run on the node when the job is to be ended.
    """

    timeout: float | None = None
    retries: int | None = None
    retry_delay: float | None = None
    retry_on: tuple[JobState, ...] | None = None
    lost_after: float | None = None
    cancel: str | None = None
    name: str | None = None

    def over(self, defaults: JobOptions) -> JobOptions:
        """These options, with what they leave open taken from `defaults`."""
        return replace(defaults, **{name: mine for name, mine in asdict(self).items() if mine is not None})


class SubNode(Struct, frozen=True, gc=False):
    """A node with one combination of host parameters; it runs one command at a time.

    `name` is unique in a run and short enough to be a prefix of output lines. `params` has `hostname` first and
    is what commands see. `spool` overrides the directory on the node in which Pegasus keeps what it must.
    """

    name: str
    hostname: str
    params: Params
    spool: str | None = None

    @property
    def is_local(self) -> bool:
        return self.hostname == "localhost"


@dataclass(frozen=True, slots=True)
class Task:
    """One combination of an entry, before it is given to a sub-node: a command template and its parameters."""

    command: str
    params: Params = ()
    options: JobOptions = JobOptions()
    place: Place = field(default=Place("queue.yaml"), compare=False)


class Job(Struct, frozen=True, gc=False):
    """One rendered command with an id, which counts up within one ledger.

    `command` is the rendered text, exactly what `sh` runs. `round` is the number of the broadcast round, or None in
    queue mode, where the job may run on any sub-node; `subnode` is where it is or was last assigned.
    """

    id: int
    task: Task
    command: str
    subnode: str
    cancel: str | None = None
    round: int | None = None

    @property
    def label(self) -> str:
        """How people call it: its name, or the first line of its command."""
        if self.task.options.name:
            return self.task.options.name
        first, _, rest = self.command.strip().partition("\n")
        return first + (" ..." if rest else "")


class Attempt(Struct, frozen=True, gc=False):
    """One start of a job on a sub-node. `id` is unique in the world: `JOB.NUMBER.QUEUE`, QUEUE being 16 hex digits.

    `hostname` and `spool` are the sub-node's, kept so that the attempt can be found again after hosts.yaml changed.
    """

    job: Job
    number: int
    subnode: str
    queue_id: str
    hostname: str = ""
    spool: str | None = None
    id: str = ""

    def __post_init__(self) -> None:
        # Asked for some fifteen times for each job.
        force_setattr(self, "id", f"{self.job.id}.{self.number}.{self.queue_id}")


class End(Struct, frozen=True, gc=False):
    """How an attempt ended: its state (an end), the exit status if there is one, and why in words if there is not.

    `status` is what `wait` gave on the node: 0 to 255, above 128 also for "killed by signal status - 128".
    `duration` is in seconds as the controller saw it, or None when nobody watched.
    """

    state: JobState
    status: int | None = None
    reason: str = ""
    duration: float | None = None
    survivors: tuple[str, ...] = ()


class Spot(StrEnum):
    """What a node says of an attempt when it is asked."""

    ABSENT = "absent"
    """No start marker: it never started here."""
    FENCED = "fenced"
    """The marker was taken so that it can never start."""
    STARTING = "starting"
    """The marker is there and the runner that made it is still about to start it."""
    RUNNING = "running"
    EXITED = "exited"
    VANISHED = "vanished"
    """It started, or was about to, and no process of it is left; no exit status either."""
    REBOOTED = "rebooted"
    """It started before the node's last boot and left no exit status."""
    ELSEWHERE = "elsewhere"
    """The marker was made by another machine that shares the spool: this one cannot tell."""


class Report(Struct, frozen=True, gc=False):
    """A node's answer for one attempt. `size` is the output so far in bytes; `status` is set iff EXITED."""

    attempt: str
    spot: Spot
    status: int | None = None
    size: int = 0
    machine: str = ""


def params_of(mapping: Mapping[str, str] | Iterable[tuple[str, str]]) -> Params:
    """Freeze a mapping of parameters, keeping its order."""
    return tuple(mapping.items() if isinstance(mapping, Mapping) else mapping)
