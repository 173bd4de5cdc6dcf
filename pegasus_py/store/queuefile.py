"""queue.yaml: tasks are popped from its top, and every other byte stays as the user left it.

A pop is planned under the lock (`hold`), recorded in the ledger by the caller, and then applied: consumed.yaml first,
queue.yaml second. Whatever stops it between is mended by `recover`, or by the next `hold` in the same process.

Pops that follow each other are flushed together: until then the ledger keeps the records of all of them, and a pop may
only take the place of the earlier ones there when these are on the disk.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pegasus_py.core.entries import Entry, parse_entry
from pegasus_py.core.yamltext import items, plain_item
from pegasus_py.errors import BadInput, Place, StorageError
from pegasus_py.store import disk, settle
from pegasus_py.store.consumed import ConsumedFile
from pegasus_py.store.disk import Identity, identity
from pegasus_py.store.filesystem import is_local
from pegasus_py.store.popplan import Sweep
from pegasus_py.store.poprecord import PopMark, PopRecord, Unflushed, decode
from pegasus_py.store.queuelock import QueueBusy, QueueLock
from pegasus_py.store.queuereader import QueueReader
from pegasus_py.store.taking import Taking

FLUSH_AFTER = 1.0
"""Seconds without a further pop after which they are to be flushed: what the user edits then, recovery leaves alone."""


class QueueFile:
    """The queue file at `path` (a symlink is followed and stays one). One object in one process pops from it.

    `lock`, consumed.yaml and the mark of the last pop stand beside the file itself. Errors: BadInput for what the user
    must mend in the file, StorageError for the disk, QueueBusy when somebody else is at it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.real = Path(os.path.realpath(path))
        self.name = str(path)
        self._given = os.path.join(os.getcwd(), path)  # noqa: PTH109, PTH118 -- as it is, `..` after a link included
        self._is_linked = os.path.normpath(self._given) != str(self.real)
        self.is_local = is_local(self.real.parent)
        """On a disk of this machine's own: what was written is what all see."""
        self.lock = QueueLock(self.real)
        self.consumed = ConsumedFile(self.real.with_name("consumed.yaml"))
        self._mark = PopMark(self.real.parent / ".pegasus" / self.real.name)
        self._replacement = disk.Replacement(self.real)
        self._reader = QueueReader(self.name)
        self._sweep: Sweep | None = None
        self._seen: Identity | None = None
        self._looked = False
        self._unfinished: PopRecord | None = None
        self._applied = ""
        self._applied_at = 0.0
        self._unflushed: Unflushed | None = None
        """None where the next pop cannot follow them."""
        self._flushing = threading.Lock()
        """Held for a flush, which another thread may make."""
        self._noting = threading.Lock()
        """Held for what says what there is to flush."""
        self._failed: StorageError | None = None
        self._dirty: dict[tuple[int, int], int] = {}
        self._new_names = False
        self._is_unnoted = False
        """What was applied last is not noted as flushed, whether it is or not."""

    # --- looking

    def exists(self) -> bool:
        return self.path.exists()

    def changed(self) -> bool:
        """Whether the file is another than this object last saw or wrote. Opens it, so that NFS looks too."""
        if self._leads_elsewhere():
            return True
        try:
            # Asked many times a second: only what is needed.
            fd = os.open(self.real, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return not self._looked or self._seen is not None
        except OSError as error:
            raise disk.storage_error(self.path, "read", error) from error
        found = os.fstat(fd)
        os.close(fd)
        return identity(found) != self._seen

    def check(self) -> None:
        """Read all of the file. Raises BadInput for the first thing wrong in it, also if there is no such file."""
        for _ in self.entries():
            pass

    def entries(self) -> Iterator[Entry]:
        """All entries, in order. Raises as `check`, when it comes to what is wrong."""
        try:
            data = self.real.read_bytes()
        except FileNotFoundError:
            raise BadInput(Place(self.name), "no such file; create it, or name another with -Q") from None
        except IsADirectoryError:
            raise BadInput(Place(self.name), "this is a directory; name a file with -Q") from None
        except OSError as error:
            raise disk.storage_error(self.path, "read", error) from error
        pos, line = 0, 1
        # Most queues are lists of plain commands: a fifth of the time for those before the first other entry.
        while (found := plain_item(data, pos, final=True)) is not None:
            yield Entry((found[0],), place=Place(self.name, line, found[2]))
            pos, line = found[1], line + 1
        if pos < len(data) or not pos:
            for item in items(data[pos:], self.name, offset=pos, line=line):
                yield parse_entry(item.node, self.name)

    def _open(self, flags: int) -> int:
        # O_NONBLOCK: a named pipe must not hold us up before it is refused.
        try:
            fd = os.open(self.real, flags | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise self._moved() from None
        if self._leads_elsewhere():
            os.close(fd)
            raise self._moved()
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise BadInput(Place(self.name), "not a regular file; name another with -Q")
        return fd

    def _leads_elsewhere(self) -> bool:
        """Whether a symlink that led to the file leads to another one now, or has become one itself."""
        return self._is_linked and os.path.realpath(self._given) != str(self.real)

    def _moved(self) -> BadInput:
        """Its lock, its ledger and its controller are looked for beside the other file: both would take its entries."""
        # So that it is looked at until it has come back.
        self._seen = None
        there = Path(os.path.realpath(self._given))
        if there.exists():
            what = f"this is another file now ({there}), which has no controller yet"
        else:
            what = f"the link is gone that led to {self.real}"
        return BadInput(Place(self.name), f"{what}; put it back, or end this run")

    # --- changing

    @contextmanager
    def hold(self, timeout: float = 0, note: str = "") -> Iterator[Taking]:
        """Hold the lock, having waited at most `timeout` seconds. `note` tells others who holds it, if it may be long.

        Raises QueueBusy, StorageError.
        """
        self.lock.acquire(timeout, note)
        try:
            taking = Taking(self)
            try:
                yield taking
            finally:
                taking._close()
                if not self.is_local:
                    # Who takes the lock on another machine sees what has been sent to the server.
                    self.sync()
        finally:
            self.lock.release()

    @property
    def is_flushing(self) -> bool:
        """Whether another thread is about it: then `sync` waits for that one."""
        return self._flushing.locked()

    @property
    def is_alone(self) -> bool:
        """Whether what was applied last must be flushed before the next pop, whatever that is, and is not yet."""
        return bool(self._dirty) and self._unflushed is None

    @property
    def is_flushed(self) -> bool:
        """Whether `sync` has nothing to do."""
        return not (self._dirty or self._is_unnoted)

    @property
    def is_flush_due(self) -> bool:
        """Whether something was applied that is not flushed, and nothing more for a while."""
        return not self.is_flushed and time.monotonic() - self._applied_at > FLUSH_AFTER

    def sync(self, *, note: bool = True) -> None:
        """Flush what was applied. To be called, in any thread, before the ledger forgets the pops. Raises StorageError.

        `note`: and that it was, so that it is known after a power cut, too. If the ledger forgets these pops at once,
        nobody will ask; should it not come to that, the note is still due.

        After a failure nobody knows what is on the disk: it is fatal for the run, and all later calls fail, too.
        """
        with self._flushing:
            if self._failed is not None:
                raise self._failed
            self._flush(note)

    def _flush(self, note: bool) -> None:
        with self._noting:
            stamp, dirty, self._dirty = self._applied, self._dirty, {}
            is_due = bool(dirty) or self._is_unnoted
            self._is_unnoted = False
            new_names, self._new_names = self._new_names, False
            self._unflushed = None
        try:
            with disk.storage(self.path, "flush"):
                for fd in dirty.values():
                    disk.fdatasync(fd)
                if new_names:
                    disk.sync_directory(self.real.parent)
        except StorageError as error:
            self._failed = error
            raise
        finally:
            for fd in dirty.values():
                os.close(fd)
        if stamp and is_due:
            self._mark.durable(stamp, flush=note)
            if not note:
                self._is_unnoted = True

    def recover(self, blobs: Sequence[bytes], timeout: float = 10) -> None:
        """Complete the last pops that the ledger knows, if a crash left them undone. Idempotent. Takes the lock.

        Raises QueueBusy, StorageError.
        """
        if not blobs:
            return
        pops = [decode(blob) for blob in blobs]
        self.lock.acquire(timeout, "")
        try:
            with disk.storage(self.path, "recover"):
                self._replacement.clean()
            applied, durable = self._mark.read()
            if pops[-1].stamp != durable:
                complete = [n for n, pop in enumerate(pops, 1) if pop.stamp in (applied, durable)]
                if left := pops[max(complete, default=0) :]:
                    self._settle(left)
                else:
                    self._reopen()
                self._done(pops[-1])
                self.sync()
        finally:
            self.lock.release()

    def compact(self) -> bool:
        """Remove what filler and blanks pops have left, if nobody holds the lock. Whether it was done.

        Raises StorageError, and then nothing has changed.
        """
        try:
            with self.hold() as taking:
                return taking._compact()
        except QueueBusy:
            return False

    def close(self) -> None:
        """Release what is open; what was not synced is left to the system."""
        dirty, self._dirty = self._dirty, {}
        for fd in dirty.values():
            os.close(fd)
        self._mark.close()

    # --- inside

    def _settle(self, pops: Sequence[PopRecord]) -> None:
        """Bring both files to where the pops have happened once, whatever of them has. Under the lock."""
        try:
            fd: int | None = self._open(os.O_RDWR)
        except FileNotFoundError:
            fd = None
        except OSError as error:
            raise disk.storage_error(self.path, "write", error) from error
        try:
            mode = 0o666 if fd is None else os.fstat(fd).st_mode & 0o666
            records = tuple(text for pop in pops for text in pop.consumed)
            self._keep(self.consumed.settle(pops[0].consumed_size, records, mode), is_new=True)
            if fd is not None:
                with disk.storage(self.path, "write"):
                    self._splice(fd, pops)
        finally:
            if fd is not None:
                self._keep(fd)
        self._forget()

    def _reopen(self) -> None:
        """Have `sync` flush both files as they are: an earlier process wrote them."""
        for path in (self.real, self.consumed.path):
            with disk.storage(path, "flush"), suppress(FileNotFoundError):
                self._keep(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), is_new=True)

    def _splice(self, fd: int, pops: Sequence[PopRecord]) -> None:
        found = os.fstat(fd)
        data = disk.read_range(fd, 0, found.st_size)
        todo = settle.splices(data, pops, self.name)
        if all(size == len(new) for _, size, new in todo):
            for offset, _, new in todo:
                disk.pwrite_all(fd, new, offset)
            return
        parts, done = [], 0
        for offset, size, new in todo:
            parts += [data[done:offset], new]
            done = offset + size
        self._replacement.prepare([*parts, data[done:]], found)
        self._publish(fd, found.st_size)

    def _publish(self, fd: int, size: int) -> None:
        """Let the prepared file take the place of the one at `fd`, of which it holds `size` bytes."""
        self._replacement.publish()
        # Somebody may have appended to the old one without the lock since it was read.
        late = disk.read_range(fd, size, os.fstat(fd).st_size)
        if late:
            new = os.open(self.real, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            try:
                disk.write_all(new, late)
                disk.fsync(new)
            finally:
                os.close(new)

    def _finish(self, record: PopRecord) -> None:
        """Complete a pop of this process of which not all could be written, or whose file was edited since the plan."""
        with suppress(StorageError):  # which the next `sync` raises again
            # The ones before it, which the ledger has too, are complete: in an edited file they could not be found.
            self.sync()
        self._settle([record])
        self._done(record)

    def _done(self, record: PopRecord) -> None:
        self._unfinished = None
        with self._noting:
            self._applied, self._applied_at = record.stamp, time.monotonic()
            # A flush that began a moment ago may have taken all of it, but it notes the one before.
            self._is_unnoted = True
        self._mark.applied(record.stamp)

    def _forget(self) -> None:
        """Read from the top the next time."""
        self._reader.reset()
        self._sweep = None
        self._seen = None
        self._unflushed = None

    def _keep(self, fd: int, *, is_new: bool = False) -> None:
        """Have `sync` flush and close `fd`, and also its name if the file may be new."""
        found = os.fstat(fd)
        with self._noting:
            self._new_names = self._new_names or is_new
            old = self._dirty.pop((found.st_dev, found.st_ino), None)
            self._dirty[(found.st_dev, found.st_ino)] = fd
        if old is not None:
            os.close(old)
