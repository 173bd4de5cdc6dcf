"""One hold of the queue's lock: pops are planned, recorded and applied. The other half of `queuefile`."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from pegasus_py.core.model import Task
from pegasus_py.errors import BadInput
from pegasus_py.store import disk, filler
from pegasus_py.store.disk import identity
from pegasus_py.store.popplan import Changed, Plan, Sweep, rewritten
from pegasus_py.store.poprecord import STAMP, PopRecord, Unflushed, task_digest
from pegasus_py.store.queuelock import QueueBusy

if TYPE_CHECKING:
    from pegasus_py.store.queuefile import QueueFile


class Taking:
    """The queue under the lock. `peek` and `take` plan, `pop_record` fixes the plan, `apply` carries it out.

    Leaving without `apply` changes nothing. If `apply` raises, call it again, or leave: the next `hold` completes it.
    """

    def __init__(self, queue: QueueFile) -> None:
        self._queue = queue
        self._record: PopRecord | None = None
        self._fd: int | None = None
        self._found: os.stat_result | None = None
        self.follows = False
        """Known after `pop_record`: the ledger must keep the pops before this one, too. Else `sync` must come first."""
        self._applied = False
        self._head = b""
        if not queue._looked:
            with disk.storage(queue.path, "clean up beside"):
                queue._replacement.clean()
            queue._looked = True
        if queue._unfinished is not None:
            queue._finish(queue._unfinished)
        try:
            self._fd = queue._open(os.O_RDWR)
            self._found = os.fstat(self._fd)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise disk.storage_error(queue.path, "write", error) from error
        seen = None if self._found is None else identity(self._found)
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
        before = queue._unflushed
        after = before.then(record) if before is not None else None
        self.follows = after is not None
        self._unflushed = after or (Unflushed.from_(record) if queue.is_local else None)
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
            queue._finish(record)
        else:
            mode = self._found.st_mode & 0o666
            queue._keep(
                queue.consumed.append(record.consumed_size, record.consumed, mode),
                is_new=not record.consumed_size,
            )
            with disk.storage(queue.path, "write"):
                self._edit(fd, record)
            if not record.rewrite:
                # Before it is noted as done: what is done is flushed in another thread.
                queue._keep(fd)
                self._fd = None
            queue._done(record)
            queue._unflushed = self._unflushed
        self._applied = True

    def _is_still(self, fd: int) -> bool:
        """Whether the file is the one that was planned for."""
        try:
            return identity(self._queue.real.stat()) == self._queue._seen
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
            queue._seen = identity(queue.real.stat())
            return
        for edit in record.edits:
            disk.pwrite_all(fd, edit.new, edit.offset)
            reader.line += edit.new.count(b"\n") - (edit.old or b"").count(b"\n")
        reader.filler += self._plan.filler
        queue._sweep = self._plan.sweep
        queue._seen = identity(os.fstat(fd))

    def _compact(self) -> bool:
        queue, fd, found = self._queue, self._fd, self._found
        if fd is None or found is None:
            return False
        if self._plan.is_flow:
            # Its place is inside the brackets.
            queue._reader.reset()
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
                queue._seen = identity(queue.real.stat())
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
