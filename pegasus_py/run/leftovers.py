"""What earlier runs left on the nodes: ended if it runs, its output taken in, and removed, once for each spool."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from pegasus_py.core.events import Event, Note
from pegasus_py.core.model import Attempt, Spot, SubNode
from pegasus_py.errors import StorageError
from pegasus_py.node.session import NodeSession
from pegasus_py.run.tap import complete_log
from pegasus_py.store.logs import LogFiles


class Heap:
    """What may be left in one spool. Whoever comes to it first sweeps it; the others wait until it is swept."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.attempts: list[Attempt] = []
        self.swept = False
        self.is_left = False
        """This machine's disk could not take it in."""


class Leftovers:
    """All heaps, from what the ledger says at the start of a run.

    `uncleared` are attempts that ended but may have left something; `unfinished` are the jobs that may get, or have,
    further attempts in this run, so that only what the ledger names of them may go; so are all from `first_new` on.
    """

    def __init__(self, uncleared: Iterable[Attempt], unfinished: Iterable[int], first_new: int) -> None:
        self._heaps: dict[tuple[str, str | None], Heap] = {}
        self._unfinished = frozenset(unfinished)
        self._first_new = first_new
        self._named: set[str] = set()
        for attempt in uncleared:
            self._heap(attempt.hostname, attempt.spool).attempts.append(attempt)
            self._named.add(attempt.id)

    def of(self, subnode: SubNode) -> Heap:
        return self._heap(subnode.hostname, subnode.spool)

    def _heap(self, hostname: str, spool: str | None) -> Heap:
        return self._heaps.setdefault((hostname, spool), Heap())

    @property
    def are_left(self) -> bool:
        """Whether output had to stay where it is."""
        return any(heap.is_left for heap in self._heaps.values())

    def is_stray(self, attempt_id: str) -> bool:
        """Whether nobody knows of this attempt any more. A spool may be shared by nodes (a home on NFS), so what the
        ledger still expects anywhere is none."""
        job = attempt_id.partition(".")[0]
        if not job.isdecimal() or attempt_id in self._named:
            return False
        return int(job) < self._first_new and int(job) not in self._unfinished


class Sweeper:
    """Sweeps heaps: `grace` as for a cancel, `flush` makes logs safe on disk, `cleared` is told what is gone."""

    def __init__(
        self,
        leftovers: Leftovers,
        logs: LogFiles,
        *,
        grace: float,
        flush: Callable[[list[Attempt]], Awaitable[None]],
        cleared: Callable[[list[str]], None],
        tell: Callable[[Event], None],
    ) -> None:
        self._leftovers = leftovers
        self._logs = logs
        self._grace = grace
        self._flush = flush
        self._cleared = cleared
        self._tell = tell
        self._told = ""

    async def sweep(self, session: NodeSession) -> None:
        """Sweep the heap of the session's sub-node, if that is not done. Raises NodeError.

        A full disk here leaves the output where it is, for a later try, and keeps nobody from the node.
        """
        heap = self._leftovers.of(session.subnode)
        async with heap.lock:
            if heap.swept:
                return
            try:
                done = [a for a in heap.attempts if await self._finish(session, a)]
                if done:
                    await self._flush(done)
            except StorageError as error:
                heap.is_left = True
                if self._told != str(error):
                    self._told = str(error)
                    self._tell(Note(f"{error}; results of an earlier run stay on their nodes", warning=True))
                return
            ids = [attempt.id for attempt in done]
            gone = [*ids, *(i for i in await session.list() if self._leftovers.is_stray(i))]
            if gone:
                await session.clear(gone)
            self._cleared(ids)
            heap.swept, heap.is_left = True, False

    async def _finish(self, session: NodeSession, attempt: Attempt) -> bool:
        """End what still runs of an attempt and complete its log; whether nothing is needed of it any more."""
        report = await session.fence(attempt.id)
        if report.spot in (Spot.RUNNING, Spot.STARTING):
            survivors = await session.end(attempt.id, self._grace)
            what = f" ({len(survivors)} processes are left)" if survivors else ""
            text = f"{session.subnode.name}: job {attempt.job.id}, given up before, ended now{what}"
            self._tell(Note(text, warning=True))
            report = await session.fence(attempt.id)
        if report.spot is Spot.ELSEWHERE:
            return False
        # Whatever is here may be what a disk has lost since, and told to a run that could not write it down any more.
        # So may what a node has that was restarted.
        anew = report.spot is not Spot.REBOOTED and report.size >= self._logs.held(attempt)
        if not await complete_log(session, attempt, self._logs, report.size, anew=anew):
            raise StorageError(self._logs.path(attempt), "cannot be completed")
        return True
