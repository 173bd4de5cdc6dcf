"""What happened, for those who watch: console, log files, summary, hooks. None of them can stop the scheduler."""

from __future__ import annotations

from msgspec import Struct

from pegasus_py.core.model import Attempt, End, Job, SubNode


class NodeUp(Struct, frozen=True, gc=False):
    """A sub-node's connection is open (`again`: after it was lost)."""

    subnode: SubNode
    again: bool = False


class NodeDown(Struct, frozen=True, gc=False):
    """A sub-node could not be reached, or its connection was lost. `retry_in` is in seconds, None: no more tries."""

    subnode: SubNode
    reason: str
    retry_in: float | None
    was_up: bool = False


class NodeSetAside(Struct, frozen=True, gc=False):
    """A sub-node gets no more jobs, for some time or in this run; `reason` says why and which."""

    subnode: SubNode
    reason: str


class Started(Struct, frozen=True, gc=False):
    """An attempt was sent to its sub-node (`recovered`: an earlier run of a controller had done so)."""

    attempt: Attempt
    recovered: bool = False


class Output(Struct, frozen=True, gc=False):
    """The next bytes of an attempt's output, stdout and stderr in the order in which they were written.

    In the pieces in which they came, at least one: to make them one is a copy of what may be megabytes.
    """

    attempt: Attempt
    pieces: tuple[bytes, ...]


class Ended(Struct, frozen=True, gc=False):
    """An attempt has ended and the ledger has it. `log` is the path of its output, `retry_in` seconds to the next."""

    attempt: Attempt
    end: End
    log: str
    retry_in: float | None = None


class Dropped(Struct, frozen=True, gc=False):
    """A job that had failed is not tried again: cancelled while it waited, or, if there is a `reason`, given up."""

    job: Job
    attempts: int
    reason: str = ""


class QueueBad(Struct, frozen=True, gc=False):
    """The queue file cannot be understood; `error` is a line with file, line, column. Said once per fault.

    `storage`: it is not its text that is wrong, the file cannot be read or written.
    """

    error: str
    storage: bool = False


class QueueMended(Struct, frozen=True, gc=False):
    """The queue file can be understood again."""


class Stopping(Struct, frozen=True, gc=False):
    """A stop was asked for: nothing new starts. `running` commands are finished, or ended when `now`."""

    running: int
    now: bool = False


class Note(Struct, frozen=True, gc=False):
    """Something else that the user should read: one line. `warning` puts it on stderr in yellow."""

    text: str
    warning: bool = False


Event = (
    NodeUp
    | NodeDown
    | NodeSetAside
    | Started
    | Output
    | Ended
    | Dropped
    | QueueBad
    | QueueMended
    | Stopping
    | Note
)
