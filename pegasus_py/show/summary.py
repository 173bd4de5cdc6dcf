"""What a run came to: counts, the jobs that did not succeed, what was not started, which nodes were missing."""

from __future__ import annotations

from collections import Counter
from pathlib import PurePath
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict

from pegasus_py.core.events import (
    Dropped,
    Ended,
    Event,
    NodeDown,
    NodeSetAside,
    NodeUp,
    QueueBad,
    QueueMended,
)
from pegasus_py.core.model import JobState
from pegasus_py.show import words
from pegasus_py.show.table import table
from pegasus_py.show.terminal import RESET, plain

MOST = 10_000
"""Failures that are kept in detail, so that a million of them fit in memory; the others are counted."""

_ENDS = (JobState.SUCCEEDED, JobState.FAILED, JobState.TIMED_OUT, JobState.CANCELLED, JobState.LOST)
_RED, _GREEN, _YELLOW = 31, 32, 33


class Failure(Struct, frozen=True):
    """A job that ended without success. `status` and `signal` as in `End`; times are seconds."""

    job: int
    name: str | None
    state: JobState
    subnode: str
    command: str
    attempt: int
    status: int | None
    signal: str | None
    reason: str
    duration: float | None
    log: str

    @property
    def how(self) -> str:
        """How it ended in a word or two: `exit 3`, `SIGKILL`, `timed-out`, `lost`."""
        if self.state is JobState.FAILED and self.status is not None:
            return f"exit {self.status}" + (f" {self.signal}" if self.signal else "")
        return self.state.value


class Summary:
    """A subscriber that counts. Memory is bounded by the sub-nodes and `most`, whatever the number of jobs.

    `not_started` is set by the run when it ends: the entries left in the queue, None while that is not known (a
    queue that cannot be read). `open`, set then too, counts attempts that had not ended, which go on on their nodes.
    `waiting` jobs have failed and are to be tried again.
    """

    def __init__(self, most: int = MOST) -> None:
        self.counts: Counter[JobState] = Counter()
        self.nodes: dict[str, Counter[JobState]] = {}
        self.failures: list[Failure] = []
        self.not_started: int | None = None
        self.unreachable: dict[str, str] = {}
        self.set_aside: dict[str, str] = {}
        self.queue_error = ""
        self.storage_failed = False
        """What `queue_error` says is the disk's fault, not the text's."""
        self.retried = 0
        self._to_retry: set[int] = set()
        self.open = 0
        self.waiting = 0
        self._most = most

    @property
    def failed(self) -> int:
        """The number of jobs that ended without success."""
        return self.counts.total() - self.counts[JobState.SUCCEEDED]

    def handle(self, event: Event) -> None:
        """Take an event."""
        match event:
            case Ended():
                self._take_end(event)
            case Dropped():
                self._take_dropped(event)
            case NodeUp():
                self.unreachable.pop(event.subnode.name, None)
                self.nodes.setdefault(event.subnode.name, Counter())
            case NodeDown():
                self.unreachable[event.subnode.name] = event.reason
            case NodeSetAside():
                self.set_aside[event.subnode.name] = event.reason
            case QueueBad():
                self.queue_error, self.storage_failed = event.error, event.storage
            case QueueMended():
                self.queue_error = ""

    def wait_for(self, jobs: set[int]) -> None:
        """The run is over, and these are to be tried again in another one: they were not in this one."""
        self.waiting = len(jobs)
        self.retried -= len(self._to_retry & jobs)

    def _take_dropped(self, event: Dropped) -> None:
        job = event.job
        if job.id in self._to_retry:
            self._to_retry.discard(job.id)
            self.retried -= 1
        self._count(job.subnode, JobState.CANCELLED)
        if len(self.failures) < self._most:
            reason = event.reason or "cancelled before its next attempt"
            self.failures.append(
                Failure(
                    job=job.id,
                    name=job.task.options.name,
                    state=JobState.CANCELLED,
                    subnode=job.subnode,
                    command=words.first_line(job.command),
                    attempt=event.attempts,
                    status=None,
                    signal=None,
                    reason=reason[: words.LONGEST_COMMAND],
                    duration=None,
                    log="",
                )
            )

    def _count(self, subnode: str, state: JobState) -> None:
        self.counts[state] += 1
        self.nodes.setdefault(subnode, Counter())[state] += 1

    def _take_end(self, event: Ended) -> None:
        attempt, end = event.attempt, event.end
        if event.retry_in is not None:
            self.retried += 1
            self._to_retry.add(attempt.job.id)
            return
        self._to_retry.discard(attempt.job.id)
        self._count(attempt.subnode, end.state)
        if end.state is JobState.SUCCEEDED or len(self.failures) >= self._most:
            return
        signal = words.signal_name(end.status) if end.status is not None else None
        self.failures.append(
            Failure(
                job=attempt.job.id,
                name=attempt.job.task.options.name,
                state=end.state,
                subnode=attempt.subnode,
                command=words.first_line(attempt.job.command),
                attempt=attempt.number,
                status=end.status,
                signal=signal,
                reason=end.reason[: words.LONGEST_COMMAND],
                duration=end.duration,
                log=event.log,
            )
        )

    def render(self, width: int | None, colour: bool) -> str:
        """The summary as text that ends with a newline: tables within `width` columns, nothing cut when it is None."""
        lines = self._failure_lines(width, colour)
        for name, reason in self.unreachable.items():
            if name in self.set_aside:
                continue
            what = "connection lost" if name in self.nodes else "not reached"
            lines.append(_in(_RED, f"{what}: {plain(name)}: {plain(reason)}", colour))
        for name, reason in self.set_aside.items():
            lines.append(_in(_RED, f"set aside: {plain(name)}: {plain(reason)}", colour))
        if self.queue_error:
            lines.append(_in(_RED, f"queue not read to its end: {plain(self.queue_error)}", colour))
        return "\n".join([*lines, self._count_line(colour)]) + "\n"

    def render_nodes(self, width: int | None, colour: bool) -> str:
        """A table of how many jobs ended how on which sub-node."""
        rows = [[name, *(str(count[s] or "") for s in _ENDS)] for name, count in self.nodes.items()]
        headers = ["sub-node", *(state.value for state in _ENDS)]
        return "\n".join(table(headers, rows, width=width, colour=colour, flexible=(0,))) + "\n"

    def as_dict(self) -> dict[str, Any]:
        """All of it for `--json`: only str, int, float, bool, None, list and dict."""
        return {
            "counts": {state.value: self.counts[state] for state in _ENDS},
            "not_started": self.not_started,
            "open": self.open,
            "waiting": self.waiting,
            "retried": self.retried,
            "failures": [self._failure_dict(failure) for failure in self.failures],
            "failures_not_listed": self.failed - len(self.failures),
            "nodes": {
                name: {state.value: count[state] for state in _ENDS} for name, count in self.nodes.items()
            },
            "unreachable": dict(self.unreachable),
            "set_aside": dict(self.set_aside),
            "queue_error": self.queue_error or None,
        }

    @staticmethod
    def _failure_dict(failure: Failure) -> dict[str, Any]:
        return {**asdict(failure), "state": failure.state.value}

    def _failure_lines(self, width: int | None, colour: bool) -> list[str]:
        if not self.failures:
            return []
        folder = _common_folder([failure.log for failure in self.failures]) if width is not None else ""
        rows = [
            [
                str(f.job),
                f.how,
                f.subnode,
                f"{f.name}: {f.command}" if f.name else f.command,
                f.reason,
                PurePath(f.log).name if folder else words.near(f.log),
            ]
            for f in self.failures
        ]
        headers = ["job", "ended", "sub-node", "command", "reason", "log"]
        lines = table(headers, rows, width=width, colour=colour, flexible=(2, 3, 4))
        if more := self.failed - len(self.failures):
            lines.append(f"... and {more:,} more")
        if folder:
            lines.append(f"logs are in {plain(words.near(folder))}/")
        return lines

    def _count_line(self, colour: bool) -> str:
        parts = []
        for state in _ENDS:
            count = self.counts[state]
            if count or state in (JobState.SUCCEEDED, JobState.FAILED):
                tint = _GREEN if state is JobState.SUCCEEDED else _RED
                parts.append(_in(tint, f"{count:,} {state.value}", colour and count > 0))
        if self.open:
            parts.append(_in(_YELLOW, f"{self.open:,} still running", colour))
        if self.waiting:
            parts.append(_in(_YELLOW, f"{self.waiting:,} to be tried again", colour))
        if self.not_started:
            parts.append(_in(_YELLOW, f"{self.not_started:,} not started", colour))
        if self.retried:
            parts.append(f"{self.retried:,} retried")
        return ", ".join(parts)


def _common_folder(paths: list[str]) -> str:
    folders = {str(PurePath(path).parent) for path in paths if path}
    return folders.pop() if len(folders) == 1 else ""


def _in(colour: int, text: str, wanted: bool) -> str:
    return f"\x1b[{colour}m{text}{RESET}" if wanted else text
