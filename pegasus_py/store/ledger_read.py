"""What can be asked of a ledger: by a controller that starts, and by those who print tables."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pegasus_py.core.model import Attempt, Job, JobState
from pegasus_py.store.ledger_db import patiently, translated
from pegasus_py.store.ledger_schema import (
    JOB_COLUMNS,
    UNWANTED,
    AttemptRow,
    JobRow,
    RunRow,
    end_from_row,
    job_from_row,
)

_COURSE = (
    "attempt.epoch, attempt.began, attempt.ended, attempt.state, attempt.status, attempt.duration, "
    "attempt.reason, attempt.survivors"
)
_ATTEMPT = "attempt.number, attempt.subnode, attempt.hostname, attempt.spool"
_FROM_JOB = "FROM job LEFT JOIN spec ON spec.id = job.spec"


class LedgerReads:
    """The reading half of a ledger. `queue_id` is 16 hex digits, made once with the ledger."""

    def __init__(self, path: Path, db: sqlite3.Connection, has_locks: bool) -> None:
        self.path = path
        self.has_locks = has_locks
        self._db = db
        self._mutex = threading.RLock()
        self.queue_id: str = self._read("SELECT queue_id FROM self")[0][0]

    def open_attempts(self) -> list[Attempt]:
        """Attempts whose end is not recorded, oldest first: they may have started, or may not."""
        return self._attempts("attempt.state IS NULL")

    def uncleared(self) -> list[Attempt]:
        """Attempts that ended, but may have left something on their nodes."""
        return self._attempts("attempt.state IS NOT NULL")

    def _attempts(self, which: str) -> list[Attempt]:
        rows = self._read(
            f"SELECT {_ATTEMPT}, {JOB_COLUMNS} FROM attempt JOIN job ON job.id = attempt.job "
            f"LEFT JOIN spec ON spec.id = job.spec WHERE cleared = 0 AND {which} ORDER BY attempt.job, number"
        )
        return [self._attempt(row[:4], row[4:]) for row in rows]

    def waiting_jobs(self) -> list[tuple[Job, int, float]]:
        """Queued jobs by id: job, attempts so far, and when it is due in seconds of the wall clock."""
        rows = self._read(
            f"SELECT attempts, due, {JOB_COLUMNS} {_FROM_JOB} "
            "WHERE state = 'queued' AND state <> 'succeeded' ORDER BY job.id"
        )
        return [(job_from_row(rest), attempts, due or 0.0) for attempts, due, *rest in rows]

    def last_pops(self) -> list[bytes]:
        """The records of the last pops from the queue file, in order, for their recovery."""
        return [record for (record,) in self._read("SELECT record FROM pop ORDER BY id")]

    def counts(self) -> dict[JobState, int]:
        """How many jobs are in each state; states without jobs are left out."""
        rows = self._read("SELECT state, count(*) FROM job WHERE state <> 'succeeded' GROUP BY state")
        counts = {JobState(state): number for state, number in rows}
        succeeded = self._read("SELECT count(*) FROM job")[0][0] - sum(counts.values())
        return {JobState.SUCCEEDED: succeeded, **counts} if succeeded else counts

    def jobs(
        self,
        states: Iterable[JobState] | None = None,
        ids: Sequence[int] | None = None,
        limit: int | None = None,
        run: int | None = None,
    ) -> list[JobRow]:
        """Jobs with their last attempts, newest first; all that is given must hold.

        `run` is the epoch of the run that started the last attempt.
        """
        where, values = ["1"], list[object]()
        if states is not None:
            wanted = [state.value for state in states]
            where.append(f"job.state IN ({','.join('?' * len(wanted))})")
            values += wanted
            if "succeeded" not in wanted:
                where.append("job.state <> 'succeeded'")
        if ids is not None:
            where.append(f"job.id IN ({','.join('?' * len(ids))})")
            values += ids
        if run is not None:
            where.append("attempt.epoch = ?")
            values.append(run)
        rows = self._read(
            f"SELECT job.state, job.attempts, job.due, {_COURSE}, {JOB_COLUMNS} {_FROM_JOB} "
            "LEFT JOIN attempt ON attempt.job = job.id AND attempt.number = job.attempts "
            f"WHERE {' AND '.join(where)} ORDER BY job.id DESC LIMIT ?",
            (*values, -1 if limit is None else limit),
        )
        return [
            JobRow(job_from_row(rest), JobState(state), number, due, epoch, began, ended, end_from_row(*end))
            for state, number, due, epoch, began, ended, *more in rows
            for end, rest in [(more[:5], more[5:])]
        ]

    def attempts(self, job: int) -> list[AttemptRow]:
        """All attempts of a job, first to last."""
        rows = self._read(
            f"SELECT {_ATTEMPT}, {_COURSE}, {JOB_COLUMNS} {_FROM_JOB} "
            "JOIN attempt ON attempt.job = job.id WHERE job.id = ? ORDER BY attempt.number",
            (job,),
        )
        return [
            AttemptRow(
                self._attempt(row[:4], row[12:]),
                run=row[4],
                began=row[5],
                ended=row[6],
                end=end_from_row(*row[7:12]),
                unwanted=row[7] is None and row[10] == UNWANTED,
            )
            for row in rows
        ]

    def _attempt(self, row: Sequence[Any], job: Sequence[Any]) -> Attempt:
        number, subnode, hostname, spool = row
        return Attempt(job_from_row(job), number, subnode, self.queue_id, hostname, spool)

    def runs(self, limit: int = 10) -> list[RunRow]:
        """The newest runs, newest first."""
        return [
            RunRow(*row)
            for row in self._read(
                "SELECT epoch, mode, note, pid, host, began, ended, result FROM run "
                "ORDER BY epoch DESC LIMIT ?",
                (limit,),
            )
        ]

    @property
    def next_job_id(self) -> int:
        """The smallest job id that was never used; a controller reads it once and counts on."""
        return int(self._read("SELECT coalesce(max(id), 0) + 1 FROM job")[0][0])

    @property
    def last_round(self) -> int:
        """The number of the last broadcast round there was, else 0."""
        rows = self._read("SELECT round FROM job WHERE round IS NOT NULL ORDER BY id DESC LIMIT 1")
        return int(rows[0][0]) if rows else 0

    def _read(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        with self._speaking():
            return patiently(lambda: self._db.execute(sql, values).fetchall(), self.has_locks)

    @contextmanager
    def _speaking(self) -> Iterator[None]:
        with self._mutex, translated(self.path):
            yield
