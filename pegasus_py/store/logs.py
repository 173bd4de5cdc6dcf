"""One log file per attempt: its output, byte for byte. `logs/JOB.ATTEMPT.log`; no output, no file.

Thousands of short jobs a second must be cheap, so a file is made with its first bytes, few are open at once, and
flushing is done for many at once, before a node is told that it may forget the output.

A file system may take bytes and say only later, when the file is flushed, closed or written again, that it has
lost them (NFS, a quota, a broken disk), and says so once: whoever asks again is told that all is well; and after a
power cut nobody says so. So such a log is given up at the first word of it, and the node, which has it all, is
asked for it again. What it holds is written over, never cut off: it may be good, and the only copy by the time. An
empty file beside it, `JOB.ATTEMPT.doubt`, tells later runs.
"""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pegasus_py.core.model import Attempt
from pegasus_py.errors import StorageError
from pegasus_py.store import disk
from pegasus_py.store.filesystem import is_local

MAX_OPEN = 64
"""Files open at once; the one not written for longest is closed first, and opened again when needed."""

MAX_PIECES = 1024
"""That are written with one call: Linux takes no more."""

ROOM = 1 << 18
"""Bytes that must be writable again, after a write has failed, for logs to count as mended."""

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What a disk of this machine's own says of the bytes that it is given, and not of earlier ones."""

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
        self._lost: dict[_Key, str] = {}
        """Given up, and why; until it is opened again."""
        self._doubt: dict[_Key, int] = {}
        """How many bytes at the beginning this process has written anew; what is behind them is not believed."""
        self._checked: set[_Key] = set()
        """Written anew as a whole."""

    def path(self, attempt: Attempt) -> Path:
        """Where the attempt's output is, or would be."""
        return Path(self._file(attempt))

    def begin(self, inherited: Iterable[Attempt]) -> None:
        """At the start of a run: what it takes up from earlier ones is doubted if the machine was restarted since."""
        note = self.directory.with_name(f"{self.directory.name}.boot")
        now = disk.boot_id()
        with suppress(OSError):
            before = note.read_text() if note.exists() else ""
            if now and before != now:
                for key in map(_key, inherited):
                    if os.path.exists(self._name(key)):  # noqa: PTH110
                        self._doubted(key).touch(0o600)
                note.write_text(now)

    def open(self, attempt: Attempt, *, fresh: bool = False, anew: bool = False) -> int:
        """Get ready for an attempt's output and return how many bytes are here already.

        `fresh`: it has not started yet, so that what lies under its name is not its own, and goes when there is output.
        Not before: a controller that was paused and overtaken gets none, and must not remove what the other one wrote.
        `anew`: what this process has not written itself is doubted.
        """
        key, path = _key(attempt), self._file(attempt)
        self._fresh.discard(key)
        self._lost.pop(key, None)
        self._sizes[key] = 0
        if fresh:
            self._doubt.pop(key, None)
            self._fresh.add(key)
            return 0
        with _named(path), suppress(FileNotFoundError):
            size = os.stat(path).st_size  # noqa: PTH116
            # What an earlier run wrote it may not have flushed.
            self._unsynced.add(key)
            if key not in self._checked and (anew or self._doubted(key).exists()):
                self._doubt.setdefault(key, 0)
            self._sizes[key] = self._doubt.get(key, size)
        return self._sizes[key]

    def clear(self) -> None:
        """Remove all logs: in the first run of a ledger they are of one that has been deleted. Raises StorageError."""
        with _named(self.directory):
            for path in (*self.directory.glob("*.log"), *self.directory.glob("*.doubt")):
                path.unlink(missing_ok=True)

    def write(self, attempt: Attempt, *pieces: bytes) -> None:
        """Append to an open log. On StorageError a part may have been written: `size` says how much is here.

        Unless it is `lost`.
        """
        left = sum(map(len, pieces))
        if not left:
            return
        key, path = _key(attempt), self._file(attempt)
        if key in self._lost:
            raise StorageError(path, self._lost[key])
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
            self._failed = True
            if error.errno not in FULL or not is_local(self.directory):
                self._give_up(key, error)
            raise _failure(path, error) from error

    def check(self) -> None:
        """Raise StorageError if a write has failed and there is no room yet. Costs nothing while all goes well."""
        if not self._failed:
            return
        trial = self.directory / ".trial"
        with _named(self.directory):
            try:
                with trial.open("wb") as file:
                    file.write(bytes(ROOM))
                    file.flush()
                    disk.fsync(file.fileno())
            finally:
                trial.unlink(missing_ok=True)
        self._failed = False

    def size(self, attempt: Attempt) -> int:
        """Bytes held of an open log: where the next ones go."""
        return self._sizes[_key(attempt)]

    def held(self, attempt: Attempt) -> int:
        """Bytes that lie under the name of a log that is not open."""
        with _named(self._file(attempt)), suppress(FileNotFoundError):
            return os.stat(self._file(attempt)).st_size  # noqa: PTH116
        return 0

    def close(self, attempt: Attempt) -> None:
        """No more output will come. Does not flush. On StorageError it is given up: what it held is lost."""
        key = _key(attempt)
        size = self._sizes.pop(key, None)
        self._fresh.discard(key)
        descriptor = self._descriptors.pop(key, None)
        if descriptor is not None:
            self._close(key, descriptor)
        if key in self._lost:
            raise StorageError(self._file(attempt), self._lost[key])
        if key in self._doubt and size is not None:
            self._doubt[key] = size
            if size >= self.held(attempt):
                del self._doubt[key]
                self._checked.add(key)

    def close_all(self) -> None:
        """At the end. What is lost by this is still on the nodes, for none of it is safe."""
        while self._descriptors:
            self._close(*self._descriptors.popitem())
        self._sizes.clear()
        self._fresh.clear()

    def are_safe(self, attempts: Iterable[Attempt]) -> bool:
        """Whether there is nothing to flush of these logs: no output, or it is on the disk."""
        # Another thread moves them from the first to the second and, when it fails, back or to the last.
        owed = (self._unsynced, self._flushing, self._unsynced, self._lost)
        return not any(_key(attempt) in keys for attempt in attempts for keys in owed)

    def lost(self, attempts: Iterable[Attempt]) -> dict[str, StorageError]:
        """The ids of those that have been given up and not been opened again since, and why."""
        return {
            attempt.id: StorageError(self._file(attempt), self._lost[key])
            for attempt in attempts
            if (key := _key(attempt)) in self._lost
        }

    def sync(self, attempts: Iterable[Attempt]) -> None:
        """Flush these logs, open or closed, to the disk; it blocks.

        On StorageError none counts as flushed, and some may be `lost`; of these there is one each time.
        """
        keys = [_key(attempt) for attempt in attempts]
        wanted = [key for key in keys if key in self._unsynced]
        if not wanted:
            self._complain(keys)
            return
        # Before the flush: what is written meanwhile is not flushed.
        self._flushing.update(wanted)
        self._unsynced.difference_update(wanted)
        try:
            for start in range(0, len(wanted), self._max_open):
                self._flush(wanted[start : start + self._max_open])
            self._complain(keys)
            with _named(self.directory):
                disk.sync_directory(self.directory)
                for key in self._checked.intersection(wanted):
                    self._doubted(key).unlink(missing_ok=True)
        except BaseException:
            self._unsynced.update(key for key in wanted if key not in self._lost)
            raise
        finally:
            self._flushing.difference_update(wanted)

    def _complain(self, keys: Iterable[_Key]) -> None:
        for key in keys:
            if key in self._lost:
                raise StorageError(self._name(key), self._lost[key])

    def _flush(self, keys: Sequence[_Key]) -> None:
        """Start the writing of all, then wait for each: a third of the time of one after the other."""
        descriptors: list[tuple[_Key, int]] = []
        key = keys[0]
        try:
            for key in keys:
                try:
                    descriptors.append((key, os.open(self._name(key), os.O_RDONLY)))
                except FileNotFoundError:
                    continue
            if hasattr(os, "posix_fadvise"):
                for _, descriptor in descriptors:
                    try:
                        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                    except OSError:
                        break
            for key, descriptor in descriptors:
                try:
                    disk.fsync(descriptor)
                except OSError as error:
                    self._give_up(key, error)
        except OSError as error:
            raise _failure(self._name(key), error) from error
        finally:
            for key, descriptor in descriptors:
                self._close(key, descriptor)

    def _close(self, key: _Key, descriptor: int) -> None:
        try:
            os.close(descriptor)
        except OSError as error:
            self._give_up(key, error)

    def _give_up(self, key: _Key, error: OSError) -> None:
        self._lost.setdefault(key, error.strerror or str(error))
        self._doubt[key] = 0
        self._checked.discard(key)
        self._unsynced.discard(key)
        self._failed = True
        with suppress(OSError):
            self._doubted(key).touch(0o600)

    def _doubted(self, key: _Key) -> Path:
        return self.directory / f"{key[0]}.{key[1]}.doubt"

    def _name(self, key: _Key) -> str:
        # Not a Path, which would be half the cost of a job without output.
        return f"{self._prefix}{key[0]}.{key[1]}.log"

    def _file(self, attempt: Attempt) -> str:
        return self._name(_key(attempt))

    def _descriptor(self, key: _Key, path: str) -> int:
        descriptor = self._descriptors.get(key)
        if descriptor is not None:
            self._descriptors.move_to_end(key)
            return descriptor
        while len(self._descriptors) >= self._max_open:
            self._close(*self._descriptors.popitem(last=False))
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
