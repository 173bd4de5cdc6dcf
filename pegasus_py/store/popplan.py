"""Which bytes of the queue file a pop replaces by what. Reads the file and never changes it."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct
from msgspec.structs import replace

from pegasus_py.core.entries import dump_flow
from pegasus_py.core.model import Task
from pegasus_py.store import disk, filler
from pegasus_py.store.poprecord import Edit, bytes_digest
from pegasus_py.store.queuereader import Head, QueueReader
from pegasus_py.store.sweep import Layout, Piece

IN_PLACE = 1 << 16
"""Bytes that one pop writes in place at most; with more the file is replaced."""
COMPACT = 1 << 16
"""Bytes of filler that are left alone; more go as soon as they outweigh the rest, so that a pop's share is constant."""
_AROUND = 32


class Changed(Exception):
    """The file is not what was read before, though it looked unchanged: read again."""


class Sweep(Struct, frozen=True):
    """An entry that is partly consumed: bytes `start` to `end`, filler first, then the texts of `pieces`.

    `text` is what the user wrote there, if it is still that.
    """

    start: int
    end: int
    pieces: tuple[Piece, ...]
    text: bytes | None = None
    head: Head | None = None

    @property
    def begin(self) -> int:
        """Where the text of the first piece begins, which is in the file."""
        at = self.pieces[0].at
        assert at is not None
        return at


class _Gone(Struct, frozen=True):
    """Bytes of the file that are consumed as a whole; `text` is what they were, if that is known."""

    start: int
    end: int
    text: bytes | None
    flow: bool = False


class Plan:
    """Tasks taken from the head one after the other, and then the edits that remove them."""

    def __init__(self, reader: QueueReader, sweep: Sweep | None) -> None:
        self.reader = reader
        self.before = sweep
        self.sweep = sweep
        self.tasks: list[Task] = []
        self.rewrite = False
        self.filler = 0
        self._next: Task | None = None
        """What `peek` has found."""
        self._gone: list[_Gone] = []
        self._back = (reader.pos, reader.line)

    def peek(self, fd: int) -> Task | None:
        """The next task. Raises BadInput, OSError."""
        if self._next is None:
            if self.sweep is not None:
                self._next = self.sweep.pieces[0].task
            elif (head := self.reader.head(fd)) is not None:
                self._next = head.entry.first()
        return self._next

    def take(self, fd: int) -> None:
        """Plan to consume the task that `peek` gives."""
        task = self.peek(fd)
        assert task is not None, "take without a task to take"
        self.tasks.append(task)
        self._next = None
        if self.sweep is None:
            head = self.reader.head(fd)
            assert head is not None
            self.reader.advance(head.end, head.line + head.text.count(b"\n"))
            if head.entry.size == 1:
                self._leave(head.start, head.end, head.text, head)
                return
            layout = Layout(head.indent, filler.newline_of(head.text))
            piece = Piece(head.entry, layout, at=head.start, size=head.end - head.start)
            self.sweep = Sweep(head.start, head.end, (piece,), head.text, head)
            self.before = self.sweep
        first, *others = self.sweep.pieces
        pieces = (*first.after_first(), *others)
        if pieces:
            self.sweep = replace(self.sweep, pieces=pieces)
        else:
            assert self.before is not None
            self.filler += self.before.begin - self.sweep.start
            self._leave(self.before.begin, self.sweep.end, self.sweep.text, self.sweep.head)
            self.sweep = None

    def undo(self) -> None:
        """Forget what was planned: nothing has been changed."""
        self._next = None
        if self.reader.reads_flow:
            self.reader.reset()
        else:
            self.reader.advance(*self._back)

    def _leave(self, start: int, end: int, text: bytes | None, head: Head | None) -> None:
        self.filler += end - start
        if head is not None and head.outer is not None:
            start, end = head.outer
            self._gone = [g for g in self._gone if not start <= g.start < end]
            self._gone.append(_Gone(start, end, None))
        else:
            self._gone.append(_Gone(start, end, text, head is not None and head.flow))

    # --- edits

    def edits(self, fd: int, size: int, stamp: str) -> tuple[Edit, ...]:
        """What replaces what, in the order of offsets. Afterwards `rewrite` says how. Raises Changed, OSError."""
        edits = None
        if self.reader.filler <= max(COMPACT, size - self.reader.pos):
            edits = self._in_place(fd, stamp)
        self.rewrite = edits is None
        return tuple(self._as_new(fd) if edits is None else edits)

    def _in_place(self, fd: int, stamp: str) -> list[Edit] | None:
        changes = []
        for gone in self._merged():
            if gone.end - gone.start > IN_PLACE:
                return None
            old = gone.text
            if old is None:
                old = disk.read_range(fd, gone.start, gone.end)
            new = filler.blank(old) if gone.flow else filler.fill(len(old), filler.newline_of(old))
            changes.append((gone.start, old, new))
        if self.sweep is not None and self.sweep is not self.before:
            pieces = self._pieces_in_place(fd)
            if pieces is None:
                return None
            changes += pieces
        if sum(len(old) for _, old, _ in changes) > IN_PLACE:
            return None
        for i in reversed(range(len(changes))):
            # The last to be written that has room carries the stamp: where that is, all is.
            at, old, new = changes[i]
            if (marked := filler.stamped(new, stamp)) != new:
                changes[i] = (at, old, marked)
                break
        return [_edit(fd, at, old, new) for at, old, new in changes]

    def _merged(self) -> Iterator[_Gone]:
        last: _Gone | None = None
        for gone in self._gone:
            joined = last is not None and last.end == gone.start and not (last.flow or gone.flow)
            if last is not None and joined and last.text is not None and gone.text is not None:
                last = _Gone(last.start, gone.end, last.text + gone.text)
                continue
            if last is not None:
                yield last
            last = gone
        if last is not None:
            yield last

    def _pieces_in_place(self, fd: int) -> list[tuple[int, bytes, bytes]] | None:
        """What brings the sweep up to date in its own bytes; None if it does not fit."""
        assert self.sweep is not None and self.before is not None
        sweep = self.sweep
        if sweep.head is not None and sweep.head.flow:
            return None
        count = next((i for i, p in enumerate(sweep.pieces) if p.can_stay), len(sweep.pieces))
        fresh = [p.written() for p in sweep.pieces[:count]]
        staying = sweep.pieces[count:]
        border = sweep.end
        changes = []
        if staying:
            assert staying[0].at is not None
            border = staying[0].at
            changes = [(border + at, old, filler.blank(old)) for at, old in staying[0].erase]
            staying = (staying[0].placed(border), *staying[1:])
        text = b"".join(t for t, _ in fresh)
        room = border - sweep.start - len(text)
        if room < 0 or 0 < room < filler.LEAST or border - sweep.start > IN_PLACE:
            return None
        if fresh or border != self.before.begin:
            old = sweep.text or disk.read_range(fd, sweep.start, border)
            changes.insert(0, (sweep.start, old, filler.fill(room, sweep.pieces[0].layout.newline) + text))
        self.sweep = Sweep(sweep.start, sweep.end, (*_placed(fresh, sweep.start + room), *staying))
        return changes

    def _as_new(self, fd: int) -> Iterator[Edit]:
        for gone in self._gone:
            old = disk.read_range(fd, gone.start, gone.end)
            if gone.text is not None and old != gone.text:
                raise Changed
            yield _edit_of_rewrite(gone.start, old, b"")
        if self.sweep is None or self.before is None or self.sweep is self.before:
            return
        sweep, start = self.sweep, self.before.begin
        old = disk.read_range(fd, start, sweep.end)
        if sweep.text is not None and old != sweep.text:
            raise Changed
        if sweep.head is not None and sweep.head.flow:
            text = b"".join(dump_flow(p.rest()).encode() + b", " for p in sweep.pieces)
        else:
            fresh = [p.written() for p in sweep.pieces]
            text = b"".join(t for t, _ in fresh)
            self.sweep = Sweep(start, sweep.end, _placed(fresh, start))
        yield _edit_of_rewrite(start, old, text)

    @property
    def is_flow(self) -> bool:
        return self.reader.reads_flow

    def moved_sweep(self, start: int, end: int) -> Sweep | None:
        """The sweep when the file was rewritten and its text is the bytes `start` to `end` now."""
        if self.sweep is None:
            return None
        moved = start - self.sweep.begin
        pieces = tuple(p.placed((p.at or 0) + moved) for p in self.sweep.pieces)
        return Sweep(start, end, pieces)


def _placed(fresh: list[tuple[bytes, Piece]], at: int) -> tuple[Piece, ...]:
    placed = []
    for text, piece in fresh:
        placed.append(piece.placed(at))
        at += len(text)
    return tuple(placed)


def _edit(fd: int, at: int, old: bytes, new: bytes) -> Edit:
    start = max(0, at - _AROUND)
    there = disk.read_range(fd, start, at + len(old) + _AROUND)
    end = at - start + len(old)
    if there[at - start : end] != old:
        raise Changed
    return Edit(at, len(old), new, there[: at - start], there[end:], old)


def _edit_of_rewrite(at: int, old: bytes, new: bytes) -> Edit:
    return Edit(at, len(old), new, digest=bytes_digest(old))


def rewritten(fd: int, edits: tuple[Edit, ...], stamp: str) -> tuple[bytes, int]:
    """The new file up to the end of the last edit, and the offset in the old one from which on the rest stays as it is.

    Filler is left out; a line with `stamp` says that the pop was applied.
    """
    start = disk.read_range(fd, 0, edits[0].offset)
    bom = start[:3] if start.startswith(b"\xef\xbb\xbf") else b""
    parts = [bom, filler.stamp_line(stamp), filler.strip(start[len(bom) :])]
    done = edits[0].offset
    for edit in edits:
        parts += [disk.read_range(fd, done, edit.offset), edit.new]
        done = edit.offset + edit.size
    return b"".join(parts), done
