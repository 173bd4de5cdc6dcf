"""The ledger's SQLite file: made, opened, checked; and what goes wrong with it, in our words."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from pegasus_py.errors import StorageError
from pegasus_py.store.filesystem import is_local
from pegasus_py.store.ledger_schema import APPLICATION_ID, FORMAT, FROM_FORMAT_1, SCHEMA

BUSY = 30.0
"""Seconds for which a commit waits for readers of the ledger."""


def connect(path: Path, *, create: bool) -> tuple[sqlite3.Connection, bool]:
    """Open the file, mode 0600, and make it and its tables if `create`. StorageError if that cannot be.

    The one who may create it is who writes it, with a write-ahead log where the disk is this machine's own: one flush
    for a commit instead of five. Elsewhere (NFS) that does not work, and there is a rollback journal.

    Also says whether the file system has the locks that SQLite wants. Where it has none (NFS without a lock
    daemon), the claim of the one controller and the fence in each commit stand alone, and a reader, for which
    `create` is False, may find the file in the middle of a change and has to try again (`patiently`).
    """
    with translated(path):
        if create:
            with suppress(FileExistsError):
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        elif not path.exists():
            raise StorageError(path, "there is no ledger here: nothing has run with this queue yet")
        locks = _has_locks(path)
        how = "" if locks else "?vfs=unix-none" if create else "?vfs=unix-none&mode=ro"
        uri = path.absolute().as_uri() + how
        db = sqlite3.connect(uri, uri=True, timeout=BUSY, isolation_level=None, check_same_thread=False)
        try:
            if create:
                mode = "WAL" if locks and is_local(path.parent) else "PERSIST"
                db.execute(f"PRAGMA journal_mode = {mode}")
                # When is for us to say: see `Ledger.commit`.
                db.execute("PRAGMA wal_autocheckpoint = 0")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA cache_size = -16384")
            # Some builds blank what is deleted: twice the writing, and space that a full disk does not have.
            db.execute("PRAGMA secure_delete = OFF")
            patiently(lambda: _make_or_check(path, db, create), locks)
        except BaseException:
            db.close()
            raise
        return db, locks


def has_wal(db: sqlite3.Connection) -> bool:
    return bool(db.execute("PRAGMA journal_mode").fetchone()[0] == "wal")


def grow(file: Path, size: int) -> None:
    """Make a write-ahead log at least so long, with zeros, which end it; for who holds the right to write.

    What is written into it later needs no more space. Raises StorageError.
    """
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
        try:
            missing = size - os.fstat(descriptor).st_size
            while missing > 0:
                missing -= os.write(descriptor, bytes(min(missing, 1 << 20)))
        finally:
            os.close(descriptor)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        what = _WORDS[sqlite3.SQLITE_FULL] if full else error.strerror or str(error)
        raise StorageError(file, what) from error


_Answer = TypeVar("_Answer")


def patiently(ask: Callable[[], _Answer], has_locks: bool) -> _Answer:
    """Ask, and without locks ask again, for a second, when the file was found in the middle of a change."""
    for _ in range(0 if has_locks else 40):
        try:
            return ask()
        except sqlite3.DatabaseError:
            time.sleep(0.025)
    return ask()


def _has_locks(path: Path) -> bool:
    """Try it on a file beside: closing the ledger itself would drop the locks that this process has on it."""
    descriptor = -1
    try:
        descriptor = os.open(
            path.with_name(f"{path.name}-locks"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600
        )
        fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        # Anything else, a read-only or full disk say, is for SQLite to find.
        return error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    return True


def _make_or_check(path: Path, db: sqlite3.Connection, create: bool) -> None:
    if create and _kind(db) != (APPLICATION_ID, FORMAT):
        db.execute("BEGIN IMMEDIATE")
        try:
            (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            if not tables:
                _execute(db, SCHEMA)
                db.execute(
                    "INSERT INTO self(one, queue_id, epoch, serial, doubts) VALUES (1, ?, 0, 0, 0)",
                    (secrets.token_hex(8),),
                )
                db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                db.execute(f"PRAGMA user_version = {FORMAT}")
            elif _kind(db) == (APPLICATION_ID, 1):
                _execute(db, FROM_FORMAT_1)
                db.execute(f"PRAGMA user_version = {FORMAT}")
            db.execute("COMMIT")
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")
    _check(path, db)


def _kind(db: sqlite3.Connection) -> tuple[int, int]:
    """Whose file it is, and in which format."""
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    return application, version


def _execute(db: sqlite3.Connection, statements: str) -> None:
    """Each for itself: `executescript` would end the transaction."""
    for statement in statements.split(";\n"):
        db.execute(statement)


def _check(path: Path, db: sqlite3.Connection) -> None:
    application, version = _kind(db)
    if application != APPLICATION_ID:
        raise StorageError(path, "this is not a ledger of Pegasus; move it away")
    if version > FORMAT:
        raise StorageError(
            path, f"written by a newer Pegasus (format {version}, this one knows {FORMAT}); upgrade"
        )


def may_be_full(error: sqlite3.OperationalError) -> bool:
    """Whether space may be missing: quotas and NFS say so as an I/O error, and not before the flush."""
    return error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)


_WORDS = {
    sqlite3.SQLITE_FULL: "the disk is full: free some space; nothing new starts until there is room",
    sqlite3.SQLITE_READONLY: "cannot be written: make the file and its directory writable",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened: check the directory and its permissions",
    sqlite3.SQLITE_PERM: "cannot be opened: check the directory and its permissions",
    sqlite3.SQLITE_BUSY: f"another process has held it for {BUSY:.0f} s: end that process",
    sqlite3.SQLITE_NOTADB: "this is not a ledger of Pegasus; move it away",
    sqlite3.SQLITE_CORRUPT: "the ledger is damaged: move the state directory away, and keep it for a report",
    sqlite3.SQLITE_IOERR: "the disk does not read or write: check the disk, its quota and its space",
}


@contextmanager
def translated(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        words = _WORDS.get(getattr(error, "sqlite_errorcode", -1) & 0xFF)
        raise StorageError(path, f"{words} ({error})" if words else f"SQLite says: {error}") from error
    except OSError as error:
        raise StorageError(path, f"{error.strerror or error}") from error
