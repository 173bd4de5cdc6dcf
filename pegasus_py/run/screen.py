"""The subscribers of one run that print."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from pegasus_py.core.events import Event
from pegasus_py.show.console import Console
from pegasus_py.show.stdio import make_console
from pegasus_py.show.summary import Summary

SHOWN_WITHIN = 0.02
"""Seconds for which lines are collected: each hand-over to the thread that writes costs a switch to it."""
PATIENCE = 30.0
"""Seconds without a byte taken after which nobody seems to read: a paused terminal, a pipe to a sleeping program."""


class Screen:
    """Console and summary. Events are shown a moment later, together."""

    def __init__(self, names: list[str], *, json: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self.console: Console = make_console(names, out_to_err=json)
        self.summary = Summary()
        self._dirty = False
        self._clock = clock
        self._written = -1
        self._since = 0.0

    def tell(self, event: Event) -> None:
        self.console.handle(event)
        self.summary.handle(event)
        if not self._dirty:
            self._dirty = True
            asyncio.get_running_loop().call_later(SHOWN_WITHIN, self._flush)

    def _flush(self) -> None:
        self._dirty = False
        self.console.flush()

    def backlog(self) -> int:
        """Bytes for which whoever sends more should wait: none while nobody reads, for that must not hold up the run.

        What is then too much for the console's memory is left out, and it says so; the logs have it.
        """
        now, written = self._clock(), self.console.written
        if written != self._written:
            self._written, self._since = written, now
        return self.console.backlog if now - self._since < PATIENCE else 0
