"""The world around the scheduler: a virtual clock, faults from a seed, users, and what must hold in the end."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from pegasus_py.core.model import Attempt, JobOptions, JobState, SubNode, Task
from pegasus_py.core.state import Mode, Settings
from tests.sim.controller import Controller
from tests.sim.disk import Disk
from tests.sim.faults import OFTEN, Fault
from tests.sim.node import Node
from tests.sim.oracle import Oracle, Violation

CALM_BOUND = 40_000.0
"""Virtual seconds after the last fault within which every job must have reached an end."""


class Crash(Exception):
    """This controller is gone in the middle of what it did."""


@dataclass
class World:
    """One seed's world. `run` raises Violation when a promise is broken."""

    seed: int
    verbose: bool = False
    calm_from: float = 0.0
    """When the faults stop; 0: the seed says."""
    now: float = 0.0
    steps: int = 0
    oracle: Oracle = field(default_factory=Oracle)
    disk: Disk = field(default_factory=Disk)

    def __post_init__(self) -> None:
        self.rng = rng = random.Random(self.seed)
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self.hosts = [f"n{i}" for i in range(1, rng.randint(2, 5))]
        self.nodes = {host: Node(self, host) for host in self.hosts}
        self.subnodes = [
            SubNode(f"{host}/{i}", host, (("hostname", host),))
            for host in self.hosts
            for i in range(rng.choice((1, 1, 2)))
        ]
        self.calm_from = self.calm_from or rng.choice((5.0, 30.0, 100.0, 300.0))
        self.rate = rng.choice((0.2, 1.0, 1.0, 3.0))
        self.mode = rng.choice((Mode.QUEUE, Mode.QUEUE, Mode.BROADCAST))
        self.slow = rng.choice((0.01, 0.2, 3.0))
        self.lame = rng.random() < 0.25
        """Whether the controller's disk takes seconds for each flush."""
        self.controllers: list[Controller] = []

    # --- clock and chance --------------------------------------------------------------------------------------

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._heap, (self.now + seconds, self._count, what))

    def chance(self, p: float) -> bool:
        return self.rng.random() < p

    @property
    def stormy(self) -> bool:
        return self.now < self.calm_from

    def fault(self, p: float) -> bool:
        return self.stormy and self.rng.random() < p * self.rate

    def latency(self) -> float:
        return self.rng.uniform(0.001, self.slow if self.stormy else 0.05)

    def flush_time(self) -> float:
        if self.stormy and self.lame:
            return self.rng.uniform(0.0, 3.0)
        return 2.0 if self.fault(0.02) else self.rng.choice((0.0, 0.003, 0.03))

    def say(self, text: str) -> None:
        if self.verbose:
            print(f"{self.now:10.3f}  {text}")

    def fate(self, attempt: Attempt) -> tuple[float, int]:
        """How long this attempt runs, and its exit status."""
        return self.rng.choice((0.0, 0.01, 0.5, 3.0, 20.0, 60.0)), self.rng.choice((0, 0, 0, 0, 1, 3))

    # --- users and faults --------------------------------------------------------------------------------------

    def run(self) -> World:
        """From the first entry to the last end, faults by chance."""
        self.begin()
        self.after(self._next_fault(), self._misfortune)
        self.finish()
        return self

    def begin(self) -> None:
        for _ in range(self.rng.randint(1, 8)):
            self.append()
        self.start()
        self.after(1.0, self._supervise)

    def go_on(self, until: float) -> None:
        """Let the world run to this time, or to the end of all that is planned."""
        while self._heap and self._heap[0][0] <= until:
            at, _, what = heapq.heappop(self._heap)
            self.now = max(self.now, at)
            with suppress(Crash):
                what()

    def finish(self) -> None:
        """No more faults from `calm_from` on: everything must come to its end, and have come to the right one."""
        self.go_on(self.calm_from + CALM_BOUND)
        if self._heap:
            raise Violation(f"no end in sight: {self._unfinished()}")
        self._judge()

    def append(self) -> None:
        rng = self.rng
        options = JobOptions(
            timeout=rng.choice((None, None, 2.0, 15.0)),
            retries=rng.choice((None, 0, 1, 3)),
            retry_delay=rng.choice((None, 0.0, 5.0)),
            retry_on=rng.choice((None, None, (JobState.FAILED,), (JobState.LOST,))),
            lost_after=rng.choice((None, None, 3.0, 10.0)),
        )
        number = len(self.disk.tasks) + 1
        self.disk.tasks[number] = Task(f"task {number}", (), options)
        self.disk.queue.insert(rng.choice((0, len(self.disk.queue))), number)

    def start(self) -> None:
        mode = self.mode if not self.stormy or self.chance(0.9) else self.rng.choice(list(Mode))
        settings = Settings(
            mode,
            error_aborts=self.fault(0.1),
            require_all=self.fault(0.1),
            set_aside_after=self.rng.choice((2, 5)),
            broadcast_lost_after=self.rng.choice((5.0, 60.0)),
        )
        subnodes = [s for s in self.subnodes if not self.fault(0.05)] or self.subnodes
        self.say(f"a run starts: {settings}")
        self.controllers = [c for c in self.controllers if c.alive]
        self.controllers.append(Controller(self, settings, subnodes))

    def _next_fault(self) -> float:
        return self.rng.expovariate(self.rate / 3.0)

    @property
    def current(self) -> Controller | None:
        last = self.controllers[-1] if self.controllers else None
        return last if last is not None and last.alive else None

    def queue_held(self, by: Controller) -> bool:
        return any(c.holds_queue for c in self.controllers if c is not by and c.alive)

    def maybe_crash(self, controller: Controller) -> None:
        if self.fault(0.01):
            self.kill(controller)
            raise Crash

    def kill(self, controller: Controller) -> None:
        self.say(f"run {controller.epoch} is killed")
        controller.die()
        if self.chance(0.3):
            self.say("power cut")
            self.disk.power_cut(self.rng)

    def _misfortune(self) -> None:
        if self.stormy:
            self.after(self._next_fault(), self._misfortune)
            self.strike(self.rng.choice(OFTEN))

    def strike(self, fault: Fault) -> None:
        """Something goes wrong now, somewhere."""
        self.say(f"fault: {fault.__name__}")
        fault(self, self.nodes[self.rng.choice(self.hosts)], self.current)

    def cut_host(self, node: Node) -> None:
        for controller in self.controllers:
            for link in controller.links.values():
                if link.node is node and controller.alive:
                    controller.when_awake(link.cut)

    def _supervise(self) -> None:
        """Somebody starts the next run when there is none and something is left to do."""
        if self.current is None and (self.disk.queue or self._unfinished()):
            self.start()
        if self.stormy or self.current is not None or self.disk.queue or self._unfinished():
            self.after(self.rng.uniform(1, 20), self._supervise)

    # --- judgement ---------------------------------------------------------------------------------------------

    def _unfinished(self) -> list[str]:
        return [f"{row.job.id} {row.state}" for row in self.disk.jobs.values() if not row.state.is_end]

    def _judge(self) -> None:
        disk = self.disk
        disk.recover()  # The last crash may have come after the last job; the next start mends its traces.
        if self._unfinished() or disk.queue or disk.open():
            raise Violation(f"left over: queue {disk.queue}, jobs {self._unfinished()}, open {disk.open()}")
        if sorted(disk.consumed) != sorted(disk.tasks):
            raise Violation(f"consumed {sorted(disk.consumed)}, there were {sorted(disk.tasks)}")
        have = {int(row.job.command) for row in disk.jobs.values()}
        if have != set(disk.tasks):
            raise Violation(f"tasks without a job: {set(disk.tasks) - have}")
