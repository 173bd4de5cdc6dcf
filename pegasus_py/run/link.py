"""One sub-node's connection during a run: opened, kept, opened again; orders go in, facts come out."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Container, Coroutine, Mapping
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from pegasus_py.core.events import Event, NodeDown, NodeUp, Note
from pegasus_py.core.model import Attempt, Report, Spot, SubNode
from pegasus_py.core.moves import (
    Ask,
    Attach,
    Closed,
    Exited,
    Fact,
    Fence,
    Kill,
    Killed,
    Opened,
    Over,
    Refused,
    Reported,
    Send,
)
from pegasus_py.errors import NodeError, QueueHeld, StorageError
from pegasus_py.node.session import NodeSession
from pegasus_py.node.shell import Connection, Connector
from pegasus_py.run.later import Later
from pegasus_py.run.tap import FOLLOW_AFTER, Tap, complete_log
from pegasus_py.store.logs import LogFiles

FIRST_WAIT = 0.5
LONGEST_WAIT = 60.0
REFUSED_WAIT = 20.0
"""Seconds at least before a node that refuses what it took before is tried again: some lock out who tries often."""
CLEAR_AT = 64
"""Ended attempts are cleared from a node's spool in groups of this many, along with the next start."""
CLEAR_AFTER = 1.0
"""Seconds for which nothing has ended and the sub-node is idle, before a smaller group goes by a question of its own.

Between two rounds of a broadcast it is idle for a moment, and what is to be cleared can wait for the next start.
"""
CLEAR_LATEST = 10.0
"""Seconds after which it goes in any case."""
FLUSH_RETRY = 10.0
"""Seconds after which a flush of logs that has failed is tried again."""
CLOCK_SLACK = 2.0
"""Seconds by which the wall clock may have been set while an attempt was out, without it counting as a restart."""
CANCEL_LIMIT = 30.0
"""Seconds that an entry's own cancel command may take."""


class Plant(Struct, frozen=True):
    """What all links of a run share."""

    connector: Callable[[SubNode], Connector]
    queue_id: str
    epoch: int
    grace: float
    logs: LogFiles
    flush: Callable[[list[Attempt]], Awaitable[None]]
    """Make the logs of these attempts safe on disk. Raises StorageError."""
    fact: Callable[[Fact], None]
    tell: Callable[[Event], None]
    overtaken: Callable[[str], None]
    crashed: Callable[[BaseException], None]
    """Told of an exception that nobody expected: the run must not go on as if nothing had been."""
    cleared: Callable[[list[str]], None]
    expects: Callable[[str], bool]
    """Whether the sub-node of this name has an attempt that was sent there, or may have been."""
    sweep: Callable[[NodeSession], Awaitable[None]]
    """Take in, end and remove what earlier runs left on a node. Raises NodeError."""
    began: Mapping[str, float]
    """When the attempts that an earlier run left open were recorded, by id, in seconds of the wall clock."""
    backlog: Callable[[], int]
    """Bytes that wait for the terminal or pipe to take them."""
    random: random.Random = field(default_factory=random.Random)
    follow_later: Later = field(default_factory=lambda: Later(FOLLOW_AFTER))


class Link:
    """Keeps the session of one sub-node open for as long as the run lasts."""

    def __init__(self, subnode: SubNode, plant: Plant) -> None:
        self.subnode = subnode
        self.reason = ""
        """Why it is down, in words; empty while it is up."""
        self._plant = plant
        self._connection: Connection | None = None
        self._session: NodeSession | None = None
        self._known: NodeSession | None = None
        """The session that the scheduler has heard of; see `introduce`."""
        self._closed: asyncio.Future[str] | None = None
        self._taps: dict[str, Tap] = {}
        self._to_clear: list[Attempt] = []
        self._may_ride: list[Attempt] = []
        """To be cleared too; their logs are safe, so that the next start may take them along."""
        self._riding: list[Attempt] = []
        """Sent to be cleared along with the start that is under way."""
        self._at_last: list[Attempt] = []
        """What is cleared only when the run is over; see `clear`."""
        self._keep: set[str] = set()
        self._unwritten: list[Attempt] = []
        """Ended, with output on the node that this machine's disk did not take."""
        self._unflushed = ""
        """Why logs could not be flushed; empty when they could be."""
        self._flush_after = 0.0
        self._unread: list[Attempt] = []
        """Ended otherwise than by an exit: what they had written until then is asked for when the run is over."""
        self._clear_timer: asyncio.TimerHandle | None = None
        self._clear_due = 0.0
        self._last_end = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._sent: dict[str, str] = {}
        """The node's boot id when an attempt was sent, while its end is not known."""
        self._kills = 0
        self._leaving = False
        self._worked = False
        """A job has ended over the present connection."""

    @property
    def is_up(self) -> bool:
        return self._session is not None

    @property
    def output_left(self) -> bool:
        """Whether output of ended jobs is still only on the node, for all that this machine's disk says."""
        return bool(self._unwritten or self._unflushed or self._plant.logs.lost(self._to_clear))

    # --- the connection ------------------------------------------------------------------------------------

    async def keep(self) -> None:
        """Connect, and connect again with growing, jittered waits, until cancelled or told that it is hopeless."""
        loop = asyncio.get_running_loop()
        failures = 0
        was_up = False
        try:
            while True:
                try:
                    closed = await self._open()
                except QueueHeld as error:
                    self._plant.overtaken(str(error))
                    return
                except NodeError as error:
                    failures += 1
                    wait = self._wait_after(error, failures, was_up=was_up)
                    self._down(error.what, wait, was_up=False)
                    if wait is None:
                        return
                    await asyncio.sleep(wait)
                    continue
                self.reason = ""
                self._plant.tell(NodeUp(self.subnode, again=was_up))
                self._plant.fact(Opened(self.subnode.name))
                since, was_up, self._worked = loop.time(), True, False
                reason = await closed
                if self._leaving:
                    return
                await self._drop_session()
                # A node that drops every connection before it is of any use is not called twice a second for ever.
                useful = self._worked or loop.time() - since > LONGEST_WAIT
                failures = 1 if useful else failures + 1
                wait = self._backoff(failures)
                self._down(reason, wait, was_up=True)
                await asyncio.sleep(wait)
        finally:
            await self._drop_session()

    async def _open(self) -> asyncio.Future[str]:
        connector = self._plant.connector(self.subnode)
        connection = await connector.connect(self.subnode)
        self._closed = closed = asyncio.get_running_loop().create_future()
        try:
            session = await NodeSession.open(
                connection, self.subnode, self._plant.queue_id, self._plant.epoch, self
            )
            await self._plant.sweep(session)
            if not self._plant.expects(self.subnode.name):
                await session.know()
        except BaseException:
            await connection.close()
            raise
        self._connection, self._session = connection, session
        if self._to_clear or self._may_ride:
            self._clear_later()
        return closed

    def _wait_after(self, error: NodeError, failures: int, *, was_up: bool) -> float | None:
        """Seconds until the next try; None if it is hopeless.

        A login that was good before may be refused for a while: the home is away in which the server looks for the key,
        or we do. A host key that was good before and is another one now is no such thing.
        """
        if error.transient:
            return self._backoff(failures)
        is_hopeless = error.hopeless or not was_up
        return None if is_hopeless else self._plant.random.uniform(REFUSED_WAIT, 2 * REFUSED_WAIT)

    def _backoff(self, failures: int) -> float:
        """Seconds to wait: doubling with full jitter, so that nodes that vanished together do not return together."""
        ceiling = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(failures, 16))
        return float(self._plant.random.uniform(FIRST_WAIT / 2, ceiling))

    def _down(self, reason: str, wait: float | None, *, was_up: bool) -> None:
        self.reason = reason
        self._plant.tell(NodeDown(self.subnode, reason, wait, was_up))
        self._plant.fact(Closed(self.subnode.name, final=wait is None))

    async def _drop_session(self) -> None:
        connection, self._connection, self._session, self._known = self._connection, None, None, None
        # Whether these are gone is unknown; it does no harm to say it again.
        self._to_clear += self._riding
        self._riding = []
        if self._clear_timer is not None:
            self._clear_timer.cancel()
            self._clear_timer = None
        for tap in self._taps.values():
            tap.close()
        self._taps.clear()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        if connection is not None:
            await connection.close()

    async def leave(self, unsettled: Container[str] = (), *, for_good: bool = True) -> None:
        """Clear what is ended and take our directory away, as far as the node lets us in the time of one question.

        What is still in question there (`unsettled` attempt ids) stays for the next run. So does the directory, unless
        `for_good`: while an attempt is open, even if it was never sent, that it has no trace there proves something
        only as long as the directory is the one that it was meant for.
        """
        session = self._session
        if session is None:
            return
        self._leaving = True
        with contextlib.suppress(NodeError):
            if not self._taps:
                if self._tasks:
                    await asyncio.wait(self._tasks)
                await self._write_rest(session, unsettled)
                await self._read_rest(session, unsettled)
                self._to_clear += [a for a in self._at_last if a.id not in unsettled]
                self._at_last = []
                await self._clear(session)
                if for_good:
                    await session.bye()

    # --- orders --------------------------------------------------------------------------------------------

    def introduce(self) -> None:
        """The scheduler hears of the present session now; orders from now on are meant for it.

        An order from before was meant for an earlier session, on which it can have no effect any more.
        """
        self._known = self._session

    def perform(self, order: Send | Attach | Ask | Fence | Kill) -> None:
        """Carry out an order; its answer comes as a fact. Without a session it is dropped: `Closed` says so."""
        session, attempt = self._known, order.attempt
        if session is None:
            return
        match order:
            case Send() if self._may_begin(session, attempt):
                self._tap(session, attempt, fresh=True)
                self._sent[attempt.id] = session.info.boot
                self._riding, self._may_ride = self._may_ride, []
                session.start(attempt, [each.id for each in self._riding], within=order.within)
            case Attach() if self._may_begin(session, attempt):
                self._tap(session, attempt, fresh=False)
                session.attach(attempt.id)
            case Ask():
                self._spawn(self._ask(session, attempt))
            case Fence():
                self._spawn(self._fence(session, attempt))
            case Kill():
                self._spawn(self._kill(session, attempt))

    def _may_begin(self, session: NodeSession, attempt: Attempt) -> bool:
        tap = self._taps.get(attempt.id)
        if tap is not None and (session.busy or tap.is_completing):
            # It was started or attached on this session: its end is on its way.
            return False
        if session.busy:
            # With one that was given up although it could not be ended; only another shell can serve us.
            self.closed("the shell there is held by a job that cannot be ended")
            return False
        return True

    def _tap(self, session: NodeSession, attempt: Attempt, *, fresh: bool) -> None:
        old = self._taps.pop(attempt.id, None)
        if old is not None:
            old.close()
        tap = self._taps[attempt.id] = Tap(
            attempt, self._plant.logs, self._plant.tell, self._plant.backlog, fresh=fresh
        )
        tap.watch(session, self._plant.follow_later)

    async def _ask(self, session: NodeSession, attempt: Attempt) -> None:
        for report in await session.ask([attempt.id]):
            report = _in_earnest(session, report)
            if report.spot is Spot.ABSENT and self._was_restarted(session, attempt):
                report = replace(report, spot=Spot.REBOOTED)
            self._plant.fact(Reported(report))

    def _was_restarted(self, session: NodeSession, attempt: Attempt) -> bool:
        """Whether the node was restarted since the attempt may have been sent.

        What the node wrote just before may not have reached its disk, so a missing start marker proves nothing then.
        """
        boot = self._sent.get(attempt.id)
        if boot is not None:
            return boot != session.info.boot
        began = self._plant.began.get(attempt.id)
        up = time.monotonic() + session.info.ahead
        return began is not None and began < time.time() - up - CLOCK_SLACK

    async def _fence(self, session: NodeSession, attempt: Attempt) -> None:
        self._plant.fact(Reported(_in_earnest(session, await session.fence(attempt.id))))

    async def _kill(self, session: NodeSession, attempt: Attempt) -> None:
        self._kills += 1
        try:
            if attempt.job.cancel:
                await self._run_cancel(session, attempt, attempt.job.cancel)
            self._plant.fact(Killed(attempt.id, await session.end(attempt.id, self._plant.grace)))
        finally:
            self._kills -= 1

    async def _run_cancel(self, session: NodeSession, attempt: Attempt, command: str) -> None:
        """The entry's own cancel command; whatever becomes of it, the signals follow."""
        try:
            status = await session.run_cancel(attempt.id, command, CANCEL_LIMIT)
            why = f"exit {status}" if status else ""
        except NodeError as error:
            why = error.what
        if why:
            text = f"{self.subnode.name}: the cancel command of job {attempt.job.id} failed: {why}"
            self._plant.tell(Note(text, warning=True))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """A question that the node did not answer means that the connection is of no use any more."""
        try:
            await work
        except NodeError as error:
            self.closed(error.what)
        except Exception as error:  # noqa: BLE001 -- handed on: whatever it is, it must not be lost in a task
            self._plant.crashed(error)

    # --- what the session tells (Observer) -------------------------------------------------------------------

    def exited(self, attempt_id: str, status: int, size: int, inline: bytes | None) -> None:
        self._ride_is_over()
        tap, session = self._taps.get(attempt_id), self._session
        if tap is not None and session is not None:
            if tap.complete_now(size, inline):
                self._done(tap, status)
            else:
                self._plant.fact(Over(attempt_id))
                self._spawn(self._complete(tap, session, status, size))

    async def _complete(self, tap: Tap, session: NodeSession, status: int, size: int) -> None:
        await tap.complete(session, size)
        self._done(tap, status)

    def _done(self, tap: Tap, status: int) -> None:
        self._taps.pop(tap.attempt.id, None)
        self._worked = True
        if tap.broken:
            self._keep.add(tap.attempt.id)
        self._plant.fact(Exited(tap.attempt.id, status))

    def exists(self, attempt_id: str) -> None:
        self._ride_is_over()
        self._plant.fact(Reported(Report(attempt_id, Spot.RUNNING)))

    def refused(self, attempt_id: str, reason: str) -> None:
        self._ride_is_over()
        tap = self._taps.pop(attempt_id, None)
        if tap is not None:
            tap.close()
        self._plant.fact(Refused(attempt_id, reason))

    def overtaken(self, epoch: int) -> None:
        if epoch > self._plant.epoch:
            self._plant.overtaken(f"{self.subnode.name} has heard from a later run (number {epoch})")
            return
        why = "the spool there was taken away"
        for attempt_id in [i for i, tap in self._taps.items() if not tap.is_completing]:
            self.refused(attempt_id, why)
        self.closed(why)

    def reported(self, report: Report) -> None:
        self._plant.fact(Reported(report))

    def closed(self, reason: str) -> None:
        if self._closed is not None and not self._closed.done():
            self._closed.set_result(reason)

    # --- clearing the spool --------------------------------------------------------------------------------

    def clear(self, attempt: Attempt, *, keep: bool, whole: bool = True) -> None:
        """The ledger has the end of this attempt: its files on the node may go, soon and in groups.

        Unless `whole` its output is looked for before, which is at the end of the run, too. `keep`: not before the run
        is over. A request to start it may still be on its way over a connection that was given up; the start marker
        keeps it from starting until nothing can be on its way any more.
        """
        self._sent.pop(attempt.id, None)
        if attempt.id in self._keep:
            self._keep.discard(attempt.id)
            self._unwritten.append(attempt)
            return
        if not whole:
            self._unread.append(attempt)
            return
        if keep:
            self._at_last.append(attempt)
            return
        self._to_clear.append(attempt)
        if self._session is not None:
            self._clear_later()

    async def _write_rest(self, session: NodeSession, unsettled: Container[str]) -> None:
        """Output that the disk did not take, tried once more. What it does not take now is left for the next run."""
        for attempt in list(self._unwritten):
            (report,) = await session.ask([attempt.id])
            if report.spot is Spot.ELSEWHERE:
                continue
            if not await complete_log(session, attempt, self._plant.logs, report.size):
                return
            self._unwritten.remove(attempt)
            if report.size or report.spot is Spot.EXITED:
                self._plant.tell(Note(f"the output of job {attempt.job.id} is in its log now"))
            else:
                what = f"the output of job {attempt.job.id} is lost: {self.subnode.name} does not have it any more"
                self._plant.tell(Note(what, warning=True))
            if attempt.id not in unsettled:
                self._to_clear.append(attempt)

    async def _read_rest(self, session: NodeSession, unsettled: Container[str]) -> None:
        """Output of attempts of which nobody knows how they ended. What the disk does not take is left where it is."""
        while self._unread:
            attempt = self._unread[-1]
            (report,) = await session.ask([attempt.id])
            if attempt.id not in unsettled:
                if await complete_log(session, attempt, self._plant.logs, report.size):
                    self._to_clear.append(attempt)
                else:
                    self._unwritten.append(attempt)
            self._unread.pop()

    def _clear_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._last_end = loop.time()
        if len(self._to_clear) >= CLEAR_AT and self._last_end >= self._flush_after:
            attempts, self._to_clear = self._to_clear, []
            self._clear_due = self._last_end + CLEAR_LATEST
            if self._plant.logs.are_safe(attempts):
                self._may_ride += attempts
            else:
                self._spawn(self._make_safe(attempts))
        if self._clear_timer is None:
            self._clear_due = self._last_end + CLEAR_LATEST
            self._clear_timer = loop.call_later(CLEAR_AFTER, self._clear_soon)

    async def _make_safe(self, attempts: list[Attempt]) -> None:
        try:
            # To ask a thread costs more than most of these jobs.
            if not self._plant.logs.are_safe(attempts):
                await self._plant.flush(attempts)
        except StorageError as error:
            self._keep_lost(attempts, error)
            return
        except BaseException:
            self._to_clear += attempts
            raise
        self._unflushed = ""
        self._may_ride += attempts

    def _keep_lost(self, attempts: list[Attempt], error: StorageError) -> None:
        """What the disk has lost is asked for again; the rest is to be flushed again, but not at once."""
        lost = self._plant.logs.lost(attempts)
        for attempt in attempts:
            (self._unwritten if attempt.id in lost else self._to_clear).append(attempt)
        loop = asyncio.get_running_loop()
        self._flush_after = loop.time() + FLUSH_RETRY
        if self._clear_timer is None:
            self._clear_timer = loop.call_at(self._flush_after, self._clear_soon)
        if lost:
            jobs = ", ".join(each.partition(".")[0] for each in lost)
            what = f"job{'s' if len(lost) > 1 else ''} {jobs} stays on its node"
            self._plant.tell(Note(f"{next(iter(lost.values()))}; the output of {what}", warning=True))
        elif self._unflushed != str(error):
            self._unflushed = str(error)
            what = f"{error}; {self.subnode.name} keeps the output of its jobs for now"
            self._plant.tell(Note(what, warning=True))

    def _ride_is_over(self) -> None:
        """The start is answered, so what went along with it is gone from the node."""
        if self._riding:
            self._plant.cleared([attempt.id for attempt in self._riding])
            self._riding = []

    def _clear_soon(self) -> None:
        loop = asyncio.get_running_loop()
        self._clear_timer = None
        if self._session is None:
            return
        now = loop.time()
        if now < self._flush_after:
            self._clear_timer = loop.call_at(self._flush_after, self._clear_soon)
            return
        quiet_at = self._last_end + CLEAR_AFTER
        # A question while a job runs takes a channel of its own, and that may be taken for a grace period.
        if self._kills or (self._session.busy and now < self._clear_due):
            self._clear_timer = loop.call_later(CLEAR_AFTER, self._clear_soon)
        elif now < min(quiet_at, self._clear_due):
            self._clear_timer = loop.call_at(quiet_at, self._clear_soon)
        else:
            self._spawn(self._clear(self._session))

    async def _clear(self, session: NodeSession) -> None:
        if self._to_clear:
            ended, self._to_clear = self._to_clear, []
            await self._make_safe(ended)
        attempts, self._may_ride = self._may_ride, []
        if not attempts:
            return
        ids = [attempt.id for attempt in attempts]
        try:
            await session.clear(ids)
        except BaseException:
            self._may_ride += attempts
            raise
        self._plant.cleared(ids)


def _in_earnest(session: NodeSession, report: Report) -> Report:
    """Where the spool has lost its memory, no trace of an attempt is no proof that it has not started."""
    if session.fresh and report.spot in (Spot.ABSENT, Spot.FENCED):
        return replace(report, spot=Spot.VANISHED)
    return report
