"""A lock of the system on a file, taken at once or not at all: the same that filelock takes where there is one.

filelock costs 15 ms to import, and 0.1 ms for each taking; it is there for all that does not succeed at once.
"""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress
from pathlib import Path

NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
"""What a file system says that has no locks."""


class NoLocksError(Exception):
    """The file system has no locks of this kind."""


class Flock:
    """The hold of a lock. It ends with `release`, or with the process."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def take(cls, path: Path, mode: int = 0o644) -> Flock | None:
        """Take the lock on the file, which is made with `mode` if it is not there.

        None if that was not possible: it is held by somebody, or the file cannot be opened. Never follows a symbolic
        link. Raises NoLocksError, and then has not left a file: where there are no locks, one may stand for a holder.
        """
        flags, is_new = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, False
        try:
            try:
                descriptor = os.open(path, flags)
            except FileNotFoundError:
                descriptor, is_new = os.open(path, flags | os.O_CREAT | os.O_EXCL, mode), True
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Somebody may just have removed the file: others would lock another one then.
            if os.path.samestat(os.fstat(descriptor), path.lstat()):
                held, descriptor = cls(descriptor), -1
                return held
        except OSError as error:
            if error.errno in NO_LOCKS:
                if is_new:
                    with suppress(OSError):
                        path.unlink()
                raise NoLocksError from error
        finally:
            if descriptor >= 0:
                os.close(descriptor)
        return None

    def release(self) -> None:
        """Let go. A second call does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            # A child that is about to become another program has the descriptor, too, for a moment.
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)
