"""The bytes of one attempt's output, in whatever pieces they come, as complete lines in bounded memory."""

from __future__ import annotations

LIMIT = 64 * 1024
"""Bytes of a line that are kept while its end is awaited; a longer line is shown in pieces of at most this."""

CUT = b" [...]\n"
"""What stands at the end of a piece whose line goes on in the next one."""


class Lines:
    """Collects the output of one attempt. What comes out does not depend on how the bytes were divided.

    Of a line with carriage returns, the text after the last one counts, so a progress bar is one line: its last
    state. `tail` is the line that has not ended yet; `bar` tells that it has been overwritten at least once.
    """

    __slots__ = ("bar", "tail")

    def __init__(self) -> None:
        self.tail = bytearray()
        self.bar = False

    def feed(self, *pieces: bytes) -> bytes:
        """The lines that are complete now, each with its newline."""
        *before, data = pieces
        end = data.rfind(b"\n") + 1
        if not end and before:
            before, data = [], b"".join(pieces)
            end = data.rfind(b"\n") + 1
        if not end:
            return self._begin(data)
        head = data
        if before or self.tail or end < len(data):
            # One copy of what may be much.
            head = b"".join((self.tail, *before, memoryview(data)[:end]))
            self.tail = bytearray()
        self.bar = False
        done = _whole(head)
        if end == len(data):
            return done
        more = self._begin(data[end:])
        return done + more if more else done

    def end(self) -> bytes:
        """The last line, if it was not terminated and is not a bar that was blanked out."""
        tail, self.tail = bytes(self.tail), bytearray()
        line = _whole(tail + b"\n") if tail else b""
        return b"" if self.bar and line.isspace() else line

    def _begin(self, data: bytes) -> bytes:
        tail = self.tail
        returns = b"\r" in data
        if not returns and len(tail) + len(data) <= LIMIT:
            tail += data
            return b""
        self.bar = self.bar or returns
        pieces, rest = _pieces(bytes(tail) + data)
        self.tail = bytearray(rest)
        return b"".join(pieces)


def _whole(block: bytes) -> bytes:
    """Complete lines, without carriage returns and with those above the limit cut."""
    if b"\r" in block:
        block = block.replace(b"\r\n", b"\n")
    if not (has_long := _has_long_line(block)) and b"\r" not in block:
        return block
    lines = block[:-1].split(b"\n")
    if not has_long:
        return b"\n".join([line.rstrip(b"\r").rpartition(b"\r")[2] for line in lines]) + b"\n"
    done: list[bytes] = []
    for line in lines:
        pieces, rest = _pieces(line)
        done += pieces
        done += (rest.rstrip(b"\r"), b"\n")
    return b"".join(done)


def _has_long_line(block: bytes) -> bool:
    at, size = 0, len(block)
    while size - at > LIMIT + 1:
        at = block.rfind(b"\n", at, at + LIMIT + 1) + 1
        if not at:
            return True
    return False


def _pieces(line: bytes) -> tuple[list[bytes], bytes]:
    """The full pieces of a line without newline, each with the mark, and the rest that still counts."""
    text = line.rstrip(b"\r")
    pieces: list[bytes] = []
    rest = b""
    # Every overwritten state that was too long to wait for its end has been shown; so whether it came at once or
    # bit by bit makes no difference.
    for rest in text.split(b"\r") if len(text) > LIMIT else (text.rpartition(b"\r")[2],):
        at = 0
        while len(rest) - at > LIMIT:
            end = _border(rest, at + LIMIT)
            pieces += (rest[at:end], CUT)
            at = end
        rest = rest[at:]
    return pieces, rest + b"\r" if len(text) < len(line) else rest


def _border(line: bytes, at: int) -> int:
    """The last place up to `at` that does not divide a UTF-8 character."""
    for back in range(4):
        if line[at - back] & 0xC0 != 0x80:
            return at - back
    return at
