"""Where the head of a queue file is: reads on from a known offset, in small pieces, and never the whole file.

Everything before the head is comments, blank lines and filler, for entries are consumed from the top.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from msgspec import Struct

from pegasus_py.core.entries import Entry, parse_entry
from pegasus_py.core.yamltext import Cut, Item, items, load_item, plain_item
from pegasus_py.errors import Place
from pegasus_py.store import disk, filler

CHUNK = 1 << 16
_FIRST_TRY = 1 << 10
_BETWEEN = re.compile(rb"(?:[ \t\r]*(?:#[^\n]*)?\n)*+")
_BOM = b"\xef\xbb\xbf"


class Head(Struct, frozen=True, gc=False):
    """The first entry: the bytes `start` to `end` of the file, which are `text`.

    `flow`: it is an item of a list in brackets, and `outer` the lines of that list if it is the last one in it.
    """

    entry: Entry
    start: int
    end: int
    text: bytes
    line: int
    indent: int = 0
    flow: bool = False
    outer: tuple[int, int] | None = None


class QueueReader:
    """Keeps its place between holds of the lock; `reset` when the file may have changed.

    `pos` and `line` are where the next head is looked for; `filler` counts bytes of filler before that.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.reset()

    def reset(self, pos: int = 0, line: int = 1, filler_bytes: int = 0) -> None:
        self.pos, self.line, self.filler = pos, line, filler_bytes
        self._buffer, self._offset, self._is_end = b"", pos, False
        self._head: Head | None = None
        self._flow: Iterator[Item] | None = None

    @property
    def reads_flow(self) -> bool:
        """Whether the queue is a list in brackets, for which the reader cannot go back."""
        return self._flow is not None

    def head(self, fd: int) -> Head | None:
        """The entry at `pos`, or None if there is none. Raises BadInput, OSError."""
        if self._head is None:
            self._head = self._next_flow(fd) if self._flow is not None else self._next(fd)
        return self._head

    def advance(self, pos: int, line: int) -> None:
        """Go on from `pos` the next time."""
        self.pos, self.line, self._head = pos, line, None

    def _next(self, fd: int) -> Head | None:
        if self.pos == 0 and os.pread(fd, len(_BOM), 0) == _BOM:
            self.pos = len(_BOM)
        self._skip(fd)
        while True:
            found = plain_item(self._buffer, self.pos - self._offset, final=self._is_end)
            if found is not None:
                end = self._offset + found[1]
                entry = Entry((found[0],), place=Place(self.name, self.line, found[2]))
                return Head(entry, self.pos, end, self._text(self.pos, end), self.line)
            # It may be that only the line after it is missing in the buffer.
            if self._is_end or len(self._buffer) - (self.pos - self._offset) > CHUNK // 2:
                return self._parsed(fd)
            self._fill(fd, CHUNK)

    def _parsed(self, fd: int) -> Head | None:
        size = _FIRST_TRY
        while True:
            begin = self.pos - self._offset
            if len(self._buffer) - begin < size and not self._is_end:
                self._fill(fd, max(size, CHUNK))
                begin = 0
            piece = self._buffer[begin : begin + size]
            final = self._is_end and begin + size >= len(self._buffer)
            try:
                item = load_item(piece, self.name, offset=self.pos, line=self.line, final=final)
            except Cut:
                size *= 4
                continue
            if item is None:
                return None
            if item.flow:
                # Items between brackets cannot be read from the middle; the list is read once, as a whole.
                data = disk.read_range(fd, 0, os.fstat(fd).st_size)
                self._buffer, self._offset, self._is_end = data, 0, True
                self._flow = items(data, self.name)
                return self._next_flow(fd)
            return self._as_head(item)

    def _next_flow(self, fd: int) -> Head | None:
        assert self._flow is not None
        item = next(self._flow, None)
        return None if item is None else self._as_head(item)

    def _as_head(self, item: Item) -> Head:
        entry = parse_entry(item.node, self.name)
        text = self._text(item.start, item.end)
        return Head(entry, item.start, item.end, text, item.line, item.indent, item.flow, item.outer)

    def _text(self, start: int, end: int) -> bytes:
        return self._buffer[start - self._offset : end - self._offset]

    def _fill(self, fd: int, size: int) -> None:
        """Have at least `size` bytes from `pos` on in the buffer, or all that there are."""
        self._buffer = disk.read_range(fd, self.pos, self.pos + size)
        self._offset = self.pos
        self._is_end = len(self._buffer) < size

    def _skip(self, fd: int) -> None:
        """Pass comments, blank lines and filler."""
        while True:
            begin = self.pos - self._offset
            found = _BETWEEN.match(self._buffer, begin) if 0 <= begin <= len(self._buffer) else None
            if found is not None and found.end() > begin:
                passed = found[0]
                self.line += passed.count(b"\n")
                self.filler += len(passed) - len(filler.strip(passed))
                self.pos += len(passed)
                begin = self.pos - self._offset
            if found is not None and (self._is_end or self._buffer.find(b"\n", begin) >= 0):
                return
            if found is not None and begin == 0 and len(self._buffer) >= CHUNK:
                # One line fills the whole buffer: an entry, or a comment that the parser may pass.
                return
            self._fill(fd, CHUNK)
