"""The scheduler alone, with simulated nodes: decisions a second, and how that changes as the work grows.

A decision is one step that starts a job, or records its end. All other steps, and what the simulated nodes do, are
within the time but not within the count. Time is this process's own on the processor.

    python -m benchmarks.scheduler [--seats 10000] [--jobs 1000000]
"""

from __future__ import annotations

import argparse
import time
from collections import deque
from dataclasses import dataclass

from pegasus_py.core.model import Attempt, Job, JobOptions, SubNode, Task
from pegasus_py.core.moves import (
    Began,
    Begin,
    Exited,
    Fact,
    Opened,
    Order,
    QueueView,
    Record,
    Send,
    Take,
    Tick,
    Took,
)
from pegasus_py.core.scheduler import step
from pegasus_py.core.state import Settings, new_state

QUEUE_ID = "0123456789abcdef"
FAILS_EVERY = 100
"""One job in so many fails at its first attempt and is tried again elsewhere."""
PARTS = 10


@dataclass(frozen=True, slots=True)
class Result:
    """`parts` are the decisions per second in each tenth of the run: flat means no growth per decision."""

    seats: int
    jobs: int
    decisions: int
    seconds: float
    parts: tuple[float, ...]

    @property
    def per_second(self) -> float:
        return self.decisions / self.seconds

    def __str__(self) -> str:
        parts = " ".join(f"{part / 1000:.0f}k" for part in self.parts)
        return (
            f"{self.seats:7,} sub-nodes {self.jobs:10,} jobs: {self.per_second:9,.0f} decisions/s   "
            f"by tenths: {parts}"
        )


class Nodes:
    """Sub-nodes whose jobs end in the order in which they started, and a queue of `jobs` entries."""

    def __init__(self, seats: int, jobs: int) -> None:
        self.subnodes = [SubNode(f"n{i // 4}/{i % 4}", f"n{i // 4}", ()) for i in range(seats)]
        self.jobs, self.made = jobs, 0
        self.facts: deque[Fact] = deque(Opened(s.name) for s in self.subnodes)
        self.running: deque[Attempt] = deque()
        self.task = Task("true")

    def next_fact(self) -> Fact:
        if self.facts:
            return self.facts.popleft()
        attempt = self.running.popleft()
        fails = attempt.number == 1 and attempt.job.id % FAILS_EVERY == 0
        return Exited(attempt.id, int(fails))

    def perform(self, order: Order) -> bool:
        """Carry out an order; whether it was a decision about a job."""
        match order:
            case Send():
                self.running.append(order.attempt)
                return True
            case Record():
                return True
            case Take():
                seats = order.seats[: self.jobs - self.made]
                first = self.made + 1
                self.made += len(seats)
                attempts = tuple(
                    Attempt(Job(first + i, self.task, "true", seat), 1, seat, QUEUE_ID)
                    for i, seat in enumerate(seats)
                )
                view = QueueView.MORE if self.made < self.jobs else QueueView.EMPTY
                self.facts.append(Took(attempts, view))
            case Begin(waiting, seat):
                self.facts.append(Began(waiting, seat, Attempt(waiting.job, waiting.number, seat, QUEUE_ID)))
        return False


def run(seats: int, jobs: int) -> Result:
    """Run `jobs` jobs on `seats` sub-nodes, four to a host, to their end."""
    nodes = Nodes(seats, jobs)
    options = JobOptions(timeout=3600.0, retries=1)
    state = new_state(Settings(defaults=options, set_aside_after=0), nodes.subnodes)
    decisions, now, part_decisions = 0, 0.0, 0
    parts: list[float] = []
    began = mark = time.process_time()
    while state.outcome is None:
        now += 1e-5
        due = state.next_wake
        fact = Tick() if due is not None and due <= now else nodes.next_fact()
        for order in step(state, fact, now):
            decisions += nodes.perform(order)
        if decisions - part_decisions >= 2 * jobs // PARTS:
            time_now = time.process_time()
            parts.append((decisions - part_decisions) / (time_now - mark))
            mark, part_decisions = time_now, decisions
    return Result(seats, jobs, decisions, time.process_time() - began, tuple(parts))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scheduler")
    parser.add_argument("--seats", type=int, default=10_000)
    parser.add_argument("--jobs", type=int, default=1_000_000)
    arguments = parser.parse_args()
    for seats, jobs in ((10, arguments.jobs // 10), (arguments.seats, arguments.jobs // 10)):
        print(run(seats, jobs), flush=True)
    print(run(arguments.seats, arguments.jobs), flush=True)


if __name__ == "__main__":
    main()
