"""What a run prints while it goes on: the output of jobs on stdout, line by line behind the name of their sub-node;
what happens to jobs, nodes and the queue on stderr.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import BinaryIO

from pegasus_py.core.events import (
    Dropped,
    Ended,
    Event,
    NodeDown,
    NodeSetAside,
    NodeUp,
    Note,
    Output,
    QueueBad,
    QueueMended,
    Started,
    Stopping,
)
from pegasus_py.core.model import JobState
from pegasus_py.show import words
from pegasus_py.show.lines import Lines
from pegasus_py.show.outlet import Data, Outlet, Part
from pegasus_py.show.terminal import RESET, cells, clean, clean_text, fit, plain, wrap, wrap_words

OUT, ERR = 0, 1
FULL = 2 * 1024 * 1024
"""Bytes that are collected before they are handed on without a `flush`."""
WORTH_TELLING = 1.0
"""Seconds after which a job's success gets a line; the next job's start line tells it for shorter ones."""
NARROWEST = 20
"""Columns that must be left beside the prefix for lines to be wrapped by us and not by the terminal."""

_NODE_COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
_DIM, _RED, _YELLOW = 2, 31, 33
_ERASE = b"\r\x1b[K"


class Console:
    """A subscriber that prints. Nothing that it does fails: a stream that is closed is silent from then on.

    `width` is the columns of the terminal, None for a pipe: there lines are never wrapped nor cut. Jobs' output
    keeps its colours only with `colour`. Both hold for those of `out` and `err` that are `terminals`. `names` are
    the sub-nodes, for colours and aligned prefixes. `quiet` leaves out the lines about starts and successes. `live`
    (a terminal that can erase a line) shows the progress bar that moved last on the bottom line.

    Call `flush` after each batch of events; `handle` only collects up to some size. With `thread` neither blocks,
    and `backlog` tells how many bytes wait for the reader: pause reading output above a few megabytes.
    """

    def __init__(
        self,
        out: BinaryIO | None,
        err: BinaryIO | None,
        *,
        colour: bool,
        width: int | None,
        names: Sequence[str],
        quiet: bool = False,
        terminals: tuple[bool, bool] = (True, True),
        live: bool = False,
        thread: bool = False,
        measure: Callable[[], int] | None = None,
    ) -> None:
        self._outlet = Outlet(out, err, thread=thread)
        self._colour = (colour and terminals[OUT], colour and terminals[ERR])
        self._terminals = terminals
        self._set_width(width)
        self._measure = measure
        self._quiet = quiet
        self._live = live
        self._parts: list[Part] = []
        self._size = 0
        self._lines: dict[tuple[int, int], tuple[str, Lines]] = {}
        self._prefixes: dict[tuple[int, str], bytes] = {}
        self._order = {name: at for at, name in enumerate(names)}
        self._pad = min(max((cells(plain(name)) for name in names), default=0), 24)
        self._down: dict[str, str] = {}
        self._bar: tuple[str, Lines] | None = None
        self._drawn = b""

    @property
    def backlog(self) -> int:
        """Bytes that wait because a terminal or a pipe does not take them."""
        return self._outlet.backlog

    @property
    def written(self) -> int:
        """Bytes that were taken so far: while they grow, somebody reads."""
        return self._outlet.written

    def handle(self, event: Event) -> None:
        """Take an event; what it prints goes out with the next `flush` at the latest."""
        self._begin()
        match event:
            case Output():
                self._output(event)
            case Started():
                if not self._quiet:
                    name = event.attempt.subnode
                    self._say(words.command_line(event.attempt, event.recovered), name, _DIM, cut=True)
            case Ended():
                self._ended(event)
            case NodeUp():
                self._down.pop(event.subnode.name, None)
                if event.again:
                    self._say("connected again", event.subnode.name)
            case NodeDown():
                self._node_down(event)
            case NodeSetAside():
                told = f"set aside: {plain(event.reason)}"
                self._say(told, event.subnode.name, _RED)
            case QueueBad():
                self._say(f"pegasus: {plain(event.error)}", colour=_RED)
            case QueueMended():
                self._say("pegasus: the queue file can be read again")
            case Stopping():
                if self._width[ERR] is not None:
                    # Over the ^C that the terminal has put there.
                    self._put(ERR, b"\r")
                self._say(_stopping(event), colour=_YELLOW)
            case Dropped():
                reason = f": {plain(event.reason)}" if event.reason else ""
                warning = "warning: " if reason else ""
                text = f"pegasus: {warning}job {event.job.id} is cancelled{reason}"
                self._say(text, colour=_YELLOW if reason else None)
            case Note():
                warning = "warning: " if event.warning else ""
                self._say(f"pegasus: {warning}{plain(event.text)}", colour=_YELLOW if event.warning else None)

    def report(self, render: Callable[[int | None, bool], str], *, err: bool = True) -> None:
        """Print a finished text after all that came before: `render(width, colour)` as the stream can show it.

        The text must be clean and end with a newline, as `Summary.render` makes it.
        """
        self._begin()
        stream = ERR if err else OUT
        self._put(stream, render(self._width[stream], self._colour[stream]).encode())

    def flush(self) -> None:
        """Hand on all complete lines, and draw the bar that moved last."""
        self._begin()
        if self._live:
            self._draw()
        if self._parts:
            parts, self._parts, self._size = self._parts, [], 0
            self._outlet.send(parts)

    def close(self, timeout: float | None = None) -> None:
        """Print the lines that were begun, and wait (at most `timeout` seconds) until all is written."""
        for name, lines in self._lines.values():
            self._print(name, lines.end())
        self._lines.clear()
        self._bar = None
        self.flush()
        self._outlet.close(timeout)

    def _begin(self) -> None:
        """Before the first of what goes out together: the window may have been resized."""
        if self._measure is not None and not self._parts:
            self._set_width(self._measure())

    def _set_width(self, width: int | None) -> None:
        self._width = (width if self._terminals[OUT] else None, width if self._terminals[ERR] else None)

    def _output(self, event: Output) -> None:
        if not self._outlet.open(OUT):
            return
        attempt = event.attempt
        key = (attempt.job.id, attempt.number)
        name, lines = self._lines.get(key) or (attempt.subnode, Lines())
        self._print(name, lines.feed(*event.pieces))
        if lines.tail:
            self._lines[key] = (name, lines)
            if lines.bar:
                self._bar = (name, lines)
        else:
            self._lines.pop(key, None)

    def _ended(self, event: Ended) -> None:
        attempt, end = event.attempt, event.end
        if found := self._lines.pop((attempt.job.id, attempt.number), None):
            self._print(attempt.subnode, found[1].end())
        if end.state is not JobState.SUCCEEDED:
            self._say(words.end_line(attempt, end, event.log, event.retry_in), attempt.subnode, _RED)
        elif not self._quiet and (end.duration or 0) >= WORTH_TELLING:
            self._say(words.end_line(attempt, end, event.log, event.retry_in), attempt.subnode, _DIM)
        if end.survivors:
            self._say(words.survivors_line(attempt, end.survivors), attempt.subnode, _YELLOW)

    def _node_down(self, event: NodeDown) -> None:
        name, reason = event.subnode.name, plain(event.reason)
        final = event.retry_in is None
        # Each retry fails again: once is enough for each reason.
        if not event.was_up and not final and self._down.get(name) == reason:
            return
        self._down[name] = reason
        what = "connection lost" if event.was_up else "cannot be reached"
        after = "; not tried again in this run" if final else "; trying again"
        self._say(f"{what}: {reason}{after}", name, _RED if final else _YELLOW)

    def _print(self, name: str, block: bytes) -> None:
        """Put complete lines of a job's output on stdout."""
        if not block:
            return
        block = clean(block, self._colour[OUT])
        prefix = self._prefix(OUT, name)
        room = self._room(OUT, name)
        if room is not None:
            block = _wrapped(block, room)
        # The last newline gets a prefix too much, and the first line none: that comes as a piece of its own, which
        # spares a copy of what may be megabytes.
        self._put(OUT, prefix, memoryview(block.replace(b"\n", b"\n" + prefix))[: -len(prefix)])

    def _say(self, text: str, name: str = "", colour: int | None = None, *, cut: bool = False) -> None:
        """Put one line on stderr; where it would take two on a terminal, `cut` it or begin each with the name."""
        pieces = [text]
        if (room := self._room(ERR, name)) is not None:
            pieces = [fit(text, room)] if cut else wrap_words(text, room)
        prefix = self._prefix(ERR, name) if name else b""
        for piece in pieces:
            shown = f"\x1b[{colour}m{piece}{RESET}" if colour and self._colour[ERR] else piece
            self._put(ERR, prefix + shown.encode() + b"\n")

    def _put(self, stream: int, *pieces: Data) -> None:
        if self._drawn:
            self._parts.append((OUT, (_ERASE,)))
            self._drawn = b""
        self._parts.append((stream, pieces))
        self._size += sum(map(len, pieces))
        if self._size > FULL:
            self.flush()

    def _draw(self) -> None:
        bar = self._bar
        line = b""
        if bar and bar[1].tail and (room := self._room(OUT, bar[0])) is not None:
            last = bytes(bar[1].tail).rstrip(b"\r").rpartition(b"\r")[2].decode("utf-8", "replace")
            # One column stays free: a full line would leave the cursor on the next.
            line = self._prefix(OUT, bar[0]) + fit(clean_text(last).expandtabs(), room - 1).encode()
        if line != self._drawn:
            self._parts.append((OUT, ((_ERASE if self._drawn else b"") + line,)))
            self._drawn = line

    def _room(self, stream: int, name: str) -> int | None:
        width = self._width[stream]
        if width is None:
            return None
        room = width - (max(cells(plain(name)), self._pad) + 3 if name else 0)
        return room if room >= NARROWEST else None

    def _prefix(self, stream: int, name: str) -> bytes:
        made = self._prefixes.get((stream, name))
        if made is None:
            shown = plain(name)
            text = f"[{shown}]"
            if self._colour[stream]:
                at = self._order.setdefault(name, len(self._order))
                text = f"\x1b[{_NODE_COLOURS[at % len(_NODE_COLOURS)]}m{text}{RESET}"
            pad = self._pad - cells(shown) if self._width[stream] is not None else 0
            made = self._prefixes[stream, name] = (text + " " * (max(pad, 0) + 1)).encode()
        return made


def _wrapped(block: bytes, room: int) -> bytes:
    """Clean lines, with tabs made blanks and those that are too wide for `room` columns divided."""
    if b"\t" in block:
        block = block.expandtabs()
    # No character takes more columns than bytes.
    if max(map(len, block.split(b"\n"))) <= room:
        return block
    lines = block.decode()[:-1].split("\n")
    return ("\n".join(piece for line in lines for piece in wrap(line, room)) + "\n").encode()


def _stopping(event: Stopping) -> str:
    if not event.running:
        return "pegasus: stopping; no command is running"
    commands = words.counted(event.running, "running command")
    if event.now:
        return f"pegasus: stopping now; ending {commands}"
    return f"pegasus: stopping; nothing new starts, waiting for {commands}; Ctrl-C again ends what runs"
