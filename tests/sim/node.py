"""A simulated node: start markers, one control runner per connection, processes, reboots, and late messages."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pegasus_py.core.model import Attempt, Report, Spot
from pegasus_py.core.moves import Exited, Fact, Killed, Refused, Reported
from tests.sim.oracle import Process

if TYPE_CHECKING:
    from tests.sim.world import World


@dataclass
class Marker:
    """What the spool has of an attempt, and the process if there is one."""

    boot: int
    spot: Spot
    process: Process | None = None
    status: int | None = None
    written: float = 0.0
    runner_gone: bool = False
    watchers: list[Callable[[], None]] = field(default_factory=list)


class Session:
    """One connection's control runner on the node, and the way back to the controller."""

    def __init__(
        self, node: Node, epoch: int, reply: Callable[[Fact], None], overtaken: Callable[[], None]
    ) -> None:
        self.node, self.epoch, self.reply, self.overtaken = node, epoch, reply, overtaken
        self.alive = True
        self.todo: deque[tuple[str, Attempt]] = deque()
        self.busy = False

    def deliver(self, kind: str, attempt: Attempt) -> None:
        """A message of the controller's has reached the node."""
        if not self.alive:
            return
        if kind in ("start", "attach"):
            self.todo.append((kind, attempt))
            self._next()
        else:
            getattr(self.node, kind)(self, attempt)

    def _next(self) -> None:
        while self.todo and not self.busy and self.alive:
            kind, attempt = self.todo.popleft()
            getattr(self.node, kind)(self, attempt)

    def wait_for(self, marker: Marker, attempt: Attempt) -> None:
        """Block until the attempt's process is gone; then tell what is known of its end."""
        self.busy = True

        def gone() -> None:
            if self.alive:
                self.busy = False
                self.tell_end(marker, attempt)
                self._next()

        marker.watchers.append(gone)

    def tell_end(self, marker: Marker, attempt: Attempt) -> None:
        if marker.spot is Spot.EXITED and marker.status is not None:
            self.reply(Exited(attempt.id, marker.status))
        else:
            self.reply(Reported(self.node.report(attempt)))


class Node:
    """One host. Its seats share the spool."""

    def __init__(self, world: World, host: str) -> None:
        self.world, self.host = world, host
        self.boot = 1
        self.epoch = 0
        self.spool: dict[str, Marker] = {}
        self.sessions: list[Session] = []
        self.away_until = 0.0
        self.full_until = 0.0

    def open(
        self, epoch: int, reply: Callable[[Fact], None], overtaken: Callable[[], None]
    ) -> Session | None:
        """A new connection says hello. None: a later run has been here."""
        if epoch < self.epoch:
            return None
        self.epoch = epoch
        session = Session(self, epoch, reply, overtaken)
        self.sessions = [s for s in self.sessions if s.alive]
        self.sessions.append(session)
        return session

    # --- the control runner ------------------------------------------------------------------------------------

    def start(self, session: Session, attempt: Attempt) -> None:
        if session.epoch < self.epoch:
            session.overtaken()
        elif attempt.id in self.spool:
            session.reply(Reported(Report(attempt.id, Spot.RUNNING)))
        elif self.world.now < self.full_until:
            session.reply(Refused(attempt.id, "no space left on device"))
        else:
            marker = self.spool[attempt.id] = Marker(self.boot, Spot.STARTING)
            self.world.oracle.doubtful.add(attempt.id)
            session.wait_for(marker, attempt)
            self.world.after(self.world.rng.choice((0.0, 0.001, 0.5)), lambda: self._spawn(marker, attempt))

    def _spawn(self, marker: Marker, attempt: Attempt) -> None:
        if marker.boot != self.boot or marker.runner_gone:
            return
        self.world.oracle.doubtful.discard(attempt.id)
        process = self.world.oracle.starts(attempt, self.world.now)
        self.world.say(f"{self.host}: {attempt.id} starts")
        marker.process, marker.spot = process, Spot.RUNNING
        seconds, status = self.world.fate(attempt)
        self.world.after(seconds, lambda: self._exit(marker, attempt, status))

    def _exit(self, marker: Marker, attempt: Attempt, status: int) -> None:
        process = marker.process
        if process is None or not process.alive:
            return
        process.alive = False
        self.world.say(f"{self.host}: {attempt.id} exits with {status}")
        if marker.runner_gone:
            process.unwatched = True
        else:
            process.status = status
            marker.spot, marker.status, marker.written = Spot.EXITED, status, self.world.now
        self._wake(marker)

    def _wake(self, marker: Marker) -> None:
        watchers, marker.watchers = marker.watchers, []
        for watcher in watchers:
            watcher()

    def attach(self, session: Session, attempt: Attempt) -> None:
        marker = self.spool.get(attempt.id)
        report = self.report(attempt)
        if marker is not None and report.spot in (Spot.RUNNING, Spot.STARTING):
            session.wait_for(marker, attempt)
        elif marker is not None and report.spot is Spot.EXITED:
            session.tell_end(marker, attempt)
        else:
            session.reply(Reported(report))

    # --- further runners ---------------------------------------------------------------------------------------

    def report(self, attempt: Attempt) -> Report:
        marker = self.spool.get(attempt.id)
        if marker is None:
            return Report(attempt.id, Spot.ABSENT)
        if marker.spot in (Spot.FENCED, Spot.EXITED):
            return Report(attempt.id, marker.spot, marker.status)
        if marker.boot != self.boot:
            return Report(attempt.id, Spot.REBOOTED)
        if marker.process is not None:
            return Report(attempt.id, Spot.RUNNING if marker.process.alive else Spot.VANISHED)
        return Report(attempt.id, Spot.VANISHED if marker.runner_gone else Spot.STARTING)

    def ask(self, session: Session, attempt: Attempt) -> None:
        report = self.report(attempt)
        if report.spot in (Spot.RUNNING, Spot.EXITED) and self.world.fault(0.02):
            report = Report(attempt.id, Spot.ELSEWHERE)
        session.reply(Reported(report))

    def fence(self, session: Session, attempt: Attempt) -> None:
        if attempt.id not in self.spool and self.world.now >= self.full_until:
            self.spool[attempt.id] = Marker(self.boot, Spot.FENCED)
        session.reply(Reported(self.report(attempt)))

    def end(self, session: Session, attempt: Attempt) -> None:
        """End the process tree; now and then something cannot be ended for a long while."""
        marker = self.spool.get(attempt.id)
        if marker is None or marker.process is None or not marker.process.alive:
            session.reply(Killed(attempt.id))
        elif self.world.fault(0.03):
            self.world.oracle.stuck.add(attempt.id)
            session.reply(Killed(attempt.id, ("4711 stuck",)))
        else:
            self._exit(marker, attempt, 143)
            session.reply(Killed(attempt.id))

    def clear(self, session: Session, attempt: Attempt) -> None:
        self.spool.pop(attempt.id, None)

    def sweep(self, attempt: Attempt) -> bool:
        """What a link does when it meets a host for the first time: fence, end, clear what earlier runs left."""
        if attempt.id not in self.spool:
            if self.world.now < self.full_until:
                return False
            self.spool[attempt.id] = Marker(self.boot, Spot.FENCED)
        marker = self.spool[attempt.id]
        if marker.spot is Spot.STARTING and self.report(attempt).spot is Spot.STARTING:
            return False
        if marker.process is not None and marker.process.alive:
            self._exit(marker, attempt, 143)
        del self.spool[attempt.id]
        return True

    # --- faults ------------------------------------------------------------------------------------------------

    def reboot(self) -> None:
        """Processes and runners go; an exit status of the last second may not have reached the disk."""
        self.world.say(f"{self.host}: reboots")
        self.boot += 1
        for session in self.sessions:
            session.alive = False
        self.sessions.clear()
        for marker in self.spool.values():
            marker.watchers.clear()
            process = marker.process
            if process is not None and process.alive:
                process.alive, process.unwatched = False, True
            if (
                marker.spot is Spot.EXITED
                and marker.written > self.world.now - 1.0
                and self.world.chance(0.5)
            ):
                marker.spot, marker.status = Spot.RUNNING, None
                if process is not None:
                    process.unwatched = True
        self.away_until = self.world.now + self.world.rng.uniform(1, 60)

    def kill_runner(self) -> None:
        """Somebody kills a runner: its job, if it has one, goes on without anybody to write its status."""
        for session in self.sessions:
            session.alive = False
        for marker in self.spool.values():
            if marker.boot == self.boot and marker.spot in (Spot.STARTING, Spot.RUNNING):
                marker.runner_gone = True
                marker.watchers.clear()
                if marker.process is None:
                    self.world.say(f"{self.host}: a runner dies before it starts its job")
