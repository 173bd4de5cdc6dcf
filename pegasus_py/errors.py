"""Every error that Pegasus raises for its user: what happened, where, and what to do.

A job's failure is data, never an exception. An exception means that Pegasus itself could not do something.
The message of each is one line that can be printed as it is.
"""

from __future__ import annotations

from enum import IntEnum

from msgspec import Struct


class ExitCode(IntEnum):
    """What `pegasus` returns to the shell. Documented in docs/exit-codes.md."""

    OK = 0
    """Every job succeeded."""
    JOBS_FAILED = 1
    """Pegasus did its work, and at least one job failed, timed out, was cancelled or is lost."""
    BAD_INPUT = 2
    """The command line, a hosts file or a queue file is wrong; it says where."""
    NO_NODES = 3
    """No node could be reached (or one could not, with --require-all). The queue is untouched."""
    CONFLICT = 4
    """Another controller holds the queue, or there is none to talk to."""
    STORAGE = 5
    """A file on this machine could not be read or written: full disk, read-only directory, permissions."""
    STOPPED = 6
    """Stopped on request while the queue still had entries, and nothing had failed."""
    INTERNAL = 70
    """A bug in Pegasus."""


class PegasusError(Exception):
    """The root of all. `str(error)` is one line: what, where, what to do."""

    exit_code: ExitCode = ExitCode.INTERNAL


class Place(Struct, frozen=True):
    """Where in a file: `line` and `column` count from 1; 0 means that it is not known."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return ":".join([self.file, *(str(n) for n in (self.line, self.column) if n)])


class BadInput(PegasusError):
    """A file of the user's cannot be understood. `place` says where; the message starts with it."""

    exit_code = ExitCode.BAD_INPUT

    def __init__(self, place: Place, what: str) -> None:
        super().__init__(f"{place}: {what}")
        self.place = place
        self.what = what


class UsageError(PegasusError):
    """The command line asks for something that cannot be."""

    exit_code = ExitCode.BAD_INPUT


class StorageError(PegasusError):
    """A file on the controller could not be read or written."""

    exit_code = ExitCode.STORAGE

    def __init__(self, path: object, what: str) -> None:
        super().__init__(f"{path}: {what}")
        self.path = str(path)


class StorageBroken(StorageError):
    """What is on the disk is not what it should be, and only a new run can take it up from there."""


class QueueHeld(PegasusError):
    """Someone else holds what we need: a second controller, or a paused one that was overtaken."""

    exit_code = ExitCode.CONFLICT


class NoController(PegasusError):
    """There is no running controller to talk to."""

    exit_code = ExitCode.CONFLICT


class NodeError(PegasusError):
    """A node could not be reached or did not behave. `transient` says whether trying again may help.

    `hopeless`: not even if the same was good a moment ago.
    """

    exit_code = ExitCode.NO_NODES

    def __init__(self, host: str, what: str, *, transient: bool = True, hopeless: bool = False) -> None:
        super().__init__(f"{host}: {what}")
        self.host = host
        self.what = what
        self.transient = transient
        self.hopeless = hopeless

    def of(self, host: str, what: str = "") -> NodeError:
        """The same under another name of the host, or in other words."""
        return NodeError(host, what or self.what, transient=self.transient, hopeless=self.hopeless)
