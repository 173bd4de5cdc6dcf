"""A run without a world, for tests: facts are fed by hand, orders are looked at, invariants hold after every step."""

from __future__ import annotations

from typing import Any

from pegasus_py.core.model import Attempt, Job, JobOptions, JobState, Report, Spot, SubNode, Task
from pegasus_py.core.moves import (
    Began,
    Begin,
    Closed,
    Exited,
    Fact,
    Killed,
    Opened,
    Order,
    QueueView,
    Record,
    Reported,
    Send,
    Take,
    Tick,
    Took,
)
from pegasus_py.core.scheduler import step
from pegasus_py.core.state import Mode, Settings, check, new_state

QUEUE_ID = "0123456789abcdef"


def subnode(name: str) -> SubNode:
    """`a1` and `a2` are sub-nodes of host `a`."""
    return SubNode(name, name.rstrip("0123456789"), (("hostname", name),))


class Bench:
    """One run. `entries` is what the queue file holds; a Take is answered from it at once unless `slow`."""

    def __init__(
        self,
        seats: str = "a b",
        entries: int = 0,
        *,
        up: bool = True,
        collectors: str = "",
        options: JobOptions | None = None,
        first_id: int = 1,
        **settings: Any,
    ) -> None:
        self.now = 0.0
        self.entries = entries
        self.slow = False
        self.options = options or JobOptions()
        self.next_id = first_id
        self.orders: list[Order] = []
        """All orders that were not looked at yet."""
        self.state = new_state(
            Settings(**settings), map(subnode, seats.split()), map(subnode, collectors.split())
        )
        for name in seats.split() if up else ():
            self.feed(Opened(name))

    @property
    def broadcast(self) -> bool:
        return self.state.settings.mode is Mode.BROADCAST

    def feed(self, fact: Fact) -> list[Order]:
        orders = step(self.state, fact, self.now)
        check(self.state)
        self.orders += orders
        for order in orders:
            if (isinstance(order, Take) and not self.slow) or (isinstance(order, Begin) and not self.slow):
                self.answer(order)
        return orders

    def answer(self, order: Take | Begin) -> None:
        if isinstance(order, Begin):
            attempt = self.attempt(order.waiting.job, order.waiting.number, order.seat)
            self.feed(Began(order.waiting, order.seat, attempt))
            return
        seats = order.seats if order.round is None or self.entries else ()
        if order.round is None:
            seats = seats[: self.entries]
            self.entries -= len(seats)
        elif seats:
            self.entries -= 1
        attempts = tuple(self.attempt(self.job(seat), 1, seat) for seat in seats)
        enough = self.entries if not order.seats else (self.entries or len(seats) == len(order.seats))
        self.feed(Took(attempts, QueueView.MORE if enough else QueueView.EMPTY))

    def job(self, seat: str) -> Job:
        job = Job(
            self.next_id, Task("true", (), self.options), "true", seat, None, 1 if self.broadcast else None
        )
        self.next_id += 1
        return job

    def attempt(self, job: Job, number: int, seat: str) -> Attempt:
        return Attempt(job, number, seat, QUEUE_ID, subnode(seat).hostname)

    def wait(self, seconds: float) -> None:
        """Time passes; timers fire when they are due."""
        until = self.now + seconds
        while (wake := self.state.next_wake) is not None and wake <= until:
            self.now = max(self.now, wake)
            self.feed(Tick())
        self.now = until

    # --- short words for facts -----------------------------------------------------------------------------------

    def up(self, *seats: str) -> None:
        for seat in seats:
            self.feed(Opened(seat))

    def down(self, *seats: str, final: bool = False) -> None:
        for seat in seats:
            self.feed(Closed(seat, final))

    def exit(self, name: str, status: int = 0) -> None:
        self.feed(Exited(full(name), status))

    def report(self, name: str, spot: Spot, status: int | None = None) -> None:
        self.feed(Reported(Report(full(name), spot, status)))

    def killed(self, name: str, *survivors: str) -> None:
        self.feed(Killed(full(name), survivors))

    # --- what was ordered ----------------------------------------------------------------------------------------

    def said(self) -> list[str]:
        """The orders since the last call, in short: `Send 1.1 a`, `Record 1.1 failed queued`."""
        orders, self.orders = self.orders, []
        return [short(order) for order in orders if not isinstance(order, Take)]

    def records(self) -> list[Record]:
        orders, self.orders = self.orders, []
        return [order for order in orders if isinstance(order, Record)]


def full(name: str) -> str:
    return f"{name}.{QUEUE_ID}"


def short(order: Order) -> str:
    kind = type(order).__name__
    match order:
        case Send():
            return f"Send {_name(order.attempt)} {order.attempt.subnode}"
        case Record():
            again = " queued" if order.next is JobState.QUEUED else ""
            return f"Record {_name(order.attempt)} {order.end.state}{again}{' keep' if order.keep else ''}"
        case Begin():
            return f"Begin {order.waiting.job.id}.{order.waiting.number} {order.seat}"
        case _ if hasattr(order, "attempt"):
            return f"{kind} {_name(order.attempt)}"
        case _ if hasattr(order, "job"):
            return f"{kind} {order.job.id}"
        case _ if hasattr(order, "seat"):
            return f"{kind} {order.seat}"
        case _ if hasattr(order, "outcome"):
            return f"{kind} {order.outcome}"
    return kind


def _name(attempt: Attempt) -> str:
    return f"{attempt.job.id}.{attempt.number}"
