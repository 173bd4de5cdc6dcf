"""One life of a simulated controller: turns with a grouped commit, as in `run.engine`, and links, as in `run.link`."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from pegasus_py.core.model import Attempt, Job, JobState, SubNode
from pegasus_py.core.moves import (
    Ask,
    Attach,
    Began,
    Begin,
    CancelAsked,
    Closed,
    Drop,
    Exited,
    Fact,
    Fence,
    Kill,
    Look,
    Opened,
    Order,
    Over,
    QueueView,
    Record,
    Resumed,
    Send,
    StopAsked,
    Take,
    Tick,
    Took,
    Waiting,
)
from pegasus_py.core.scheduler import step
from pegasus_py.core.state import Mode, Settings, check, new_state
from tests.sim.disk import Batch, Full, Overtaken
from tests.sim.node import Session
from tests.sim.oracle import Violation

if TYPE_CHECKING:
    from tests.sim.world import World

QUEUE_ID = "0123456789abcdef"
KINDS = {Send: "start", Attach: "attach", Ask: "ask", Fence: "fence", Kill: "end"}


class Link:
    """Keeps one seat connected. Messages on their way when a connection is cut may arrive long after, or never."""

    def __init__(self, controller: Controller, subnode: SubNode) -> None:
        self.controller, self.subnode = controller, subnode
        self.world = controller.world
        self.node = self.world.nodes[subnode.hostname]
        self.session: Session | None = None
        self.failures = 0
        self.to_clear: list[Attempt] = []
        self.last = {"control": 0.0, "back": 0.0}
        self._later(self.world.rng.uniform(0.01, 1.0), self.connect)

    def _later(self, seconds: float, what: Callable[[], None]) -> None:
        self.world.after(seconds, lambda: self.controller.when_awake(what))

    def connect(self) -> None:
        away = self.world.now < self.node.away_until or self.world.fault(0.1)
        if away:
            self._down()
            return
        session = self.node.open(
            self.controller.epoch, lambda f: self._back(session, f), self.controller.overtake
        )
        if session is None:
            self.controller.overtake()
            return
        self.controller.sweep(self.node)
        self.session, self.failures = session, 0
        self.controller.fact(Opened(self.subnode.name))

    def _down(self) -> None:
        self.failures += 1
        final = self.failures == 1 and self.world.fault(0.03)
        self.controller.fact(Closed(self.subnode.name, final))
        if not final:
            self._later(
                self.world.rng.uniform(0.25, min(60.0, 0.5 * 2.0 ** min(self.failures, 16))), self.connect
            )

    def _back(self, session: Session | None, fact: Fact) -> None:
        """From the node: in order, and lost if the connection is."""
        at = max(self.world.now + self.world.latency(), self.last["back"])
        self.last["back"] = at
        self.world.after(at - self.world.now, lambda: self._received(session, fact))

    def _received(self, session: Session | None, fact: Fact) -> None:
        def hand_in() -> None:
            if self.session is not session or session is None:
                return
            if isinstance(fact, Exited) and self.world.chance(0.2):
                # Its output takes long to come, and may be cut off.
                self.controller.fact(Over(fact.attempt))
                self._later(self.world.rng.uniform(0, 30), lambda: self._completed(session, fact))
            else:
                self.controller.fact(fact)

        self.controller.when_awake(hand_in)

    def _completed(self, session: Session, fact: Fact) -> None:
        if self.session is session:
            self.controller.fact(fact)

    def perform(self, order: Send | Attach | Ask | Fence | Kill) -> None:
        if self.session is not None:
            self._message(self.session, KINDS[type(order)], order.attempt)

    def _message(self, session: Session, kind: str, attempt: Attempt) -> None:
        at = self.world.now + self.world.latency()
        if kind in ("start", "attach"):
            at = self.last["control"] = max(at, self.last["control"])

        def arrive() -> None:
            if self.session is session:
                session.deliver(kind, attempt)
            elif self.world.chance(0.5):
                # The connection was given up while this was on its way; a jump host may still hand it on.
                self.world.after(self.world.rng.uniform(0, 90), lambda: session.deliver(kind, attempt))

        self.world.after(at - self.world.now, arrive)

    def cut(self) -> None:
        """The connection is lost; the node's end of it may live on for a while, and finish what it waits for."""
        if self.session is not None:
            session, self.session = self.session, None
            if self.world.chance(0.5):
                session.reply = lambda fact: None
            self._down()

    def clear(self, attempt: Attempt) -> None:
        """Nothing is needed of this attempt any more; its files go with the next group."""
        self.to_clear.append(attempt)
        self._later(1.0, self._clear)

    def _clear(self) -> None:
        if self.session is not None:
            for attempt in self.to_clear:
                self._message(self.session, "clear", attempt)
                self.controller.cleared.append(attempt.id)
            self.to_clear.clear()


class Controller:
    """From `begin_run` to a Finish, a crash, or being overtaken."""

    def __init__(self, world: World, settings: Settings, subnodes: list[SubNode]) -> None:
        self.world, self.disk = world, world.disk
        self.alive = True
        self.awake = True
        self._missed: list[Callable[[], None]] = []
        self.epoch = self.disk.begin_run()
        self.is_overtaken = False
        self.holds_queue = False
        self.stop_acknowledged = False
        self.cancelled: set[int] = set()
        """Jobs that the user has cancelled in this run."""
        self.cleared: list[str] = []
        self._facts: deque[tuple[Fact, Callable[[], None] | None]] = deque()
        self._unrecorded: list[Record] = []
        self._unwanted: list[Attempt] = []
        self._busy = False
        self._woken_at = -1.0
        names = {s.name for s in subnodes}
        open_rows = self.disk.open()
        collectors = {
            row.attempt.subnode: SubNode(row.attempt.subnode, row.attempt.hostname, ())
            for row in open_rows
            if row.attempt.subnode not in names
        }
        self.state = new_state(settings, subnodes, collectors.values())
        for row in open_rows:
            tries = self.disk.jobs[row.attempt.job.id].tries + 1
            self.fact(Resumed(row.attempt, world.now - row.began, tries, row.unwanted))
        for job in self.disk.jobs.values():
            if job.state is JobState.QUEUED:
                delay = max(0.0, job.due - world.now)
                self.fact(Waiting(job.job, job.attempts + 1, job.tries, job.avoid, delay))
        self.leftovers = [r for r in self.disk.attempts.values() if r.end is not None and not r.cleared]
        self.links = {name: Link(self, seat.subnode) for name, seat in self.state.seats.items()}
        world.after(0.1, self._watch)
        self._ring()

    # --- life and death ----------------------------------------------------------------------------------------

    def when_awake(self, what: Callable[[], None]) -> None:
        if not self.alive:
            return
        if self.awake:
            what()
        else:
            self._missed.append(what)

    def pause(self, seconds: float) -> bool:
        """SIGSTOP, for a time; not while it holds the queue's lock, which would only make all others wait."""
        if self.holds_queue or not self.awake:
            return False
        self.awake = False
        self.world.after(seconds, self._resume)
        return True

    def _resume(self) -> None:
        self.awake = True
        missed, self._missed = self._missed, []
        for what in missed:
            self.when_awake(what)

    def die(self) -> None:
        """kill -9, or the end."""
        self.alive = False
        self.holds_queue = False
        for link in self.links.values():
            link.session = None

    def overtake(self) -> None:
        self.world.say(f"run {self.epoch} is overtaken")
        self.is_overtaken = True
        self.die()

    # --- turns -------------------------------------------------------------------------------------------------

    def fact(self, fact: Fact, done: Callable[[], None] | None = None) -> None:
        self._facts.append((fact, done))
        self._ring()

    def _ring(self) -> None:
        if not self._busy and self.alive:
            self._busy = True
            self.world.after(0.0, lambda: self._go_on(self._turn()))

    def _go_on(self, turn: Iterator[float]) -> None:
        def proceed() -> None:
            try:
                wait = next(turn, None)
            except Overtaken:
                self.overtake()
                return
            if wait is not None:
                self.world.after(wait, lambda: self._go_on(turn))
                return
            self._busy = False
            if self.state.outcome is not None and not self._unrecorded:
                self.world.say(f"run {self.epoch} is over: {self.state.outcome}")
                self.die()
            elif self._facts:
                self._ring()
            else:
                self._set_alarm()

        self.when_awake(proceed)

    def _set_alarm(self) -> None:
        wake = self.state.next_wake
        if self._unrecorded:
            wake = min(wake or 1e18, self.world.now + 1.0)
        if wake is not None and wake != self._woken_at:
            self._woken_at = wake
            self.world.after(max(0.0, wake - self.world.now), lambda: self.when_awake(self._alarm))

    def _alarm(self) -> None:
        self._woken_at = -1.0
        self._ring()

    def _step(self, fact: Fact, now: float | None = None) -> list[Order]:
        self.world.say(f"run {self.epoch} <- {fact}")
        orders = step(self.state, fact, self.world.now if now is None else now)
        check(self.state)
        for order in orders:
            self.world.say(f"run {self.epoch} -> {order}")
        self.world.steps += 1
        return orders

    def _turn(self) -> Iterator[float]:
        orders: list[Order] = []
        done: list[Callable[[], None]] = []
        wake = self.state.next_wake
        is_due = wake is not None and wake <= self.world.now
        tick, now = self.world.now, math.nextafter(self.world.now, math.inf)
        while self._facts:
            fact, callback = self._facts.popleft()
            orders += self._step(fact, now)
            if isinstance(fact, CancelAsked | StopAsked):
                lives = self.state.lives()
                self._unwanted = [live.attempt for live in lives if live.ending is JobState.CANCELLED]
            if callback is not None:
                done.append(callback)
        if is_due:
            orders += self._step(Tick(), tick)
        if self._unrecorded:
            # In a commit of their own, as the engine does.
            again: list[Order] = [*self._unrecorded]
            self._unrecorded = []
            yield from self._perform(again, [])
        while orders:
            answers: list[Fact] = []
            yield from self._perform(orders, answers)
            orders = [order for answer in answers for order in self._step(answer)]
        for callback in done:
            callback()

    def _perform(self, orders: list[Order], answers: list[Fact]) -> Iterator[float]:
        batch = Batch(cleared=self.cleared, unwanted=self._unwanted)
        self.cleared, self._unwanted = [], []
        records = [o for o in orders if isinstance(o, Record)]
        for order in orders:
            self._prepare(order, batch, answers)
        if batch:
            self.world.maybe_crash(self)
            yield self.world.flush_time()
        try:
            self.disk.commit(batch, self.epoch, self.world.now)
        except Full:
            answers[:] = [
                Took((), QueueView.BLOCKED) if isinstance(a, Took) else Began(a.waiting, a.seat, None)
                for a in answers
                if isinstance(a, Took | Began)
            ]
            batch.pop, batch.jobs, batch.started = None, [], []
            if self.world.chance(0.5):
                self.disk.commit(batch, self.epoch, self.world.now)
            else:
                self._unrecorded += records
                self.cleared += batch.cleared
                self.disk.commit(Batch(dropped=batch.dropped), self.epoch, self.world.now)
                records = []
        self.world.oracle.over.update(batch.dropped)
        for record in records:
            gave_up = "too long" in record.end.reason
            self.world.oracle.records(record.attempt, record.end, record.next, gave_up=gave_up)
        if batch.pop:
            yield from self._apply(batch.pop)
        self.holds_queue = False
        yield 0.0
        for order in orders:
            self._release(order, records)

    def _apply(self, pop: tuple[int, ...]) -> Iterator[float]:
        if self.stop_acknowledged:
            raise Violation("the queue is changed after a stop was acknowledged")
        disk = self.disk
        yield 0.0
        self.world.maybe_crash(self)
        disk.consumed += pop
        disk.unsynced = (pop, "c")
        yield 0.0
        self.world.maybe_crash(self)
        disk.queue = [n for n in disk.queue if n not in pop]
        disk.unsynced = (pop, "cq")
        yield 0.0
        self.world.maybe_crash(self)

    def _prepare(self, order: Order, batch: Batch, answers: list[Fact]) -> None:
        match order:
            case Record():
                batch.ended.append((order.attempt, order.end, order.next, order.delay))
            case Drop():
                batch.dropped.append(order.job.id)
            case Begin():
                old = order.waiting.job
                if old.id in self.cancelled:
                    raise Violation(f"{order} after the job was cancelled")
                if self._unrecorded:
                    answers.append(Began(order.waiting, order.seat, None))
                    return
                job = Job(old.id, old.task, old.command, order.seat, None, old.round)
                attempt = self._attempt(job, order.waiting.number)
                batch.started.append(attempt)
                answers.append(Began(order.waiting, order.seat, attempt))
            case Take() if self._unrecorded:
                answers.append(Took((), QueueView.BLOCKED))
            case Take():
                answers.append(self._take(order, batch))

    def _attempt(self, job: Job, number: int) -> Attempt:
        host = self.state.seats[job.subnode].subnode.hostname
        return Attempt(job, number, job.subnode, QUEUE_ID, host)

    def _take(self, order: Take, batch: Batch) -> Took:
        disk = self.disk
        if self.world.now < max(disk.full_until, disk.locked_until, disk.bad_until) or self.world.queue_held(
            self
        ):
            return Took((), QueueView.BLOCKED)
        if not order.seats:
            return Took((), QueueView.MORE if disk.queue else QueueView.EMPTY)
        count = min(len(disk.queue), 1 if order.round is not None else len(order.seats))
        numbers = tuple(disk.queue[:count])
        view = (
            QueueView.EMPTY
            if not numbers or (order.round is None and count < len(order.seats))
            else QueueView.MORE
        )
        attempts = []
        seats = zip(order.seats, numbers, strict=False)
        if order.round is not None and numbers:
            disk.rounds += 1
            seats = zip(order.seats, numbers * len(order.seats), strict=False)
        for seat, number in seats:
            job = Job(disk.next_job, disk.tasks[number], str(number), seat, None, order.round and disk.rounds)
            disk.next_job += 1
            batch.jobs.append(job)
            attempts.append(self._attempt(job, 1))
        batch.started += attempts
        batch.pop = numbers or None
        if numbers:
            self.holds_queue = True
            disk.unsynced = None
        return Took(tuple(attempts), view)

    def _release(self, order: Order, records: list[Record]) -> None:
        if not self.alive:
            return
        match order:
            case Send() | Attach() | Ask() | Fence() | Kill():
                if isinstance(order, Send) and self.stop_acknowledged:
                    raise Violation(f"{order} after a stop was acknowledged")
                self.links[order.attempt.subnode].perform(order)
            case Record() if order in records and not order.keep:
                self.links[order.attempt.subnode].clear(order.attempt)

    def _watch(self) -> None:
        def look() -> None:
            if self.state.outcome is None:
                if self.state.queue is QueueView.BLOCKED or (
                    self.state.queue is QueueView.EMPTY and self.disk.queue
                ):
                    self.fact(Look())
                self.world.after(self.world.rng.choice((0.1, 2.0)), self._watch)

        self.when_awake(look)

    def sweep(self, node: object) -> None:
        mine = [r for r in self.leftovers if self.world.nodes[r.attempt.hostname] is node]
        for row in mine:
            if self.world.nodes[row.attempt.hostname].sweep(row.attempt):
                self.leftovers.remove(row)
                self.cleared.append(row.attempt.id)

    @property
    def broadcast(self) -> bool:
        return self.state.settings.mode is Mode.BROADCAST
