"""One log file per attempt: its output, byte for byte. `logs/JOB.ATTEMPT.log`; no output, no file.

Thousands of short jobs a second must be cheap, so a file is made with its first bytes, few are open at once, and
flushing is done for many at once, before a node is told that it may forget the output.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pegasus_py.core.model import Attempt
from pegasus_py.errors import StorageError

MAX_OPEN = 64
"""Files open at once; the one not written for longest is closed first, and opened again when needed."""

MAX_PIECES = 1024
"""That are written with one call: Linux takes no more."""

ROOM = 1 << 18
"""Bytes that must be writable again, after a write has failed, for logs to count as mended."""

_Key = tuple[int, int]


class LogFiles:
    """The log files of one queue. All methods but `sync` are for one thread; `sync` may run in another."""

    def __init__(self, directory: Path, max_open: int = MAX_OPEN) -> None:
        self.directory = directory
        self._prefix = f"{directory}/"
        self._max_open = max_open
        self._sizes: dict[_Key, int] = {}
        self._descriptors: OrderedDict[_Key, int] = OrderedDict()
        self._unsynced: set[_Key] = set()
        self._flushing: set[_Key] = set()
        self._fresh: set[_Key] = set()
        """Open, without output so far."""
        self._failed = False

    def path(self, attempt: Attempt) -> Path:
        """Where the attempt's output is, or would be."""
        return Path(self._file(attempt))

    def open(self, attempt: Attempt, *, fresh: bool = False) -> int:
        """Get ready for an attempt's output and return how many bytes are here already.

        `fresh`: it has not started yet, so that what lies under its name is not its own, and goes when there is output.
        Not before: a controller that was paused and overtaken gets none, and must not remove what the other one wrote.
        """
        key, path = _key(attempt), self._file(attempt)
        self._fresh.discard(key)
        self._sizes[key] = 0
        if fresh:
            self._fresh.add(key)
            return 0
        with _named(path), suppress(FileNotFoundError):
            self._sizes[key] = os.stat(path).st_size  # noqa: PTH116
            # What an earlier run wrote it may not have flushed.
            self._unsynced.add(key)
        return self._sizes[key]

    def clear(self) -> None:
        """Remove all logs: in the first run of a ledger they are of one that has been deleted. Raises StorageError."""
        with _named(self.directory):
            for path in self.directory.glob("*.log"):
                path.unlink(missing_ok=True)

    def write(self, attempt: Attempt, *pieces: bytes) -> None:
        """Append to an open log. On StorageError a part may have been written: `size` says how much is here."""
        left = sum(map(len, pieces))
        if not left:
            return
        key, path = _key(attempt), self._file(attempt)
        failed, self._failed = self._failed, True
        try:
            descriptor = self._descriptor(key, path)
            self._unsynced.add(key)
            while left:
                written = _write_at(descriptor, self._sizes[key], pieces)
                self._sizes[key] += written
                left -= written
                if left:
                    pieces = (b"".join(pieces)[-left:],)
        except OSError as error:
            raise _failure(path, error) from error
        self._failed = failed

    def check(self) -> None:
        """Raise StorageError if a write has failed and there is no room yet. Costs nothing while all goes well."""
        if not self._failed:
            return
        trial = self.directory / ".trial"
        with _named(self.directory):
            try:
                trial.write_bytes(bytes(ROOM))
            finally:
                trial.unlink(missing_ok=True)
        self._failed = False

    def size(self, attempt: Attempt) -> int:
        """Bytes held of an open log: where the next ones go."""
        return self._sizes[_key(attempt)]

    def close(self, attempt: Attempt) -> None:
        """No more output will come. Does not flush."""
        key = _key(attempt)
        self._sizes.pop(key, None)
        self._fresh.discard(key)
        descriptor = self._descriptors.pop(key, None)
        if descriptor is not None:
            try:
                os.close(descriptor)
            except OSError as error:
                raise _failure(self._file(attempt), error) from error

    def close_all(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])
        self._sizes.clear()
        self._fresh.clear()

    def are_safe(self, attempts: Iterable[Attempt]) -> bool:
        """Whether there is nothing to flush of these logs: no output, or it is on the disk."""
        return all(_key(a) not in self._unsynced and _key(a) not in self._flushing for a in attempts)

    def sync(self, attempts: Iterable[Attempt]) -> None:
        """Flush these logs, open or closed, to the disk; it blocks. On StorageError none counts as flushed."""
        keys = {_key(attempt): self._file(attempt) for attempt in attempts}
        wanted = {key: path for key, path in keys.items() if key in self._unsynced}
        if not wanted:
            return
        # Before the flush: what is written meanwhile is not flushed.
        self._flushing |= wanted.keys()
        self._unsynced -= wanted.keys()
        descriptors: list[int] = []
        try:
            paths = list(wanted.values())
            for start in range(0, len(paths), self._max_open):
                _flush(paths[start : start + self._max_open])
            with _named(self.directory):
                descriptors.append(os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY))
                os.fsync(descriptors[0])
        except BaseException:
            self._unsynced |= wanted.keys()
            raise
        finally:
            self._flushing -= wanted.keys()
            for descriptor in descriptors:
                os.close(descriptor)

    def _file(self, attempt: Attempt) -> str:
        # Not a Path, which would be half the cost of a job without output.
        return f"{self._prefix}{attempt.job.id}.{attempt.number}.log"

    def _descriptor(self, key: _Key, path: str) -> int:
        descriptor = self._descriptors.get(key)
        if descriptor is not None:
            self._descriptors.move_to_end(key)
            return descriptor
        while len(self._descriptors) >= self._max_open:
            os.close(self._descriptors.popitem(last=False)[1])
        cut = os.O_TRUNC if key in self._fresh else 0
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | cut, 0o600)
        self._fresh.discard(key)
        self._descriptors[key] = descriptor
        return descriptor


def _write_at(descriptor: int, at: int, pieces: Sequence[bytes]) -> int:
    """As many bytes of `pieces` as are taken at once, without making one of them where the system can do that."""
    if len(pieces) == 1 or len(pieces) > MAX_PIECES or not hasattr(os, "pwritev"):
        return os.pwrite(descriptor, b"".join(pieces), at)
    return os.pwritev(descriptor, pieces, at)


def _flush(paths: list[str]) -> None:
    """Start the writing of all, then wait for each: a third of the time of one after the other."""
    descriptors: list[tuple[str, int]] = []
    path = ""
    try:
        for path in paths:
            try:
                descriptors.append((path, os.open(path, os.O_RDONLY)))
            except FileNotFoundError:
                continue
        if hasattr(os, "posix_fadvise"):
            for _, descriptor in descriptors:
                try:
                    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                except OSError:
                    break
        for path, descriptor in descriptors:  # noqa: B007 -- the error tells which one it was
            os.fsync(descriptor)
    except OSError as error:
        raise _failure(path, error) from error
    finally:
        for _, descriptor in descriptors:
            os.close(descriptor)


def _key(attempt: Attempt) -> _Key:
    return attempt.job.id, attempt.number


@contextmanager
def _named(path: object) -> Iterator[None]:
    """Not for what the log of each short job goes through: a third of its cost would be this."""
    try:
        yield
    except OSError as error:
        raise _failure(path, error) from error


def _failure(path: object, error: OSError) -> StorageError:
    return StorageError(path, error.strerror or str(error))
