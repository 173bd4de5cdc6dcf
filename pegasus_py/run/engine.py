"""The engine: turns the world into facts for the scheduler, and its orders into the world.

It works in turns. One turn takes all facts that have come, asks the scheduler, writes one ledger commit for all that
must be durable, edits the queue, and only then lets anything leave for a node. Meanwhile further facts gather for the
next turn, so commits group themselves under load.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from pegasus_py.core.events import (
    Dropped,
    Ended,
    Event,
    NodeSetAside,
    Note,
    QueueBad,
    QueueMended,
    Started,
    Stopping,
)
from pegasus_py.core.model import Attempt, JobState
from pegasus_py.core.moves import (
    Ask,
    Attach,
    Began,
    Begin,
    CancelAsked,
    Closed,
    Drop,
    Expel,
    Fact,
    Fence,
    Finish,
    Kill,
    Look,
    Opened,
    Order,
    Outcome,
    QueueView,
    Record,
    Resumed,
    Send,
    SetAside,
    StopAsked,
    StopLevel,
    Take,
    Tick,
    Took,
)
from pegasus_py.core.scheduler import step
from pegasus_py.core.state import State
from pegasus_py.errors import BadInput, PegasusError, QueueHeld, StorageBroken, StorageError
from pegasus_py.run.link import Link
from pegasus_py.run.queuewatch import QueueWatch
from pegasus_py.run.taker import Haul, Taker
from pegasus_py.store import batch as ledger_batch
from pegasus_py.store.batch import Batch
from pegasus_py.store.ledger import Ledger
from pegasus_py.store.logs import LogFiles
from pegasus_py.store.queuefile import QueueFile
from pegasus_py.store.queuelock import QueueBusy

_SAID = (Send, Attach, Ask, Fence, Kill)
FLUSH_ALONE_AFTER = 0.005
"""Seconds without a fact after which a pop that none can follow is flushed: the next one need not wait for it then."""
SLOW_COMMIT = 0.02
"""Seconds that commits take on average from which on they are too slow for the event loop's own thread,"""
WEIGHT = 0.2
"""and what the last one counts in it: one alone may be chance, on a machine that is busy with other things."""
STORAGE_RETRY = 1.0
"""Seconds until a write that failed (a full disk, say) is tried again."""


class Wish(Struct):
    """A user's request (stop, cancel) on its way; `done` is called once it has taken effect in the scheduler."""

    fact: Fact
    done: Callable[[], None] | None = None


class Stores(Struct):
    """Where a run keeps what must survive."""

    queue: QueueFile
    ledger: Ledger
    logs: LogFiles


class _Turn(Struct):
    """What one turn is about to write and to answer."""

    batch: Batch = field(default_factory=Batch)
    haul: Haul | None = None
    records: list[Record] = field(default_factory=list)
    answers: list[Fact] = field(default_factory=list)
    is_recorded: bool = True
    """False: the disk took nothing; ends stay in line, and are told when they are recorded."""


class Engine:
    """Runs a scheduler to its end. Make it, feed it with `fact`, await `run`."""

    def __init__(
        self,
        state: State,
        taker: Taker,
        stores: Stores,
        tell: Callable[[Event], None],
        first: Sequence[Fact] = (),
    ) -> None:
        self.state = state
        self.links: Mapping[str, Link] = {}
        self.on_end: Callable[[int, Ended | None], None] = lambda job, event: None
        """Told of each job that has reached its end, with its last attempt's if it had one."""
        self._taker = taker
        self._stores = stores
        self._tell = tell
        self._facts: deque[Wish] = deque(Wish(fact) for fact in first)
        self._bell = asyncio.Event()
        self._writer = ThreadPoolExecutor(1, "ledger")
        self._flusher = ThreadPoolExecutor(1, "logs")
        self._inherited = {fact.attempt.id for fact in first if isinstance(fact, Resumed)}
        self._unrecorded: list[Order] = []
        """Ends (Record and Drop) that the disk did not take, in order."""
        self._cleared: list[str] = []
        self._trouble = ""
        self._trouble_is_busy = False
        self._is_bad = False
        """Subscribers were told that the queue is bad."""
        self._untrusted = ""
        self._reach: dict[int, JobState] = {}
        self._unwanted: list[Attempt] = []
        """What the user has asked to end, not recorded yet."""
        self._frozen = False
        self._storage_until = 0.0
        self._commit_seconds = 0.0
        """What a commit takes, on average."""
        self._fatal: BaseException | None = None
        self._early_flush: asyncio.Task[None] | None = None
        self._watch = QueueWatch(
            stores.queue,
            view=lambda: self.state.queue,
            look=lambda: self.fact(Look()),
            may_go_on=self._trouble_may_be_over,
            flush=self._flush_queue,
        )

    # --- the outside ---------------------------------------------------------------------------------------

    def fact(self, fact: Fact, done: Callable[[], None] | None = None) -> None:
        """Hand in a fact; it is looked at in the next turn."""
        self._facts.append(Wish(fact, done))
        self._bell.set()

    def overtaken(self, who: str) -> None:
        """A later controller has taken over: nothing may be started or recorded any more."""
        self._fatal = QueueHeld(f"{who}; this controller was overtaken and starts nothing more")
        self._bell.set()

    def crashed(self, error: BaseException) -> None:
        """Something failed that must not: end the run with it rather than go on half blind."""
        self._fatal = self._fatal or error
        self._bell.set()

    def job_ids(self) -> set[int]:
        """The jobs that run, or wait for a retry."""
        state = self.state
        waiting = {w.job.id for w in (*state.waiting.values(), *state.ready)}
        return {live.attempt.job.id for live in state.lives()} | waiting | state.beginning

    @property
    def trouble(self) -> str:
        """Why nothing is taken from the queue; empty while it is, or could be."""
        return self._trouble or self._untrusted

    @property
    def storage_failed(self) -> bool:
        """Whether this machine's disk kept the run from recording, or from going on."""
        return bool(self._unrecorded or self._untrusted)

    @property
    def output_left(self) -> bool:
        """Whether output of ended jobs had to stay on its nodes; the next run takes it in."""
        return any(link.output_left for link in self.links.values())

    def cleared(self, attempt_ids: list[str]) -> None:
        """Nothing of these attempts is left on their nodes; rides along with the next commit."""
        self._cleared.extend(attempt_ids)

    async def run(self) -> Outcome:
        """Run to the end. Raises QueueHeld when overtaken."""
        watcher = asyncio.create_task(self.guard(self._watch.run()))
        try:
            while self.state.outcome is None or self._unrecorded:
                await self._wait()
                # What has arrived by now from other nodes shares the turn.
                await asyncio.sleep(0)
                await self._turn()
                if self.state.outcome is not None and self._unrecorded and not await self._last_try():
                    break
            return self.state.outcome or Outcome.LEFT
        finally:
            watcher.cancel()
            await asyncio.gather(watcher, *filter(None, [self._early_flush]), return_exceptions=True)

    async def guard(self, work: Coroutine[Any, Any, None]) -> None:
        """Await something that goes on beside the turns; should it fail, the run does."""
        try:
            await work
        except Exception as error:  # noqa: BLE001 -- handed on to the run
            self.crashed(error)

    async def close(self) -> None:
        """Write what may still be written, and let go of the files."""
        try:
            await self._commit(Batch())
            await self._in_writer(self._stores.queue.sync if self._frozen else self._compact)
        except PegasusError as error:
            self._tell(Note(str(error), warning=True))
        finally:
            self._writer.shutdown()
            self._flusher.shutdown()

    # --- a turn --------------------------------------------------------------------------------------------

    async def _wait(self) -> None:
        """Until there is a fact, or a timer is due."""
        if self._facts or self._fatal:
            return
        self._bell.clear()
        wake = self.state.next_wake
        timeout = None if wake is None else max(0.0, wake - time.monotonic())
        if self._unrecorded:
            timeout = min(STORAGE_RETRY, timeout if timeout is not None else STORAGE_RETRY)
        is_alone = self._stores.queue.is_alone and not self._untrusted
        if is_alone and (timeout is None or timeout > FLUSH_ALONE_AFTER):
            if await self._rings_within(FLUSH_ALONE_AFTER):
                return
            self._early_flush = asyncio.create_task(self.guard(self._flush_queue(note=False)))
            timeout = None if timeout is None else timeout - FLUSH_ALONE_AFTER
        await self._rings_within(timeout)

    async def _rings_within(self, seconds: float | None) -> bool:
        try:
            async with asyncio.timeout(seconds):
                return await self._bell.wait()
        except TimeoutError:
            return False

    async def _turn(self) -> None:
        if self._fatal is not None:
            raise self._fatal
        if self._unrecorded and time.monotonic() >= self._storage_until:
            await self._record_again()
        tick = time.monotonic()
        # A moment later: what the facts set to be due at once waits for the next turn, as a retry must.
        now = math.nextafter(tick, math.inf)
        orders: list[Order] = []
        stopping = False
        done: list[Callable[[], None]] = []
        is_due = (wake := self.state.next_wake) is not None and wake <= tick
        while self._facts:
            wish = self._facts.popleft()
            orders = self._meant_for(wish.fact, orders)
            before = self.state.stop
            orders += step(self.state, wish.fact, now, more=bool(self._facts) or is_due)
            if isinstance(wish.fact, CancelAsked):
                self._announce_cancel(wish.fact)
            stopping |= self.state.stop is not before
            self._note_reach(wish.fact)
            self._note_unwanted(wish.fact)
            if wish.done is not None:
                done.append(wish.done)
        if is_due:
            # After what has arrived: a job that ended while all of this stood still has not timed out.
            orders += step(self.state, Tick(), tick)
        while orders:
            orders = await self._perform(orders)
        await self._record_reach()
        if self._unwanted:
            # Nothing was to be done about it yet: its node is away, say.
            with contextlib.suppress(StorageError):
                await self._commit(Batch())
        if stopping:
            await self._freeze()
            if self.state.stop is not StopLevel.LEAVE:
                self._tell(Stopping(len(self.state.seat_of), now=self.state.stop is StopLevel.NOW))
        for callback in done:
            callback()

    def _note_reach(self, fact: Fact) -> None:
        """Jobs whose node comes or goes: for `pegasus status`, nothing depends on it."""
        if isinstance(fact, Closed | Opened):
            state = JobState.UNREACHABLE if isinstance(fact, Closed) else JobState.STARTING
            for live in self.state.seats[fact.seat].live.values():
                self._reach[live.attempt.job.id] = state

    def _note_unwanted(self, fact: Fact) -> None:
        """So that the next run ends it, too, should this one be gone before it has ended."""
        if isinstance(fact, CancelAsked | StopAsked):
            self._unwanted = [
                live.attempt for live in self.state.lives() if live.ending is JobState.CANCELLED
            ]

    async def _record_reach(self) -> None:
        if self._reach:
            live = {each.attempt.job.id for each in self.state.lives()}
            moved = [ledger_batch.Moved(job, state) for job, state in self._reach.items() if job in live]
            self._reach = {}
            with contextlib.suppress(StorageError):
                await self._commit(Batch(moved=moved))

    async def _record_again(self) -> None:
        """In a commit of their own: an attempt's end must be recorded before its job's next beginning."""
        again, self._unrecorded = self._unrecorded, []
        await self._perform(again)

    def _meant_for(self, fact: Fact, orders: list[Order]) -> list[Order]:
        """What of `orders` still holds: each is meant for the session that its sub-node had at the time."""
        match fact:
            case Opened():
                self.links[fact.seat].introduce()
            case Closed():
                return [o for o in orders if not isinstance(o, _SAID) or o.attempt.subnode != fact.seat]
        return orders

    async def _freeze(self) -> None:
        """Once a stop is acknowledged the queue file does not change: tidy it up before, and never again."""
        if not self._frozen:
            self._frozen = True
            try:
                await self._in_writer(self._compact)
            except PegasusError as error:
                self._tell(Note(str(error), warning=True))

    async def _perform(self, orders: list[Order]) -> list[Order]:
        """Carry out orders: first what is to be durable, then what leaves. Returns the orders that follow."""
        turn = _Turn()
        for order in orders:
            self._prepare(order, turn)
        try:
            await self._write(turn)
        finally:
            self._let_go(turn.haul)
        for order in orders:
            if isinstance(order, Record | Drop) and not turn.is_recorded:
                self._unrecorded.append(order)
            else:
                self._release(order)
        now = time.monotonic()
        return [order for answer in turn.answers for order in step(self.state, answer, now)]

    def _prepare(self, order: Order, turn: _Turn) -> None:
        match order:
            case Record():
                turn.records.append(order)
            case Drop():
                turn.batch.moved.append(ledger_batch.Moved(order.job.id, JobState.CANCELLED))
            case Begin():
                turn.answers.append(self._begin(order, turn.batch))
            case Take():
                turn.haul = self._take(order)
                turn.batch.pop, turn.batch.pop_follows = turn.haul.pop, turn.haul.pop_follows
                turn.batch.jobs += [a.job for a in turn.haul.attempts]
                turn.batch.started += turn.haul.attempts
                turn.answers.append(Took(tuple(turn.haul.attempts), turn.haul.view))

    def _begin(self, order: Begin, batch: Batch) -> Began:
        if self._unrecorded:
            return Began(order.waiting, order.seat, None)
        try:
            attempt = self._taker.begin(order)
        except BadInput as error:
            return Began(order.waiting, order.seat, None, str(error))
        batch.started.append(attempt)
        return Began(order.waiting, order.seat, attempt)

    def _take(self, order: Take) -> Haul:
        if self._untrusted or self._unrecorded or time.monotonic() < self._storage_until:
            return Haul(view=QueueView.BLOCKED)
        try:
            self._stores.logs.check()
        except StorageError as error:
            # Nothing is taken, but where nothing is left there is nothing to wait for.
            self._storage_trouble(error)
            haul = self._taker.take(replace(order, seats=()))
            if haul.view is QueueView.MORE:
                haul.view = QueueView.BLOCKED
            return haul
        haul = self._taker.take(order)
        self._say_trouble(haul.error)
        for doubt in haul.doubts:
            self._tell(Note(doubt, warning=True))
        return haul

    async def _write(self, turn: _Turn) -> None:
        """One commit for the turn, then the files. What could not be recorded stays in line for another try."""
        now = time.time()
        for record in turn.records:
            due = None if record.delay is None else now + record.delay
            turn.batch.ended.append(ledger_batch.Ended(record.attempt, record.end, record.next, due))
        try:
            await self._commit(turn.batch)
        except StorageBroken:
            raise
        except StorageError as error:
            self._storage_trouble(error)
            if self._untrusted:
                self.fact(StopAsked(StopLevel.FINISH))
            await self._write_ends_only(turn)
            return
        if turn.haul is not None and turn.haul.pop is not None:
            try:
                turn.haul.apply()
            except (StorageError, BadInput) as error:
                # The ledger has these attempts, so they run; the queue file completes the pop before the next one.
                self._storage_trouble(error)

    def _let_go(self, haul: Haul | None) -> None:
        try:
            if haul is not None:
                haul.close()
        except StorageError as error:
            self._storage_trouble(error)

    async def _write_ends_only(self, turn: _Turn) -> None:
        """The disk takes no new work: nothing starts, but ends are recorded if that is at all possible."""
        turn.answers = [
            Took((), QueueView.BLOCKED) if isinstance(a, Took) else Began(a.waiting, a.seat, None)
            for a in turn.answers
            if isinstance(a, Took | Began)
        ]
        rest = turn.batch.without_starts()
        if not rest:
            return
        try:
            await self._commit(rest)
        except StorageBroken:
            raise
        except StorageError:
            turn.is_recorded = False

    async def _commit(self, batch: Batch) -> None:
        if self._cleared:
            batch.cleared += self._cleared
            self._cleared = []
        batch.unwanted, self._unwanted = self._unwanted, []
        if not batch:
            return
        try:
            if self._is_quick():
                # Where a flush takes less than a millisecond, two changes of threads would cost more than it does.
                self._commit_here(batch)
            else:
                await self._in_writer(self._commit_here, batch)
        except StorageError:
            self._cleared += batch.cleared
            self._unwanted += batch.unwanted
            batch.cleared, batch.unwanted = [], []
            raise

    def _is_quick(self) -> bool:
        """Whether a commit may be expected to hold up the event loop for a moment only."""
        is_slow = self._commit_seconds > SLOW_COMMIT or self._stores.queue.is_flushing
        return self._stores.ledger.is_local and not is_slow

    def _commit_here(self, batch: Batch) -> None:
        began = time.monotonic()
        try:
            if batch.pop is not None and not batch.pop_follows:
                self._sync_queue(note=False)
            self._stores.ledger.commit(batch)
        finally:
            self._commit_seconds += WEIGHT * (time.monotonic() - began - self._commit_seconds)

    def _sync_queue(self, *, note: bool = True) -> None:
        """What was popped must be safe on disk before the ledger may forget the records of it."""
        try:
            self._stores.queue.sync(note=note)
        except StorageError as error:
            # After a failed flush nobody knows what is on the disk: take nothing more in this run.
            self._untrusted = str(error)
            raise

    async def _in_writer(self, function: Callable[..., None], *arguments: object) -> None:
        await asyncio.get_running_loop().run_in_executor(self._writer, function, *arguments)

    # --- letting go ----------------------------------------------------------------------------------------

    def _release(self, order: Order) -> None:
        match order:
            case Send():
                self._tell(Started(order.attempt))
                self.links[order.attempt.subnode].perform(order)
            case Attach():
                if order.attempt.id in self._inherited:
                    self._inherited.discard(order.attempt.id)
                    self._tell(Started(order.attempt, recovered=True))
                self.links[order.attempt.subnode].perform(order)
            case Ask() | Fence() | Kill():
                self.links[order.attempt.subnode].perform(order)
            case Record():
                event = Ended(order.attempt, order.end, self._log_of(order), order.delay)
                self._tell(event)
                if order.next.is_end:
                    self.on_end(order.attempt.job.id, event)
                end = order.end
                # There is a duration, but no status: it may have run, and nobody has seen it end.
                is_whole = end.status is not None or end.duration is None
                self.links[order.attempt.subnode].clear(order.attempt, keep=order.keep, whole=is_whole)
            case SetAside():
                subnode = self.state.seats[order.seat].subnode
                self._tell(NodeSetAside(subnode, f"{order.reason}; no jobs for {order.seconds:.0f} s"))
            case Expel():
                subnode = self.state.seats[order.seat].subnode
                why = self.links[order.seat].reason
                self._tell(NodeSetAside(subnode, f"{order.reason}{': ' + why if why else ''}"))
            case Drop():
                self._tell(Dropped(order.job, order.attempts, order.reason))
                self.on_end(order.job.id, None)
            case Finish():
                pass

    def _log_of(self, record: Record) -> str:
        """The path of the attempt's output, for people; there is no file when there was no output."""
        if record.end.state is JobState.SUCCEEDED:
            return ""
        path = self._stores.logs.path(record.attempt)
        return str(path) if path.exists() else ""

    async def flush_logs(self, attempts: list[Attempt]) -> None:
        """Make logs safe on disk. Raises StorageError."""
        # Not the thread that commits: no job waits for this.
        await asyncio.get_running_loop().run_in_executor(self._flusher, self._stores.logs.sync, attempts)

    def _announce_cancel(self, fact: CancelAsked) -> None:
        if fact.jobs:
            jobs = ", ".join(map(str, sorted(fact.jobs)))
            self._tell(Note(f"cancelling job{'s' if len(fact.jobs) > 1 else ''} {jobs}"))

    # --- the queue file and its troubles -------------------------------------------------------------------

    async def _flush_queue(self, *, note: bool = True) -> None:
        if self._untrusted:
            return
        try:
            await self._in_writer(lambda: self._sync_queue(note=note))
        except StorageError as error:
            self._storage_trouble(error)
            self.fact(StopAsked(StopLevel.FINISH))

    def _trouble_may_be_over(self) -> bool:
        if time.monotonic() < self._storage_until:
            return False
        return not self._trouble or self._trouble_is_busy or self._watch.has_changed()

    def _say_trouble(self, error: PegasusError | None) -> None:
        """Say what blocks the queue, once per fault, and that it is over."""
        if error is None:
            if self._is_bad:
                self._is_bad = False
                self._tell(QueueMended())
            self._trouble = ""
            return
        self._trouble_is_busy = isinstance(error, QueueBusy)
        if isinstance(error, StorageError):
            self._storage_until = time.monotonic() + STORAGE_RETRY
            self._trouble_is_busy = True
        if str(error) != self._trouble:
            self._trouble = str(error)
            if isinstance(error, QueueBusy):
                self._tell(Note(f"{error}; waiting"))
            else:
                self._is_bad = True
                self._tell(QueueBad(str(error), storage=isinstance(error, StorageError)))

    def _storage_trouble(self, error: PegasusError) -> None:
        self._storage_until = time.monotonic() + STORAGE_RETRY
        self._trouble_is_busy = True
        if str(error) != self._trouble:
            self._trouble = str(error)
            text = f"{error}; nothing new starts until that is mended, results are still collected"
            self._tell(Note(text, warning=True))

    async def _last_try(self) -> bool:
        """The run is over, but ends could not be recorded. They stay on the nodes for the next run to collect."""
        await asyncio.sleep(STORAGE_RETRY)
        await self._record_again()
        if self._unrecorded:
            count = len(self._unrecorded)
            text = f"{self._trouble}; {count} results are not recorded, the next run collects them again"
            self._tell(Note(text, warning=True))
        return not self._unrecorded

    def _compact(self) -> None:
        self._stores.queue.sync()
        self._stores.queue.compact()
