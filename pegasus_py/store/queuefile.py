"""queue.yaml: tasks are popped from its top, and every other byte stays as the user left it.

A pop is planned under the lock (`hold`), recorded in the ledger by the caller, and then applied: consumed.yaml first,
queue.yaml second. Whatever stops it between is mended by `recover`, or by the next `hold` in the same process.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pegasus_py.core.entries import Entry, parse_entry
from pegasus_py.core.model import Task
from pegasus_py.core.yamltext import items
from pegasus_py.errors import BadInput, Place
from pegasus_py.store import disk, filler, settle
from pegasus_py.store.consumed import ConsumedFile
from pegasus_py.store.popplan import Changed, Plan, Sweep, rewritten
from pegasus_py.store.poprecord import STAMP, PopMark, PopRecord, decode, task_digest
from pegasus_py.store.queuelock import QueueBusy, QueueLock
from pegasus_py.store.queuereader import QueueReader

Identity = tuple[int, int, int, int]
"""Device, inode, size and time of change (ns): what tells that a file is still the one that we know."""


def _identity(found: os.stat_result) -> Identity:
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


class QueueFile:
    """The queue file at `path` (a symlink is followed and stays one). One object in one process pops from it.

    `lock`, consumed.yaml and the mark of the last pop stand beside the file itself. Errors: BadInput for what the user
    must mend in the file, StorageError for the disk, QueueBusy when somebody else is at it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.real = Path(os.path.realpath(path))
        self.name = str(path)
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
        self._dirty: dict[tuple[int, int], int] = {}
        self._new_names = False

    # --- looking

    def exists(self) -> bool:
        return self.path.exists()

    def changed(self) -> bool:
        """Whether the file is another than this object last saw or wrote. Opens it, so that NFS looks too."""
        try:
            fd = self._open(os.O_RDONLY)
        except FileNotFoundError:
            return not self._looked or self._seen is not None
        except OSError as error:
            raise disk.storage_error(self.path, "read", error) from error
        try:
            return _identity(os.fstat(fd)) != self._seen
        finally:
            os.close(fd)

    def check(self) -> None:
        """Read all of the file. Raises BadInput for the first thing wrong in it, also if there is no such file."""
        for _ in self.entries():
            pass

    def entries(self) -> Iterator[Entry]:
        """All entries, in order. Raises as `check`, when it comes to what is wrong."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            raise BadInput(Place(self.name), "no such file; create it, or name another with -Q") from None
        except IsADirectoryError:
            raise BadInput(Place(self.name), "this is a directory; name a file with -Q") from None
        except OSError as error:
            raise disk.storage_error(self.path, "read", error) from error
        for item in items(data, self.name):
            yield parse_entry(item.node, self.name)

    def _open(self, flags: int) -> int:
        # O_NONBLOCK: a named pipe must not hold us up before it is refused.
        fd = os.open(self.real, flags | os.O_CLOEXEC | os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise BadInput(Place(self.name), "not a regular file; name another with -Q")
        return fd

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
        finally:
            self.lock.release()

    def sync(self) -> None:
        """Flush what was applied. To be called, in any thread, before the ledger forgets the pop. Raises StorageError.

        After a failure the files cannot be trusted to be on the disk: it is fatal for the run.
        """
        stamp, dirty, self._dirty = self._applied, self._dirty, {}
        new_names, self._new_names = self._new_names, False
        try:
            with disk.storage(self.path, "flush"):
                for fd in dirty.values():
                    disk.fsync(fd)
                if new_names:
                    disk.sync_directory(self.real.parent)
        finally:
            for fd in dirty.values():
                os.close(fd)
        if stamp and dirty:
            self._mark.durable(stamp)

    def recover(self, blob: bytes | None, timeout: float = 10) -> None:
        """Complete the last pop that the ledger knows, if a crash left it undone. Idempotent. Takes the lock.

        Raises QueueBusy, StorageError.
        """
        if not blob:
            return
        record = decode(blob)
        self.lock.acquire(timeout, "")
        try:
            with disk.storage(self.path, "recover"):
                self._replacement.clean()
            if not self._mark.is_complete(record.stamp):
                self._settle(record)
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

    def _settle(self, record: PopRecord) -> None:
        """Bring both files to where the pop has happened once, whatever of it has. Under the lock."""
        try:
            fd: int | None = self._open(os.O_RDWR)
        except FileNotFoundError:
            fd = None
        except OSError as error:
            raise disk.storage_error(self.path, "write", error) from error
        try:
            mode = 0o666 if fd is None else os.fstat(fd).st_mode & 0o666
            self._keep(self.consumed.settle(record.consumed_size, record.consumed, mode))
            if fd is not None:
                with disk.storage(self.path, "write"):
                    self._splice(fd, record)
        finally:
            if fd is not None:
                self._keep(fd)
        self._forget()
        self._done(record)

    def _splice(self, fd: int, record: PopRecord) -> None:
        found = os.fstat(fd)
        data = disk.read_range(fd, 0, found.st_size)
        todo = settle.splices(data, record, self.name)
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

    def _done(self, record: PopRecord) -> None:
        self._unfinished = None
        self._applied = record.stamp
        self._mark.applied(record.stamp)

    def _forget(self) -> None:
        """Read from the top the next time."""
        self._reader.reset()
        self._sweep = None
        self._seen = None

    def _keep(self, fd: int) -> None:
        """Have `sync` flush and close `fd`."""
        found = os.fstat(fd)
        old = self._dirty.pop((found.st_dev, found.st_ino), None)
        self._dirty[(found.st_dev, found.st_ino)] = fd
        if old is not None:
            os.close(old)


class Taking:
    """The queue under the lock. `peek` and `take` plan, `pop_record` fixes the plan, `apply` carries it out.

    Leaving without `apply` changes nothing. If `apply` raises, call it again, or leave: the next `hold` completes it.
    """

    def __init__(self, queue: QueueFile) -> None:
        self._queue = queue
        self._record: PopRecord | None = None
        self._fd: int | None = None
        self._found: os.stat_result | None = None
        self._applied = False
        self._head = b""
        if not queue._looked:
            with disk.storage(queue.path, "clean up beside"):
                queue._replacement.clean()
            queue._looked = True
        if queue._unfinished is not None:
            queue._settle(queue._unfinished)
        try:
            self._fd = queue._open(os.O_RDWR)
            self._found = os.fstat(self._fd)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise disk.storage_error(queue.path, "write", error) from error
        seen = None if self._found is None else _identity(self._found)
        if seen != queue._seen:
            queue._forget()
            queue._seen = seen
        self._plan = Plan(queue._reader, queue._sweep)

    @property
    def exists(self) -> bool:
        """Whether there is a queue file; without one the queue is empty."""
        return self._fd is not None

    def peek(self) -> Task | None:
        """The next task; None if there is none. Raises BadInput if the head of the file cannot be understood."""
        if self._fd is None:
            return None
        with disk.storage(self._queue.path, "read"):
            return self._plan.peek(self._fd)

    def take(self) -> None:
        """Plan to pop the task that `peek` gives; the next `peek` gives the one after it."""
        assert self._fd is not None and self._record is None
        with disk.storage(self._queue.path, "read"):
            self._plan.take(self._fd)

    def pop_record(self, consumed: Sequence[str]) -> bytes:
        """What `recover` needs, to be made durable before `apply`. `consumed`: one record for each task taken.

        Changes nothing in the two files. Raises QueueBusy if somebody changes the file without the lock, StorageError.
        """
        queue, fd = self._queue, self._fd
        assert fd is not None and self._found is not None and self._record is None
        assert len(consumed) == len(self._plan.tasks) > 0, "one record for each task that was taken"
        stamp = secrets.token_hex(STAMP // 2)
        size, records = queue.consumed.plan(tuple(text.encode() for text in consumed))
        with disk.storage(queue.path, "write"):
            try:
                edits = self._plan.edits(fd, self._found.st_size, stamp)
            except Changed:
                queue._forget()
                raise QueueBusy(f"{queue.path}: changed without the lock at this moment; try again") from None
            tasks = tuple(task_digest(task) for task in self._plan.tasks)
            record = PopRecord(stamp, self._plan.rewrite, self._found.st_size, edits, tasks, size, records)
            if record.rewrite:
                self._head, rest = rewritten(fd, edits, stamp)
                queue._replacement.prepare(self._parts(self._head, fd, rest), self._found)
        self._record = record
        return record.encode()

    def apply(self) -> None:
        """Append to consumed.yaml, then take the entries out of the queue file. Raises StorageError; see the class."""
        queue, record, fd = self._queue, self._record, self._fd
        assert record is not None and fd is not None and self._found is not None, "apply needs a pop_record"
        if self._applied:
            return
        retrying, queue._unfinished = queue._unfinished is not None, record
        if retrying or not self._is_still(fd):
            queue._replacement.clean()
            queue._settle(record)
        else:
            mode = self._found.st_mode & 0o666
            queue._new_names = queue._new_names or not record.consumed_size
            queue._keep(queue.consumed.append(record.consumed_size, record.consumed, mode))
            with disk.storage(queue.path, "write"):
                self._edit(fd, record)
            queue._done(record)
        self._applied = True

    def _is_still(self, fd: int) -> bool:
        """Whether the file is the one that was planned for."""
        try:
            return _identity(self._queue.real.stat()) == self._queue._seen
        except OSError:
            return False

    def _edit(self, fd: int, record: PopRecord) -> None:
        queue, reader = self._queue, self._queue._reader
        assert self._found is not None
        if record.rewrite:
            queue._publish(fd, self._found.st_size)
            is_flow = self._plan.is_flow
            queue._forget()
            if not is_flow:
                size = len(self._head)
                added = len(filler.stamp_line(record.stamp))
                reader.reset(size, 1 + self._head.count(b"\n"), added)
                queue._sweep = self._plan.moved_sweep(size - len(record.edits[-1].new), size)
            queue._seen = _identity(queue.real.stat())
            return
        for edit in record.edits:
            disk.pwrite_all(fd, edit.new, edit.offset)
            reader.line += edit.new.count(b"\n") - (edit.old or b"").count(b"\n")
        reader.filler += self._plan.filler
        queue._sweep = self._plan.sweep
        queue._seen = _identity(os.fstat(fd))

    def _compact(self) -> bool:
        queue, fd, found = self._queue, self._fd, self._found
        if fd is None or found is None:
            return False
        with suppress(BadInput):
            self.peek()
        with disk.storage(queue.path, "compact"):
            sweep, end = queue._sweep, queue._reader.pos
            text, rest = b"", end
            if sweep is not None:
                text, piece = sweep.pieces[0].written()
                end, rest = sweep.begin, sweep.begin + sweep.pieces[0].size
            start = disk.read_range(fd, 0, end)
            kept = filler.strip(start)
            if len(kept) == end and len(text) == rest - end:
                return False
            # The filler tells that the last pop is done: it may only go when that is known without it.
            queue.sync()
            queue._mark.flush()
            queue._replacement.prepare(self._parts(kept + text, fd, rest), found)
            if not self._is_still(fd):
                queue._replacement.clean()
                return False
            queue._publish(fd, found.st_size)
            queue._forget()
            self._plan = Plan(queue._reader, None)
            if sweep is not None:
                moved = len(kept) + len(text) - rest
                others = tuple(p.placed((p.at or 0) + moved) for p in sweep.pieces[1:])
                queue._sweep = Sweep(len(kept), sweep.end + moved, (piece.placed(len(kept)), *others))
                tail = disk.read_range(fd, end, sweep.end)
                reader_line = 1 + kept.count(b"\n") + text.count(b"\n") + tail[rest - end :].count(b"\n")
                queue._reader.reset(sweep.end + moved, reader_line)
                self._plan = Plan(queue._reader, queue._sweep)
                queue._seen = _identity(queue.real.stat())
        return True

    @staticmethod
    def _parts(head: bytes, fd: int, rest: int) -> Iterator[bytes]:
        yield head
        yield from disk.blocks(fd, rest)

    def _close(self) -> None:
        """Leave the queue: what was planned and not applied is forgotten."""
        fd, self._fd = self._fd, None
        if fd is not None:
            if self._record is not None and not self._record.rewrite:
                self._queue._keep(fd)
            else:
                os.close(fd)
        if not self._applied:
            self._plan.undo()
            if self._record is not None and self._record.rewrite:
                with disk.storage(self._queue.path, "clean up beside"):
                    self._queue._replacement.clean()
