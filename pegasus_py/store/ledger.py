"""The durable record of runs, jobs and attempts: an SQLite file that outlives kill -9, power cuts, full
disks.

A write-ahead log where the disk is this machine's own, else a rollback journal (see `ledger_db`); at rest it is
one file either way. Each commit is flushed before it returns, and checks that the run that makes it is still the
newest: a controller that was paused and overtaken can record, and so start, nothing. All methods block; call them
from a thread that may wait. They may be called from several.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pegasus_py.core.model import Job
from pegasus_py.errors import QueueHeld, StorageBroken
from pegasus_py.store.batch import Batch
from pegasus_py.store.ledger_db import connect, grow, has_wal, may_be_full
from pegasus_py.store.ledger_read import LedgerReads
from pegasus_py.store.ledger_schema import UNWANTED, end_values, params_of, spec_of

BALLAST = 1 << 20
"""Bytes held in the file so that ends can be recorded when the disk is full: some 10,000 of them."""

BALLAST_ROW = 3900
"""Bytes of one row of it: nearly a page."""

PAGE = 4096
CHECKPOINT_AT = 128
"""Pages that a write-ahead log may take, by estimate, before they are brought into the file and it begins anew."""
PAGES_PER_COMMIT = 6
"""And one more for the record of a pop."""
ROWS_PER_PAGE = 16

SPECS = 1024
"""How many of the last shared parts of jobs are remembered, so as not to be written again."""


class Ledger(LedgerReads):
    """One queue's record. `epoch` is the number of the run that this controller has begun, else 0.

    `has_locks` is False where the file system has no locks: SQLite then works without (see
    `ledger_db.connect`).
    """

    def __init__(self, path: Path, db: sqlite3.Connection, has_locks: bool, ballast: int) -> None:
        super().__init__(path, db, has_locks)
        self.epoch = 0
        self._serial = 0
        self._ballast = ballast
        self._has_ballast = False
        self._has_wal = has_wal(db)
        self.is_local = self._has_wal
        """On a disk of this machine's own: a commit waits for nobody else's."""
        # On a small disk, where little is kept back, the log has to be small too.
        self._checkpoint_at = min(CHECKPOINT_AT, ballast // (2 * PAGE)) or CHECKPOINT_AT
        self._logged = 0
        """Pages in the write-ahead log, by estimate."""
        self._is_behind = False
        """They could not be brought into the file: no new work until they are."""
        self._specs: dict[tuple[str | None, str | None, str], int] = {}

    @classmethod
    def open(cls, path: Path, *, create: bool = True, ballast: int = BALLAST) -> Ledger:
        """Open the ledger; make it if there is none and `create`, which is False for those who only read.

        StorageError if that cannot be.

        `ballast` is how many bytes are kept back for a full disk (see `commit`).
        """
        return cls(path, *connect(path, create=create), ballast)

    def close(self) -> None:
        with self._mutex:
            if self._has_wal:
                # Back to one file that can be read and copied anywhere; not while somebody reads it.
                with suppress(sqlite3.Error):
                    self._db.execute("PRAGMA busy_timeout = 0")
                    self._db.execute("PRAGMA journal_mode = DELETE")
            self._db.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def begin_run(self, mode: str, note: str = "") -> int:
        """Open a new run and return its epoch. From now on no older run can commit anything."""
        with self._speaking():
            with self._transaction():
                epoch, serial = self._db.execute(
                    "UPDATE self SET epoch = epoch + 1 RETURNING epoch, serial"
                ).fetchone()
                self._db.execute(
                    "INSERT INTO run(epoch, mode, note, pid, host, began) VALUES (?, ?, ?, ?, ?, ?)",
                    (epoch, mode, note, os.getpid(), os.uname().nodename, time.time()),
                )
            self.epoch, self._serial = epoch, serial
            self._take_ballast()
        return self.epoch

    def end_run(self, result: str = "") -> None:
        """Record that this run ended in order, and how in words. Nothing can be committed after."""
        with self._speaking():
            with self._transaction():
                self._fence()
                self._db.execute(
                    "UPDATE run SET ended = ?, result = ? WHERE epoch = ?", (time.time(), result, self.epoch)
                )
            self.epoch = 0

    def commit(self, batch: Batch) -> None:
        """Record all of `batch` durably, or raise and record nothing.

        QueueHeld: a newer run has begun; this one must start nothing more. StorageError: the disk is full
        or does not work. On a full disk a batch that starts nothing (`batch.without_starts()`) is still
        recorded, from space kept back for it, and in parts if need be; it can be given again after an
        error. One that starts something is refused until there is room again.
        """
        with self._speaking():
            if batch.starts and self._is_behind:
                self._checkpoint()
            if batch.starts and not self._has_ballast:
                self._take_ballast()
            try:
                self._write(batch)
            except sqlite3.OperationalError as error:
                if batch.starts or not may_be_full(error):
                    raise
                self._drop_ballast()
                self._write_in_parts(batch)
            if self._has_wal and self._logged >= self._checkpoint_at:
                # What was to be recorded is: whether this works only matters to what comes next.
                with suppress(sqlite3.Error):
                    self._checkpoint()

    def _checkpoint(self) -> None:
        """Bring the write-ahead log into the file. Otherwise new work would use up the space that is for ends."""
        self._is_behind = True
        self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        self._logged, self._is_behind = 0, False

    def set_cleared(self, ids: Sequence[str]) -> None:
        """Record that nothing is left of these ended attempts on their nodes."""
        self.commit(Batch(cleared=list(ids)))

    def _write(self, batch: Batch) -> None:
        now, serial = time.time(), self._serial + 1
        try:
            with self._transaction():
                self._fence()
                self._write_jobs(batch, now)
                self._write_ends(batch, now)
                self._write_pop(batch)
                self._db.execute("UPDATE self SET serial = ?", (serial,))
        except BaseException as error:
            self._specs.clear()
            # A step after the one that makes it final may be what failed.
            if not isinstance(error, sqlite3.Error) or not self._is_recorded(serial):
                raise
        self._serial = serial
        rows = len(batch.jobs) + len(batch.started) + len(batch.ended) + len(batch.cleared)
        self._logged += PAGES_PER_COMMIT + (batch.pop is not None) + rows // ROWS_PER_PAGE

    def _is_recorded(self, serial: int) -> bool:
        """Whether a commit that failed is there nevertheless, and, by another one, safely so."""
        try:
            with self._transaction():
                # Without a change there would be no flush.
                (found,) = self._db.execute("UPDATE self SET doubts = doubts + 1 RETURNING serial").fetchone()
        except sqlite3.Error:
            return False
        return bool(found == serial)

    def _write_in_parts(self, batch: Batch) -> None:
        """As large parts as the space for the journal allows."""
        try:
            self._write(batch)
        except sqlite3.OperationalError as error:
            parts = batch.parts()
            if not parts or not may_be_full(error):
                raise
            for part in parts:
                self._write_in_parts(part)

    def _write_jobs(self, batch: Batch, now: float) -> None:
        new = {job.id for job in batch.jobs}
        starting = {attempt.job.id: attempt.number for attempt in batch.started}
        if batch.jobs:
            self._db.executemany(
                "INSERT INTO job(id, state, command, subnode, attempts, spec, params, line, cancel, round) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        job.id,
                        "starting" if job.id in starting else "queued",
                        job.command,
                        job.subnode,
                        starting.get(job.id, 0),
                        self._spec(job),
                        params_of(job.task),
                        job.task.place.line,
                        job.cancel,
                        job.round,
                    )
                    for job in batch.jobs
                ],
            )
        if batch.started:
            self._db.executemany(
                "INSERT INTO attempt(job, number, subnode, hostname, spool, epoch, cleared, began) "
                "VALUES (?, ?, ?, ?, ?, ?, 0, ?)",
                [
                    (a.job.id, a.number, a.subnode, a.hostname, a.spool, self.epoch, now)
                    for a in batch.started
                ],
            )
            again = [a for a in batch.started if a.job.id not in new]
            if again:
                self._db.executemany(
                    "UPDATE job SET state = 'starting', command = ?, subnode = ?, cancel = ?, spec = ?, "
                    "attempts = ?, due = NULL WHERE id = ?",
                    [
                        (a.job.command, a.subnode, a.job.cancel, self._spec(a.job), a.number, a.job.id)
                        for a in again
                    ],
                )

    def _write_ends(self, batch: Batch, now: float) -> None:
        if batch.unwanted:
            self._db.executemany(
                "UPDATE attempt SET reason = ? WHERE job = ? AND number = ? AND state IS NULL",
                [(UNWANTED, attempt.job.id, attempt.number) for attempt in batch.unwanted],
            )
        if batch.ended:
            # An attempt ends once: what is said of it later changes neither it nor its job. And where the job has a
            # further attempt by now, its state is that one's.
            self._db.executemany(
                "UPDATE job SET state = ?1, due = ?2 WHERE id = ?3 AND attempts = ?4 AND EXISTS ("
                "SELECT 1 FROM attempt WHERE attempt.job = job.id AND number = ?4 AND attempt.state IS NULL)",
                [(e.next_state.value, e.due, e.attempt.job.id, e.attempt.number) for e in batch.ended],
            )
            self._db.executemany(
                "UPDATE attempt SET state = ?, status = ?, duration = ?, reason = ?, survivors = ?, "
                "ended = ?, cleared = ? WHERE job = ? AND number = ? AND state IS NULL",
                [
                    (*end_values(e.end), now, not e.spooled, e.attempt.job.id, e.attempt.number)
                    for e in batch.ended
                ],
            )
        if batch.moved:
            self._db.executemany(
                "UPDATE job SET state = ?, due = ? WHERE id = ?",
                [(m.state.value, m.due, m.job) for m in batch.moved],
            )
        if batch.cleared:
            self._db.executemany(
                "UPDATE attempt SET cleared = 1 WHERE job = ? AND number = ? AND state IS NOT NULL",
                [id_.split(".")[:2] for id_ in batch.cleared],
            )

    def _write_pop(self, batch: Batch) -> None:
        if batch.pop is None:
            return
        if not batch.pop_follows:
            self._db.execute("DELETE FROM pop")
        self._db.execute("INSERT INTO pop(record) VALUES (?)", (batch.pop,))

    def _spec(self, job: Job) -> int | None:
        spec = spec_of(job)
        if spec is None:
            return None
        known = self._specs.get(spec)
        if known is None:
            known = self._db.execute(
                "INSERT INTO spec(template, options, file) VALUES (?, ?, ?)", spec
            ).lastrowid
            assert known is not None
            if len(self._specs) >= SPECS:
                del self._specs[next(iter(self._specs))]
            self._specs[spec] = known
        return known

    def _fence(self) -> None:
        epoch, serial = self._db.execute("SELECT epoch, serial FROM self").fetchone()
        if not self.epoch:
            raise QueueHeld(f"{self.path}: this run has ended or not begun, so it can record nothing")
        if epoch == self.epoch:
            if serial == self._serial:
                return
            what = "the disk kept what it said it had not: start again, and it is taken up from there"
            raise StorageBroken(self.path, what)
        pid, host = self._db.execute("SELECT pid, host FROM run WHERE epoch = ?", (epoch,)).fetchone()
        raise QueueHeld(
            f"{self.path}: overtaken by another controller (pid {pid} on {host}, run {epoch}) while this one "
            f"(run {self.epoch}) was paused; that one has the queue now, this one starts nothing more"
        )

    # ---- space for a full disk

    def _take_ballast(self) -> None:
        """Make file and journal larger by what ends may need when nothing can grow any more."""
        rows = self._ballast // BALLAST_ROW
        if not rows:
            return
        (held,) = self._db.execute("SELECT count(*) FROM ballast").fetchone()
        if held < rows:
            with self._transaction():
                self._fence()
                self._db.executemany(
                    "INSERT OR REPLACE INTO ballast VALUES (?, randomblob(?))",
                    [(n, BALLAST_ROW) for n in range(rows)],
                )
        if self._has_wal:
            self._checkpoint()
            with self._transaction():
                self._fence()
                # Nobody else writes into it now.
                self._db.execute("UPDATE self SET doubts = doubts + 1")
                grow(
                    self.path.with_name(self.path.name + "-wal"),
                    self._checkpoint_at * PAGE + rows * BALLAST_ROW,
                )
            self._has_ballast = True
            return
        journal = self.path.with_name(self.path.name + "-journal")
        if journal.stat().st_size < rows * BALLAST_ROW:
            with self._transaction():
                self._fence()
                # What a transaction overwrites goes to the journal first, and a journal never shrinks.
                self._db.execute("UPDATE ballast SET filler = randomblob(?)", (BALLAST_ROW,))
        self._has_ballast = True

    def _drop_ballast(self) -> None:
        with self._transaction():
            self._fence()
            self._db.execute("DELETE FROM ballast")
        self._has_ballast = False

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
            raise
