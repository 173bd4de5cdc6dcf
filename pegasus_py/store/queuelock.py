"""The lock that guards a queue file: `queue.yaml.lock` beside it, never replaced.

It is taken with flock alone where that succeeds at once. Else filelock waits for it, finds out what kind of lock the
file system has, or says what is wrong.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pegasus_py.errors import ExitCode, PegasusError
from pegasus_py.store.disk import storage_error
from pegasus_py.store.flock import Flock, NoLocksError

if TYPE_CHECKING:
    from filelock import BaseFileLock


class QueueBusy(PegasusError):
    """Someone else holds the queue file, or changes it at this moment. Nothing was done; try again later."""

    exit_code = ExitCode.CONFLICT


class QueueLock:
    """One holder at a time, over all processes, whether they name the queue directly or through a symlink."""

    def __init__(self, queue: Path) -> None:
        self.queue = queue
        self.path = Path(f"{os.path.realpath(queue)}.lock")
        self._held: Flock | BaseFileLock | None = None
        self._soft: BaseFileLock | None = None
        """Where the file system has no other locks, once that is known."""
        self._noted = False

    @property
    def kind(self) -> Literal["flock", "soft"]:
        """What the lock really is, known after the first `acquire`: "soft" where the file system has no flock.

        A soft lock is a file that exists while the lock is held; one left by a crash on another host must be removed
        by hand.
        """
        return "flock" if self._soft is None else "soft"

    def acquire(self, timeout: float, note: str) -> None:
        """Take the lock, waiting for `timeout` seconds. `note`, if any, tells others who holds it.

        Raises QueueBusy, StorageError.
        """
        if self._held is not None:
            raise QueueBusy(f"{self.queue}: this process is already changing it")
        try:
            if self._soft is None:
                self._held = Flock.take(self.path)
        except NoLocksError:
            from filelock import SoftFileLock

            self._soft = SoftFileLock(self.path, thread_local=False)
        if self._held is None:
            self._held = self._wait(timeout)
        if note:
            self._write_note(f"{os.getpid()} {socket.gethostname()} {time.strftime('%H:%M:%S')} {note}\n")
            self._noted = True

    def _wait(self, timeout: float) -> BaseFileLock:
        from filelock import FileLock, Timeout

        lock = self._soft or FileLock(self.path, thread_local=False, fallback_to_soft=False)
        try:
            lock.acquire(timeout=timeout)
        except Timeout:
            raise QueueBusy(f"{self.queue}: {self._holder()}") from None
        except OSError as error:
            raise storage_error(self.path, "lock the queue", error) from error
        return lock

    def release(self) -> None:
        if self._noted:
            self._write_note("")
            self._noted = False
        held, self._held = self._held, None
        if held is not None:
            held.release()

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
