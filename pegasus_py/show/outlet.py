"""Standard output and standard error as one ordered way out that never holds up the run.

A terminal that is paused or a pipe whose reader sleeps blocks the writer; so a thread of its own writes. It has a
bound: see `Outlet.backlog`.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import threading
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import BinaryIO

PIECE = 64 * 1024
"""Bytes that are written at once where somebody reads them."""
MOST = 64 * 1024 * 1024
"""Bytes that wait at most; what comes when they do is left out, and it is said how much."""

AT_ONCE = 1024 * 1024
"""Bytes that are taken for writing together, about, and that go into a file at once."""

Data = bytes | memoryview
Part = tuple[int, tuple[Data, ...]]
"""A stream (0: out, 1: err), and pieces for it that are written one after the other, or left out together."""

_GONE = (errno.EPIPE, errno.EIO, errno.EBADF, errno.ENXIO, errno.ECONNRESET)
"""Nobody reads any more: no reason for a message."""


class Outlet:
    """Writes parts to `out` and `err` in the order given. A stream that fails is silent from then on.

    With `thread` a thread writes and `send` never blocks; without, `send` writes. `backlog` is the number of bytes
    that wait: whoever reads the jobs' output should read on only while it is a few megabytes.
    """

    def __init__(self, out: BinaryIO | None, err: BinaryIO | None, *, thread: bool) -> None:
        self._streams = [out, err]
        self._pieces = (_piece(out), _piece(err))
        self._parts: deque[Part] = deque()
        self._change = threading.Condition()
        self._closing = False
        self._dropped = 0
        self.backlog = 0
        self.written = 0
        """Bytes that were taken so far: while they grow, somebody reads."""
        self._thread: threading.Thread | None = None
        if thread:
            self._thread = threading.Thread(target=self._work, name="pegasus-console", daemon=True)
            self._thread.start()

    def open(self, stream: int) -> bool:
        """Whether `stream` (0: out, 1: err) still takes something."""
        return self._streams[stream] is not None

    def send(self, parts: Iterable[Part]) -> None:
        """Write each part to its stream; small neighbours for the same stream go in one write."""
        ready = _joined(parts)
        if self._thread is None:
            for stream, pieces in ready:
                for data in pieces:
                    self._write(stream, data)
            return
        with self._change:
            for stream, pieces in ready:
                self._enqueue(stream, pieces)
            self._change.notify_all()

    def close(self, timeout: float | None = None) -> None:
        """Wait until all is written, or nobody reads any more, or `timeout` seconds have passed."""
        if self._thread is None:
            return
        with self._change:
            self._closing = True
            self._change.notify_all()
        self._thread.join(timeout)

    def _enqueue(self, stream: int, pieces: tuple[Data, ...]) -> None:
        size = _size(pieces)
        if self.backlog + size > MOST:
            self._dropped += size
            return
        if self._dropped:
            told = _left_out(self._dropped)
            self._parts.append((1, (told,)))
            self.backlog += len(told)
            self._dropped = 0
        self._parts.append((stream, pieces))
        self.backlog += size

    def _work(self) -> None:
        while True:
            with self._change:
                while not self._parts and not self._closing:
                    self._change.wait()
                if not self._parts:
                    break
                parts = self._some()
            for stream, pieces in _joined(parts):
                for data in pieces:
                    self._write(stream, data)
                    with self._change:
                        self.backlog -= len(data)
        if self._dropped:
            self._write(1, _left_out(self._dropped))

    def _some(self) -> list[Part]:
        """The next parts, not all at once: joining them takes their size in memory again."""
        parts, size = [], 0
        while self._parts and size < AT_ONCE:
            parts.append(self._parts.popleft())
            size += _size(parts[-1][1])
        return parts

    def _write(self, stream: int, data: Data) -> None:
        target = self._streams[stream]
        if target is None:
            return
        view = memoryview(data)
        try:
            while view:
                # A raw stream may take a part, or nothing when someone made the terminal non-blocking. In pieces, so
                # that `written` tells a slow reader from none.
                taken: int | None = target.write(view[: self._pieces[stream]])
                if taken is None:
                    select.select([], [target], [], 1)
                else:
                    view = view[taken:]
                    self.written += taken
            target.flush()
        except (OSError, ValueError) as error:
            self._streams[stream] = None
            if stream == 0 and isinstance(error, OSError) and error.errno not in _GONE:
                why = os.strerror(error.errno) if error.errno else str(error)
                told = f"pegasus: standard output: {why}; the output of jobs is in their log files only\n"
                self._write(1, told.encode())


def _piece(stream: BinaryIO | None) -> int:
    """Bytes for one write: as many as there are where nobody reads who may be slow, a file or a null device."""
    with suppress(OSError, ValueError):
        if stream is not None:
            kind = os.fstat(stream.fileno()).st_mode
            if stat.S_ISREG(kind) or (stat.S_ISCHR(kind) and not stream.isatty()):
                return AT_ONCE
    return PIECE


def _joined(parts: Iterable[Part]) -> list[Part]:
    """Neighbours for the same stream as one, but for those so large that copying them costs more than a write."""
    groups: list[tuple[int, list[Data]]] = []
    size = 0
    for stream, pieces in parts:
        more = _size(pieces)
        if groups and groups[-1][0] == stream and size + more <= PIECE:
            groups[-1][1].extend(pieces)
            size += more
        else:
            groups.append((stream, list(pieces)))
            size = more
    return [
        (stream, (b"".join(group),) if len(group) > 1 and _size(group) <= PIECE else tuple(group))
        for stream, group in groups
    ]


def _size(pieces: Iterable[Data]) -> int:
    return sum(map(len, pieces))


def _left_out(size: int) -> bytes:
    return (
        f"pegasus: {size:,} bytes of output are not shown, for nobody read them in time; "
        "the log files have them\n"
    ).encode()
