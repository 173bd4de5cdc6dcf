"""The controller's disk: a ledger with atomic commits, the queue and consumed files, and what a power cut leaves."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from pegasus_py.core.model import Attempt, End, Job, JobState, Task


class Overtaken(Exception):
    """A newer run has begun."""


class Full(Exception):
    """The disk takes nothing now."""


@dataclass
class JobRow:
    """A job as the ledger has it."""

    job: Job
    state: JobState
    attempts: int = 0
    tries: int = 0
    due: float = 0.0
    avoid: str | None = None


@dataclass
class AttemptRow:
    """An attempt as the ledger has it."""

    attempt: Attempt
    began: float
    end: End | None = None
    cleared: bool = False
    unwanted: bool = False


@dataclass
class Batch:
    """What one commit writes."""

    jobs: list[Job] = field(default_factory=list)
    started: list[Attempt] = field(default_factory=list)
    ended: list[tuple[Attempt, End, JobState, float | None]] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)
    cleared: list[str] = field(default_factory=list)
    unwanted: list[Attempt] = field(default_factory=list)
    pop: tuple[int, ...] | None = None

    def __bool__(self) -> bool:
        ends = self.ended or self.dropped or self.cleared or self.unwanted
        return bool(self.jobs or self.started or ends or self.pop)


@dataclass
class Disk:
    """Tasks are known by number in the files; the text does not matter here."""

    tasks: dict[int, Task] = field(default_factory=dict)
    queue: list[int] = field(default_factory=list)
    consumed: list[int] = field(default_factory=list)
    jobs: dict[int, JobRow] = field(default_factory=dict)
    attempts: dict[str, AttemptRow] = field(default_factory=dict)
    epoch: int = 0
    next_job: int = 1
    rounds: int = 0
    pop: tuple[int, ...] = ()
    unsynced: tuple[tuple[int, ...], str] | None = None
    """The last pop's tasks, and which files were written: `c`, `cq`; a power cut may undo either."""
    full_until: float = 0.0
    locked_until: float = 0.0
    bad_until: float = 0.0

    def begin_run(self) -> int:
        self.epoch += 1
        self.recover()
        return self.epoch

    def recover(self) -> None:
        """Finish the last pop, as the ledger has it."""
        for number in self.pop:
            if number not in self.consumed:
                self.consumed.append(number)
        self.queue = [n for n in self.queue if n not in self.pop]
        self.unsynced = None

    def power_cut(self, rng: random.Random) -> None:
        if self.unsynced is None:
            return
        numbers, _ = self.unsynced
        torn = rng.randrange(len(numbers) + 1)
        if rng.random() < 0.5:
            self.consumed = [n for n in self.consumed if n not in numbers[torn:]]
        if rng.random() < 0.5:
            self.queue = [n for n in numbers if n not in self.queue] + self.queue
        self.unsynced = None

    def commit(self, batch: Batch, epoch: int, now: float) -> None:
        if epoch != self.epoch:
            raise Overtaken
        if now < self.full_until and (batch.jobs or batch.started or batch.pop):
            raise Full
        if batch.pop:
            self.pop = batch.pop
        both = {ended[0].job.id for ended in batch.ended} & {attempt.job.id for attempt in batch.started}
        assert not both, f"jobs {both} end and begin in one commit, which does not say in which order"
        for attempt in batch.unwanted:
            self.attempts[attempt.id].unwanted = True
        for attempt, end, next_state, delay in batch.ended:
            self._end(attempt, end, next_state, now + (delay or 0.0))
        for job in batch.jobs:
            assert job.id not in self.jobs
            self.jobs[job.id] = JobRow(job, JobState.STARTING)
        for attempt in batch.started:
            assert attempt.id not in self.attempts
            before = [row for row in self.attempts.values() if row.attempt.job.id == attempt.job.id]
            assert not any(row.unwanted for row in before), f"{attempt.id} begins, but its job is unwanted"
            self.attempts[attempt.id] = AttemptRow(attempt, now)
            row = self.jobs[attempt.job.id]
            row.job, row.state, row.attempts = attempt.job, JobState.STARTING, attempt.number
        for job_id in batch.dropped:
            assert self.jobs[job_id].state is JobState.QUEUED
            self.jobs[job_id].state = JobState.CANCELLED
        for attempt_id in batch.cleared:
            self.attempts[attempt_id].cleared = True

    def _end(self, attempt: Attempt, end: End, next_state: JobState, due: float) -> None:
        row, job = self.attempts[attempt.id], self.jobs[attempt.job.id]
        assert row.end is None and job.attempts == attempt.number
        row.end, job.state, job.due, job.avoid = end, next_state, due, attempt.hostname
        job.tries += end.state is not JobState.CANCELLED

    def open(self) -> list[AttemptRow]:
        return [row for row in self.attempts.values() if row.end is None]
