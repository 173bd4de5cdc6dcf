"""From the head of the queue to recorded attempts: peek, render for a sub-node, plan, and apply once recorded."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import datetime

from msgspec import Struct, field

from pegasus_py.core.entries import consumed_record
from pegasus_py.core.joboptions import misplaced
from pegasus_py.core.model import Attempt, Job, Params, SubNode, Task
from pegasus_py.core.moves import Begin, QueueView, Take
from pegasus_py.core.template import merge_params, render
from pegasus_py.errors import BadInput, PegasusError, Place, StorageError
from pegasus_py.store.queuefile import QueueFile
from pegasus_py.store.queuelock import QueueBusy
from pegasus_py.store.taking import Taking


class Haul(Struct):
    """What one `Take` got. The queue's lock is held until `close`; nothing has been written yet.

    `pop` goes into the ledger with the attempts, in one commit; then `apply` may write the files. `error` says why
    the queue is blocked: bad text, a held lock, a full disk.
    """

    attempts: list[Attempt] = field(default_factory=list)
    view: QueueView = QueueView.MORE
    pop: bytes | None = None
    error: PegasusError | None = None
    doubts: list[str] = field(default_factory=list)
    """What the user may have meant otherwise, of entries that are reached for the first time."""
    taking: Taking | None = None
    holding: ExitStack = field(default_factory=ExitStack)

    @property
    def pop_follows(self) -> bool:
        """Whether the ledger has to keep the records of earlier pops beside this one's."""
        return self.taking is not None and self.taking.follows

    def apply(self) -> None:
        """Write consumed.yaml and queue.yaml. StorageError: recovery with `pop` must finish it before the next take."""
        if self.taking is not None and self.pop is not None:
            self.taking.apply()

    def close(self) -> None:
        """Let go of the queue's lock."""
        self.holding.close()


class Taker:
    """Makes attempts for seats. Counts job ids up from `first_id`, broadcast rounds up from `rounds_before`."""

    def __init__(
        self,
        queue: QueueFile,
        subnodes: Mapping[str, SubNode],
        queue_id: str,
        first_id: int,
        rounds_before: int = 0,
    ) -> None:
        self._queue = queue
        self._subnodes = subnodes
        self._queue_id = queue_id
        self._next_id = first_id
        self._rounds_before = rounds_before
        self._doubted: Place | None = None
        self._second = -1
        self._text = ""

    def take(self, order: Take) -> Haul:
        """Plan the pops for an order. Never raises for what the user can mend: `Haul.error` says it."""
        haul = Haul()
        first_id = self._next_id
        records: list[str] = []
        try:
            haul.taking = taking = haul.holding.enter_context(self._queue.hold())
            if not taking.exists:
                raise BadInput(Place(self._queue.name), "the file is gone; put it back, if only an empty one")
            if not order.seats:
                haul.view = QueueView.MORE if taking.peek() is not None else QueueView.EMPTY
            elif order.round is not None:
                self._take_round(taking, order, haul, records)
            else:
                self._take_each(taking, order, haul, records)
        except (BadInput, StorageError, QueueBusy) as error:
            haul.error, haul.view = error, QueueView.BLOCKED
        try:
            if records and haul.taking is not None:
                haul.pop = haul.taking.pop_record(records)
        except (BadInput, StorageError) as error:
            haul.error, haul.view = error, QueueView.BLOCKED
            haul.attempts.clear()
            self._next_id = first_id
        return haul

    def _take_each(self, taking: Taking, order: Take, haul: Haul, records: list[str]) -> None:
        for seat in order.seats:
            task = taking.peek()
            if task is None:
                haul.view = QueueView.EMPTY
                return
            attempt = self._first_attempt(task, self._subnodes[seat], None)
            self._doubt(task, haul)
            taking.take()
            haul.attempts.append(attempt)
            records.append(consumed_record(task, f"job {attempt.job.id}, {self._now()}, {seat}"))

    def _take_round(self, taking: Taking, order: Take, haul: Haul, records: list[str]) -> None:
        task = taking.peek()
        if task is None:
            haul.view = QueueView.EMPTY
            return
        before = self._next_id
        try:
            round_ = self._rounds_before + (order.round or 0)
            attempts = [self._first_attempt(task, self._subnodes[seat], round_) for seat in order.seats]
        except BadInput:
            self._next_id = before
            raise
        self._doubt(task, haul)
        taking.take()
        haul.attempts.extend(attempts)
        ids = (
            f"jobs {attempts[0].job.id}-{attempts[-1].job.id}"
            if len(attempts) > 1
            else f"job {attempts[0].job.id}"
        )
        where = f"{len(attempts)} sub-nodes" if len(attempts) > 1 else order.seats[0]
        records.append(consumed_record(task, f"{ids}, {self._now()}, {where}"))

    def _doubt(self, task: Task, haul: Haul) -> None:
        """Not refused: other commands of the entry, which may be gone by now, may use it."""
        if not task.params or task.place == self._doubted:
            return
        templates = [task.command, *([task.options.cancel] if task.options.cancel else [])]
        if doubt := misplaced((name for name, _ in task.params), templates):
            self._doubted = task.place
            haul.doubts.append(f"{task.place}: {doubt}")

    def begin(self, order: Begin) -> Attempt:
        """A further attempt of a waiting job, rendered for its new sub-node. Raises BadInput."""
        subnode, old = self._subnodes[order.seat], order.waiting.job
        job = self._job(old.id, old.task, subnode, old.round)
        return self._attempt(job, order.waiting.number, subnode)

    def _first_attempt(self, task: Task, subnode: SubNode, round_: int | None) -> Attempt:
        job = self._job(self._next_id, task, subnode, round_)
        self._next_id += 1
        return self._attempt(job, 1, subnode)

    def _attempt(self, job: Job, number: int, subnode: SubNode) -> Attempt:
        return Attempt(job, number, subnode.name, self._queue_id, subnode.hostname, subnode.spool)

    def _job(self, job_id: int, task: Task, subnode: SubNode, round_: int | None) -> Job:
        params: Params = merge_params(subnode, task)
        command = render(task.command, params, task.place, subnode.name)
        cancel = task.options.cancel and render(task.options.cancel, params, task.place, subnode.name)
        return Job(job_id, task, command, subnode.name, cancel, round_)

    def _now(self) -> str:
        """The time of day to the second, with the zone's distance."""
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._text = datetime.fromtimestamp(second).astimezone().isoformat(" ", "seconds")
        return self._text
