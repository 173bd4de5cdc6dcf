"""The state directory of a queue, `.pegasus/QUEUE/` beside it, and the claim of the one controller on it.

Cheap to import: filelock is imported only where the lock is not to be had at once.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pegasus_py.errors import QueueHeld, StorageError
from pegasus_py.store.control import ControlServer
from pegasus_py.store.disk import storage_error
from pegasus_py.store.flock import Flock, NoLocksError
from pegasus_py.store.holder import Holder, read_holder, write_holder

if TYPE_CHECKING:
    from types import TracebackType

    from filelock import BaseFileLock

PATIENCE = 0.7
"""Seconds for which a start that finds the lock taken waits to learn by whom."""


class RunDir:
    """Where things are; nothing is touched before `prepare`. A queue file has one, by whatever name it is called."""

    def __init__(self, queue: str | os.PathLike[str]) -> None:
        self.queue = Path(os.path.realpath(queue))
        self.path = self.queue.parent / ".pegasus" / self.queue.name
        self.ledger = self.path / "ledger.db"
        self.logs = self.path / "logs"
        self.lock = self.path / "controller.lock"

    def prepare(self) -> None:
        """Make the directories, mode 0700. StorageError if they are not ours or cannot be made."""
        for directory in (self.path.parent, self.path, self.logs, self.path / "control"):
            _own_directory(directory)

    def holder(self) -> Holder | None:
        """The controller that is named there, alive or not."""
        return read_holder(self.path / "controller.json")

    def claim(self, mode: str) -> Claim:
        """Become the controller of this queue until `Claim.release` or death; QueueHeld if another one is.

        To be called in the process that stays (a lock does not outlive a fork), before the ledger is written.
        """
        self.prepare()
        deadline = time.monotonic() + PATIENCE
        while (lock := _try_lock(self.lock)) is None:
            holder = self.holder()
            if holder is not None and holder.is_alive() is not False:
                raise self._held(holder)
            if time.monotonic() > deadline:
                raise QueueHeld(
                    f"{self.queue}: another controller holds this queue, and does not say who it is; if there is "
                    f"surely none, remove {self.path}/controller.*"
                )
            time.sleep(0.01)
        try:
            previous = self.holder()
            # The lock may have been removed by hand, or be one that does not reach other processes.
            if previous is not None and previous.pid != os.getpid() and previous.is_alive():
                raise self._held(previous)
            return Claim(self, lock, mode, previous)
        except BaseException as error:
            lock.release()
            if isinstance(error, OSError):
                raise storage_error(self.path, "claim the queue", error) from error
            raise

    def _held(self, holder: Holder) -> QueueHeld:
        where = (
            f"; if it is surely dead, remove {self.path}/controller.*" if holder.is_alive() is None else ""
        )
        return QueueHeld(
            f"{self.queue}: held by another controller ({holder}); `pegasus stop` ends it{where}"
        )


class Claim:
    """The hold of one controller on its queue. `control` takes the requests of clients.

    `is_hard`: the system lets go of the lock when this process dies; where the file system has no such lock (some
    NFS), a file stands for it that a killed controller leaves behind. `previous` is a controller that did not end
    in order (killed, or its host lost), None if the last one did.
    """

    def __init__(
        self, run_dir: RunDir, lock: Flock | BaseFileLock, mode: str, previous: Holder | None
    ) -> None:
        self._lock: Flock | BaseFileLock | None = lock
        self._file = run_dir.path / "controller.json"
        self.is_hard = "Soft" not in type(lock).__name__
        self.previous = previous
        self.holder = Holder.me(mode, signals=_survive_knocks())
        self.control = ControlServer(run_dir.path, self.holder)
        # Before anybody can see this controller: what is there was meant for an earlier one.
        self.control.clear()
        write_holder(self._file, self.holder)

    def release(self) -> None:
        """Let go, after everything else is closed. A second call does nothing."""
        if self._lock is not None:
            lock, self._lock = self._lock, None
            with suppress(OSError):
                if read_holder(self._file) == self.holder:
                    self._file.unlink()
            lock.release()

    def __enter__(self) -> Claim:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _try_lock(path: Path) -> Flock | BaseFileLock | None:
    """The lock, or None if another process has it. It is a soft one where the file system has no other."""
    try:
        if (held := Flock.take(path, 0o600)) is not None:
            return held
    except NoLocksError:
        return _try_soft_lock(path)
    from filelock import FileLock

    # Somebody holds it, or something is wrong with the file.
    return _acquired(FileLock(path, mode=0o600, thread_local=False, fallback_to_soft=False), path)


def _try_soft_lock(path: Path) -> BaseFileLock | None:
    from filelock import SoftFileLock

    # Not the same file: an empty one that is there would stand for a holder.
    return _acquired(SoftFileLock(path.with_suffix(".softlock"), mode=0o600, thread_local=False), path)


def _acquired(lock: BaseFileLock, path: Path) -> BaseFileLock | None:
    from filelock import Timeout

    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    except OSError as error:
        raise storage_error(path, "lock this file", error) from error
    return lock


def _survive_knocks() -> bool:
    """See to it that SIGUSR1 does not kill this process before it has a handler; False if it still would."""
    try:
        if signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL:
            # Not SIG_IGN, which programs started from here would inherit.
            signal.signal(signal.SIGUSR1, lambda *_: None)
    except ValueError:
        return False
    return True


def _own_directory(path: Path) -> None:
    try:
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)
            _sync_directory(path.parent)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise StorageError(path, "is not a directory of its own: move it away") from error
        raise storage_error(path, "make this directory", error) from error
    try:
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid():
            raise StorageError(
                path, f"belongs to another user (uid {status.st_uid}): use a queue in a directory of your own"
            )
        if status.st_mode & 0o777 != 0o700:
            os.fchmod(descriptor, 0o700)
    except OSError as error:
        raise storage_error(path, "use this directory", error) from error
    finally:
        os.close(descriptor)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
