"""Looks at the queue file beside the turns: has it changed, is what blocked it over, has it to be flushed?"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

from pegasus_py.core.moves import QueueView
from pegasus_py.errors import PegasusError
from pegasus_py.store.filewatch import FileWatch
from pegasus_py.store.queuefile import QueueFile

WATCH_EVERY = 0.18
"""Seconds between looks at the queue file,"""
QUIET_AFTER = 2.0
"""and seconds without work after which, on a local disk, the system is to tell of a change;"""
WATCH_RARELY = 1.0
"""then seconds between looks all the same,"""
SETTLE = 0.1
"""and seconds for whoever has begun to write to come to the end of it."""


class QueueWatch:
    """`view` says what the run knows of the queue; `look` is called when it may be out of date.

    `may_go_on`: whether what blocks the queue may be over. `flush` is called when pops are to be flushed.
    """

    def __init__(
        self,
        queue: QueueFile,
        *,
        view: Callable[[], QueueView],
        look: Callable[[], None],
        may_go_on: Callable[[], bool],
        flush: Callable[[], Awaitable[None]],
    ) -> None:
        self._queue = queue
        self._view = view
        self._look = look
        self._may_go_on = may_go_on
        self._flush = flush

    async def run(self) -> None:
        """Until it is cancelled."""
        can_be_told, quiet_since = self._queue.is_local, time.monotonic()
        while True:
            if can_be_told and not self._is_quiet():
                quiet_since = time.monotonic()
            if can_be_told and time.monotonic() - quiet_since > QUIET_AFTER:
                can_be_told = await self._wait_until_loud()
            else:
                await asyncio.sleep(WATCH_EVERY)
            if self._queue.is_flush_due:
                await self._flush()
            view = self._view()
            if view is QueueView.BLOCKED:
                if self._may_go_on():
                    self._look()
            elif view is QueueView.EMPTY and self.has_changed():
                self._look()

    def has_changed(self) -> bool:
        """Whether the file is another than was last seen; also if it cannot be read."""
        try:
            return self._queue.changed()
        except PegasusError:
            return True  # the next take says what is wrong

    def _is_quiet(self) -> bool:
        """Whether there is nothing to be waited for but a change of the queue file."""
        return self._view() is QueueView.EMPTY and self._queue.is_flushed and not self.has_changed()

    async def _wait_until_loud(self) -> bool:
        """Until there is something to look at. False if the system cannot tell of a change.

        A look costs 0.1 to 0.5 ms of CPU, for a process that has slept finds nothing in the caches.
        """
        loop, told = asyncio.get_running_loop(), asyncio.Event()
        try:
            watch = FileWatch(self._queue.real)
        except OSError:
            return False
        with watch:
            loop.add_reader(watch, told.set)
            try:
                # First of all: what has changed before the watch began.
                while not told.is_set() and self._is_quiet():
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(WATCH_RARELY):
                            await told.wait()
            finally:
                loop.remove_reader(watch)
        await asyncio.sleep(SETTLE)
        return True
