"""The output of one attempt, from the node's spool into its log file and onto the screen.

A short job's output comes with its exit frame. Once a job has run for a moment its output is followed on a channel
of its own. What the log holds is what the controller has: after any interruption exactly the rest is asked for, so
no byte is lost or repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from pegasus_py.core.events import Event, Note, Output
from pegasus_py.core.model import Attempt
from pegasus_py.errors import NodeError, QueueHeld, StorageError
from pegasus_py.node.session import Follow, NodeSession
from pegasus_py.run.later import Call, Later
from pegasus_py.store.logs import LogFiles

FOLLOW_AFTER = 0.15
"""Seconds after which a job's output is followed; most short jobs end before and cost no channel."""
READ_BLOCK = 1 << 20
MUCH = 8 << 20
"""Bytes from which on it pays to follow the output of a job that has ended, too, instead of asking for its blocks."""
BACKLOG = 8 << 20
"""Bytes waiting for the screen above which reading pauses."""
PAUSE = 0.05
STALL = 10.0
"""Seconds without progress after which a followed output is asked for in blocks instead."""


class Tap:
    """Takes in the output of one attempt on one sub-node until it is whole.

    `fresh`: the attempt has not started yet. `anew`: see `LogFiles.open`. `backlog` tells how many bytes wait for the
    screen: above a bound no more is read, and the job goes on all the same, into its spool. What the log cannot take
    (a full disk) stays on the node; `broken` says so.
    """

    def __init__(
        self,
        attempt: Attempt,
        logs: LogFiles,
        tell: Callable[[Event], None],
        backlog: Callable[[], int],
        *,
        fresh: bool,
        anew: bool = False,
    ) -> None:
        self.attempt = attempt
        self.broken = False
        self.is_completing = False
        """It has ended, and the rest of its output is being asked for."""
        self._logs = logs
        self._tell = tell
        self._backlog = backlog
        self._held = 0
        try:
            self._held = logs.open(attempt, fresh=fresh, anew=anew)
        except StorageError as error:
            self._break(error)
        self._follow: Follow | None = None
        self._opening: asyncio.Task[None] | None = None
        self._timer: Call | None = None
        self._progress: asyncio.Event | None = None
        """From the time when the rest is waited for."""
        self._closed = False
        self._resume: asyncio.TimerHandle | None = None

    def watch(self, session: NodeSession, later: Later) -> None:
        """Follow the output if the job is still running `later`."""
        self._timer = later.call(lambda: self._open_follow(session))

    def _open_follow(self, session: NodeSession) -> None:
        self._timer = None
        self._opening = asyncio.get_running_loop().create_task(self._open(session))

    async def _open(self, session: NodeSession) -> None:
        # A follow that cannot be opened now only delays the output: the rest is read when the job ends. A later
        # controller is noticed at the next question.
        with contextlib.suppress(NodeError, QueueHeld):
            self._follow = await session.follow(self.attempt.id, self._held, self._take)

    def _take(self, *pieces: bytes) -> None:
        if self._closed:
            return
        self._held += sum(map(len, pieces))
        if self._progress is not None:
            self._progress.set()
        if self._follow is not None and self._resume is None and self._backlog() > BACKLOG:
            self._follow.pause()
            self._resume = asyncio.get_running_loop().call_later(PAUSE, self._resume_follow)
        if not self.broken:
            try:
                self._logs.write(self.attempt, *pieces)
            except StorageError as error:
                self._break(error)
        self._tell(Output(self.attempt, pieces))

    def _resume_follow(self) -> None:
        self._resume = None
        if self._follow is None:
            return
        if self._backlog() > BACKLOG:
            if self._progress is not None:
                self._progress.set()
            self._resume = asyncio.get_running_loop().call_later(PAUSE, self._resume_follow)
        else:
            self._follow.resume()

    def _break(self, error: StorageError) -> None:
        self.broken = True
        self._tell(Note(f"{error}; the output of job {self.attempt.job.id} stays on its node", warning=True))

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
        self.is_completing = True
        self._stop_timer()
        if self._opening is not None:
            await self._opening
        elif size - self._held > MUCH:
            await self._open(session)
        if self._follow is not None:
            progress = self._progress = asyncio.Event()
            # The session may close it, for a question that the server has no other channel for.
            self._follow.on_close = progress.set
            with contextlib.suppress(TimeoutError):
                while self._held < size and self._follow.is_open:
                    progress.clear()
                    async with asyncio.timeout(STALL):
                        await progress.wait()
            self._follow.close()
        while self._held < size:
            while self._backlog() > BACKLOG:  # noqa: ASYNC110 -- the screen is a thread
                await asyncio.sleep(PAUSE)
            block = await session.read(self.attempt.id, self._held, min(READ_BLOCK, size - self._held))
            if not block:
                raise NodeError(
                    session.host, f"the output of {self.attempt.id} ends too early", transient=True
                )
            self._take(block)
        self.close()

    def close(self) -> None:
        """Stop taking in; what is in the log stays."""
        self._stop_timer()
        if self._resume is not None:
            self._resume.cancel()
            self._resume = None
        if self._opening is not None and not self._opening.done():
            self._opening.cancel()
        if self._follow is not None:
            self._follow.close()
            self._follow = None
        if not self._closed:
            self._closed = True
            try:
                self._logs.close(self.attempt)
            except StorageError as error:
                if not self.broken:
                    self._break(error)

    def _stop_timer(self) -> None:
        """A follow that begins while the rest is being read would bring the same bytes again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


async def complete_log(
    session: NodeSession, attempt: Attempt, logs: LogFiles, size: int, *, anew: bool = False
) -> bool:
    """Bring the log of an ended attempt to all its `size` bytes, unseen. False: this machine's disk did not take them.

    `anew`: whatever it holds, which is written over. Raises NodeError.
    """
    tap = Tap(attempt, logs, lambda _: None, lambda: 0, fresh=False, anew=anew)
    try:
        await tap.complete(session, size)
    finally:
        tap.close()
    return not tap.broken
