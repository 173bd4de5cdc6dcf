"""What may never happen, watched from outside: the processes themselves tell it, not the scheduler."""

from __future__ import annotations

from dataclasses import dataclass, field

from pegasus_py.core.model import Attempt, End, JobState


class Violation(AssertionError):
    """A promise was broken."""


@dataclass
class Process:
    """A started command. `status` is set when it has ended by exit; None while it runs or when nobody could wait."""

    attempt: Attempt
    began: float
    alive: bool = True
    status: int | None = None
    unwatched: bool = False
    """The runner that would have written its status was killed, or the node went down with it."""


@dataclass
class Oracle:
    """Starts, ends and acknowledgements, as they happened."""

    processes: dict[str, Process] = field(default_factory=dict)
    ended: dict[str, End] = field(default_factory=dict)
    given_up: set[str] = field(default_factory=set)
    """Attempts that lost_after gave up: they may still run, or start, until their node is back."""
    doubtful: set[str] = field(default_factory=set)
    """Attempts whose runner made the marker and died before it started the command: nobody can know that later."""
    stuck: set[str] = field(default_factory=set)
    """Attempts whose processes could not be ended."""
    over: set[int] = field(default_factory=set)
    """Jobs that have reached an end."""

    def starts(self, attempt: Attempt, now: float) -> Process:
        """A node starts the command of this attempt."""
        if attempt.id in self.processes:
            raise Violation(f"{attempt.id} is started twice")
        if attempt.id in self.ended and attempt.id not in self.given_up:
            raise Violation(f"{attempt.id} starts after its end was recorded: {self.ended[attempt.id]}")
        for other in self.processes.values():
            if other.attempt.job.id == attempt.job.id and other.alive and not self._excused(other, attempt):
                raise Violation(f"{attempt.id} starts while {other.attempt.id} runs")
            if (
                other.alive
                and other.attempt.subnode == attempt.subnode
                and other.attempt.id not in self.stuck
            ):
                raise Violation(f"{attempt.id} starts on {attempt.subnode}, where {other.attempt.id} runs")
        if attempt.job.id in self.over and attempt.id not in self.given_up:
            raise Violation(f"{attempt.id} starts, but its job is over")
        process = self.processes[attempt.id] = Process(attempt, now)
        return process

    def _excused(self, other: Process, attempt: Attempt) -> bool:
        return other.attempt.id in self.given_up or attempt.id in self.given_up

    def records(self, attempt: Attempt, end: End, next_state: JobState, *, gave_up: bool) -> None:
        """The ledger gets the end of an attempt."""
        if attempt.id in self.ended:
            raise Violation(f"{attempt.id} ends twice: {self.ended[attempt.id]}, then {end}")
        self.ended[attempt.id] = end
        if gave_up:
            self.given_up.add(attempt.id)
        if next_state.is_end:
            self.over.add(attempt.job.id)
        process = self.processes.get(attempt.id)
        if end.status is not None:
            if process is None or process.status != end.status:
                raise Violation(f"{attempt.id} ended with {process}, recorded is {end}")
            natural = JobState.FAILED if end.status else JobState.SUCCEEDED
            if end.state not in (natural, JobState.CANCELLED, JobState.TIMED_OUT):
                raise Violation(f"{attempt.id} is recorded as {end}")
        elif end.state is JobState.SUCCEEDED:
            raise Violation(f"{attempt.id} is recorded as {end} without a status")
        elif end.state is JobState.LOST and not gave_up:
            known = process is None or process.alive or not process.unwatched
            if known and attempt.id not in self.doubtful:
                raise Violation(f"{attempt.id} is recorded as lost, but {process}")
        elif process is not None and not gave_up and not end.survivors and not process.unwatched:
            raise Violation(f"{attempt.id} has run ({process}), recorded is {end}")
