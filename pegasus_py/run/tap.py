"""The output of one attempt, from the node's spool into its log file and onto the screen.

A short job's output comes with its exit frame. Once a job has run for a moment its output is followed on a channel
of its own. What the log holds is what the controller has: after any interruption exactly the rest is asked for, so
no byte is lost or repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Protocol

from pegasus_py.core.events import Event, Note, Output
from pegasus_py.core.model import Attempt
from pegasus_py.errors import NodeError, StorageError
from pegasus_py.node.session import Follow, NodeSession

FOLLOW_AFTER = 0.15
"""Seconds after which a job's output is followed; most short jobs end before and cost no channel."""
READ_BLOCK = 1 << 20
STALL = 10.0
"""Seconds without progress after which a followed output is asked for in blocks instead."""


class AttemptLog(Protocol):
    """Where an attempt's output goes; `size` is what it holds, in bytes."""

    size: int

    def write(self, data: bytes) -> None: ...
    def close(self) -> None: ...


class Tap:
    """Takes in the output of one attempt on one sub-node until it is whole.

    What `log` cannot take (a full disk) stays on the node; `broken` says so.
    """

    def __init__(self, attempt: Attempt, log: AttemptLog, tell: Callable[[Event], None]) -> None:
        self.attempt = attempt
        self.broken: str | None = None
        """Why the log could not take the output; the spool on the node keeps it then."""
        self._log = log
        self._tell = tell
        self._held = log.size
        self._follow: Follow | None = None
        self._opening: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._progress = asyncio.Event()

    def watch(self, session: NodeSession) -> None:
        """Follow the output if the job is still running in a moment."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(FOLLOW_AFTER, self._open_follow, session)

    def _open_follow(self, session: NodeSession) -> None:
        self._timer = None
        self._opening = asyncio.get_running_loop().create_task(self._open(session))

    async def _open(self, session: NodeSession) -> None:
        # A follow that cannot be opened now only delays the output: the rest is read when the job ends.
        with contextlib.suppress(NodeError):
            self._follow = await session.follow(self.attempt.id, self._held, self._take)

    def _take(self, data: bytes) -> None:
        self._held += len(data)
        self._progress.set()
        if self.broken is None:
            try:
                self._log.write(data)
            except StorageError as error:
                self.broken = str(error)
                self._tell(Note(f"{error}; the rest of the output stays on the node", warning=True))
        self._tell(Output(self.attempt, data))

    def complete_now(self, size: int, inline: bytes | None) -> bool:
        """Complete the output with what came in the exit frame, if that is enough."""
        if self._held >= size and not self._opening:
            self.close()
            return True
        if inline is None or self._opening is not None:
            return False
        self._take(inline[self._held :])
        self.close()
        return True

    async def complete(self, session: NodeSession, size: int) -> None:
        """Return when all `size` bytes are here. Raises NodeError when the connection goes away before."""
        if self._opening is not None:
            await self._opening
        if self._follow is not None:
            with contextlib.suppress(TimeoutError):
                while self._held < size:
                    self._progress.clear()
                    async with asyncio.timeout(STALL):
                        await self._progress.wait()
            self._follow.close()
        while self._held < size:
            block = await session.read(self.attempt.id, self._held, min(READ_BLOCK, size - self._held))
            if not block:
                raise NodeError(
                    session.host, f"the output of {self.attempt.id} ends too early", transient=True
                )
            self._take(block)
        self.close()

    def close(self) -> None:
        """Stop taking in; what is in the log stays."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._opening is not None and not self._opening.done():
            self._opening.cancel()
        if self._follow is not None:
            self._follow.close()
            self._follow = None
        self._log.close()
