"""The lock that guards a queue file: `queue.yaml.lock` beside it, never replaced.

filelock takes it, and finds out what kind of lock the file system has. A controller takes it some hundred times a
second, and what filelock does for each is a twelfth of all its work; so where the lock is flock's, it is taken again
with that call alone.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Literal

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from pegasus_py.errors import ExitCode, PegasusError
from pegasus_py.store.disk import storage_error
from pegasus_py.store.rundir import NO_LOCKS


class QueueBusy(PegasusError):
    """Someone else holds the queue file, or changes it at this moment. Nothing was done; try again later."""

    exit_code = ExitCode.CONFLICT


class QueueLock:
    """One holder at a time, over all processes, whether they name the queue directly or through a symlink."""

    def __init__(self, queue: Path) -> None:
        self.queue = queue
        self.path = Path(f"{os.path.realpath(queue)}.lock")
        self._lock: BaseFileLock = FileLock(self.path, thread_local=False, fallback_to_soft=False)
        self._tried = False
        self._noted = False
        self._descriptor = -1
        """Through which the lock is held, if filelock does not hold it."""

    @property
    def kind(self) -> Literal["flock", "soft"]:
        """What the lock really is, known after the first `acquire`: "soft" where the file system has no flock.

        A soft lock is a file that exists while the lock is held; one left by a crash on another host must be removed
        by hand.
        """
        return "soft" if isinstance(self._lock, SoftFileLock) else "flock"

    def acquire(self, timeout: float, note: str) -> None:
        """Take the lock, waiting for `timeout` seconds. `note`, if any, tells others who holds it.

        Raises QueueBusy, StorageError.
        """
        if self._descriptor >= 0 or self._lock.is_locked:
            raise QueueBusy(f"{self.queue}: this process is already changing it")
        try:
            if self._tried:
                if not self._take_quickly():
                    self._lock.acquire(timeout=timeout)
            else:
                self._first(timeout)
                self._tried = True
        except Timeout:
            raise QueueBusy(f"{self.queue}: {self._holder()}") from None
        except OSError as error:
            raise storage_error(self.path, "lock the queue", error) from error
        if note:
            self._write_note(f"{os.getpid()} {socket.gethostname()} {time.strftime('%H:%M:%S')} {note}\n")
            self._noted = True

    def _first(self, timeout: float) -> None:
        with warnings.catch_warnings():
            # filelock warns of a soft lock; `kind` says so instead.
            warnings.simplefilter("ignore")
            try:
                self._lock.acquire(timeout=timeout)
            except (NotImplementedError, OSError) as error:
                if isinstance(error, OSError) and error.errno not in NO_LOCKS:
                    raise
                self._lock = SoftFileLock(self.path, thread_local=False)
                self._lock.acquire(timeout=timeout)

    def release(self) -> None:
        if self._noted:
            self._write_note("")
            self._noted = False
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)
        else:
            self._lock.release()

    def _take_quickly(self) -> bool:
        """Whether the lock is taken now. If not, filelock waits for it, or says what is wrong."""
        if self.kind != "flock":
            return False
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Somebody may just have removed the file: others would lock another one then.
            if os.path.samestat(os.fstat(descriptor), self.path.lstat()):
                self._descriptor, descriptor = descriptor, -1
        except OSError:
            pass
        finally:
            if descriptor >= 0:
                os.close(descriptor)
        return self._descriptor >= 0

    def _write_note(self, text: str) -> None:
        # A soft lock's file is filelock's own. The note is a courtesy: without it the lock holds all the same.
        if self.kind == "flock":
            with suppress(OSError):
                self.path.write_text(text)

    def _holder(self) -> str:
        """Who holds the lock, from what they noted, unless that was left by a process that has ended."""
        try:
            words = self.path.read_text(errors="replace")[:500].split(maxsplit=3)
        except OSError:
            words = []
        if self.kind == "soft":
            who = " ".join(words) or "unknown"
            return f"locked by another process ({who}); if that has ended, remove {self.path}"
        if (
            len(words) == 4
            and words[0].isdigit()
            and (words[1] != socket.gethostname() or _alive(int(words[0])))
        ):
            pid, host, since, note = words
            return f"locked by {note.strip()} (process {pid} on {host}, since {since})"
        return "locked by another process"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
