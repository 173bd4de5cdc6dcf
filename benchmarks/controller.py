"""Pegasus as it is measured: the command as a process of its own, durability as always, times from its ledger."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from benchmarks.field import pegasus
from benchmarks.measure import LIMIT, Ran, Unusable, used, wait_for


@dataclass(frozen=True)
class Attempt:
    """A line of the ledger; times are of the wall clock, `ended` is 0 while it runs."""

    subnode: str
    began: float
    ended: float
    state: str


class Queue:
    """A directory with hosts.yaml and queue.yaml, and the runs of Pegasus in it."""

    def __init__(self, directory: Path, environment: Mapping[str, str], hosts: str, queue: str = "") -> None:
        self.directory = directory
        self.environment = dict(environment)
        self.file = directory / "queue.yaml"
        (directory / "hosts.yaml").write_text(hosts)
        self.file.write_text(queue)

    @property
    def ledger(self) -> Path:
        return self.directory / ".pegasus" / "queue.yaml" / "ledger.db"

    def run(self, *arguments: str, out: IO[bytes] | None = None, codes: Sequence[int] = (0,)) -> Ran:
        """`pegasus ARGUMENTS` to its end, output to /dev/null or `out`. Raises Unusable for another exit code."""
        began = time.perf_counter()
        errors = self.directory / "stderr"
        with errors.open("wb") as err:
            process = self.spawn(*arguments, out=out, err=err)
            killer = threading.Timer(LIMIT, process.kill)
            killer.start()
            _, status, usage = os.wait4(process.pid, 0)
            killer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - began
        if process.returncode not in codes:
            said = errors.read_text(errors="replace").strip()[-600:]
            raise Unusable(f"pegasus {' '.join(arguments)}: exit {process.returncode}: {said}")
        return Ran(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, b"")

    def spawn(
        self, *arguments: str, out: IO[bytes] | None = None, err: IO[bytes] | None = None
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            pegasus(*arguments),
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=out or subprocess.DEVNULL,
            stderr=err or subprocess.DEVNULL,
        )

    def attempts(self) -> list[Attempt]:
        """All attempts in the ledger, in the order of their jobs; none if there is no ledger yet."""
        if not self.ledger.exists():
            return []
        with sqlite3.connect(f"{self.ledger.absolute().as_uri()}?mode=ro", uri=True, timeout=30) as db:
            try:
                rows = db.execute("SELECT subnode, began, ended, state FROM attempt ORDER BY job, number")
                found = [Attempt(s, b, e or 0.0, state or "") for s, b, e, state in rows]
            except sqlite3.OperationalError:
                return []
        db.close()
        return found

    def succeeded(self, wanted: int) -> list[Attempt]:
        """All attempts, when that many have ended well; else Unusable."""
        attempts = self.attempts()
        good = sum(a.state == "succeeded" for a in attempts)
        if good != wanted:
            raise Unusable(f"{good} jobs of {wanted} succeeded")
        return attempts

    def remove(self) -> None:
        """Where there is much output; the rest goes with the field, for a disk may be slow after many removals."""
        shutil.rmtree(self.directory, ignore_errors=True)


class Daemon:
    """`pegasus q --daemon` on a queue, up when all its sub-nodes are; ended by TERM."""

    def __init__(self, queue: Queue, seats: int) -> None:
        self.queue = queue
        self._screen = (queue.directory / "screen").open("wb")
        self.process = queue.spawn("q", "--daemon", "--json", out=self._screen, err=self._screen)
        self._seats = seats

    def used(self) -> tuple[float, float]:
        return used(self.process.pid)

    def append(self, text: str) -> None:
        with self.queue.file.open("a") as file:
            file.write(text)

    def wait_ended(self, count: int) -> list[Attempt]:
        """The attempts, once that many have ended."""
        wait_for(
            lambda: sum(bool(a.ended) for a in self.queue.attempts()) >= count, f"{count} jobs", every=0.05
        )
        return self.queue.attempts()

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(60)
        self._screen.close()


def hosts_yaml(nodes: Sequence[str], each: int) -> str:
    """`each` sub-nodes of every node."""
    return f"- hostname: [{', '.join(nodes)}]\n  seat: [{', '.join(map(str, range(each)))}]\n"


def steady_rate(attempts: Sequence[Attempt]) -> float:
    """Jobs a second from when every sub-node had got its first job (all were connected) to the last end."""
    first: dict[str, float] = {}
    for attempt in attempts:
        first[attempt.subnode] = min(attempt.began, first.get(attempt.subnode, attempt.began))
    start, end = max(first.values()), max(a.ended for a in attempts)
    return sum(a.ended > start for a in attempts) / (end - start)
