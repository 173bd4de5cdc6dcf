"""Attempts and events for the tests of what is shown."""

from __future__ import annotations

import io

from pegasus_py.core.events import Ended, Output
from pegasus_py.core.model import Attempt, End, Job, JobOptions, JobState, SubNode, Task
from pegasus_py.show.console import Console


def attempt(job: int = 1, subnode: str = "node-1", command: str = "true", number: int = 1) -> Attempt:
    return Attempt(Job(job, Task(command), command, subnode), number, subnode, "0123456789abcdef")


def named(job: int, name: str, command: str) -> Attempt:
    task = Task(command, options=JobOptions(name=name))
    return Attempt(Job(job, task, command, "node-1"), 1, "node-1", "0123456789abcdef")


def output(data: bytes, job: int = 1, subnode: str = "node-1") -> Output:
    return Output(attempt(job, subnode), (data,))


def ended(
    job: int = 1,
    state: JobState = JobState.SUCCEEDED,
    status: int | None = 0,
    *,
    subnode: str = "node-1",
    command: str = "true",
    reason: str = "",
    retry_in: float | None = None,
) -> Ended:
    end = End(state, status, reason, duration=0.1)
    return Ended(attempt(job, subnode, command), end, f".pegasus/queue.yaml/logs/{job}.1.log", retry_in)


def node(name: str = "node-1") -> SubNode:
    return SubNode(name, name, (("hostname", name),))


class Screen:
    """A console on two byte streams, synchronous."""

    def __init__(
        self,
        *,
        colour: bool = False,
        width: int | None = None,
        names: tuple[str, ...] = ("node-1", "node-2"),
        quiet: bool = False,
        live: bool = False,
    ) -> None:
        self.raw_out, self.raw_err = io.BytesIO(), io.BytesIO()
        self.console = Console(
            self.raw_out, self.raw_err, colour=colour, width=width, names=names, quiet=quiet, live=live
        )

    @property
    def out(self) -> str:
        self.console.flush()
        return self.raw_out.getvalue().decode()

    @property
    def err(self) -> str:
        self.console.flush()
        return self.raw_err.getvalue().decode()
