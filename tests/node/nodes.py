"""Real local shells for the tests of the node side, and a watcher that can be waited for."""

from __future__ import annotations

import asyncio
import atexit
import functools
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pegasus_py.core.model import Attempt, Job, Report, SubNode, Task
from pegasus_py.node.local import LocalConnection, LocalConnector
from pegasus_py.node.session import NodeSession
from pegasus_py.node.shell import BOOTSTRAP

QUEUE = secrets.token_hex(8)
"""Another for each process: what carries an attempt is looked for on the whole machine."""
WAIT = 30.0

SHELLS = [name for name in ("bash", "dash", "busybox") if shutil.which(name)]
"""The shells that a runner is tried with. busybox is tried where it is installed."""
WITH_STARTER = "starter"
"""bash, and Python beside it: what most nodes have."""
PYTHON = Path("/usr/bin/python3")
WAYS = [*SHELLS, *([WITH_STARTER] if PYTHON.exists() and "bash" in SHELLS else [])]
PROGRAMS = {"bash": "/bin/sh", WITH_STARTER: "/bin/sh", "dash": "dash", "busybox": "busybox sh"}


@functools.cache
def busybox_tools() -> str:
    """A directory with all tools of busybox, as some nodes have no others."""
    directory = tempfile.mkdtemp(prefix="pegasus-busybox-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    subprocess.run(["busybox", "--install", "-s", directory], check=True)
    return directory


def surroundings(way: str, env: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment in which a login has that way."""
    found = {**os.environ, **(env or {})}
    if way != WITH_STARTER:
        found["PEGASUS_PYTHON"] = ""
    if way in ("dash", "busybox"):
        found["PEGASUS_PLAIN_SH"] = "1"
    if way == "busybox":
        usual = os.environ["PATH"]
        found["PATH"] = found["PATH"].replace(usual, f"{busybox_tools()}:{usual}")
    return found


def bootstrap(way: str) -> str:
    return BOOTSTRAP.replace("/bin/sh", PROGRAMS[way])


def connector(shell: str, env: Mapping[str, str] | None = None) -> LocalConnector:
    return LocalConnector(surroundings(shell, env), ("/bin/sh", "-c", bootstrap(shell)))


def attempt(job: int, command: str, number: int = 1, queue: str = QUEUE) -> Attempt:
    return Attempt(Job(job, Task(command), command, "n1"), number, "n1", queue)


def attempt_id(job: int, number: int = 1) -> str:
    return f"{job}.{number}.{QUEUE}"


class Watcher:
    """An observer that keeps what it is told, as tuples that begin with the name of the call."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()

    def exited(self, attempt_id: str, status: int, size: int, inline: bytes | None) -> None:
        self.events.put_nowait(("exited", attempt_id, status, size, inline))

    def exists(self, attempt_id: str) -> None:
        self.events.put_nowait(("exists", attempt_id))

    def refused(self, attempt_id: str, reason: str) -> None:
        self.events.put_nowait(("refused", attempt_id, reason))

    def overtaken(self, epoch: int) -> None:
        self.events.put_nowait(("overtaken", epoch))

    def reported(self, report: Report) -> None:
        self.events.put_nowait(("reported", report))

    def closed(self, reason: str) -> None:
        self.events.put_nowait(("closed", reason))

    async def next(self) -> tuple[Any, ...]:
        async with asyncio.timeout(WAIT):
            return await self.events.get()


@dataclass
class Node:
    """A session to a local shell, and what belongs to it."""

    session: NodeSession
    connection: LocalConnection
    watcher: Watcher
    spool: Path
    shell: str

    async def run(self, job: int, command: str) -> tuple[Any, ...]:
        """Start it and wait for what is told."""
        self.session.start(attempt(job, command))
        return await self.watcher.next()

    def runner(self) -> int:
        """The pid of the shell that runs the jobs."""
        (claim,) = self.spool.glob(f"{QUEUE}/ctl.*")
        return int(claim.read_text().split()[0])

    def kill_runner(self, job: int) -> None:
        """All that waits for the job's end, which goes on."""
        for pid in (*self.starters(job), self.runner()):
            os.kill(pid, signal.SIGKILL)

    def starters(self, job: int) -> list[int]:
        """The pid of the starter.py that has started it, if one has."""
        first = self.marker(job)[0]
        return [int(first[-3])] if len(first) == 12 else []

    def marker(self, job: int) -> list[list[str]]:
        path = self.spool / QUEUE / f"{job}.1.job"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def _pid(self, job: int) -> int:
        """By the marker: in the first line, or in one of its own where starter.py has made it; else 0."""
        lines = self.marker(job)
        named = [line for line in lines if line[0] == "pid" and line[-1] == "."]
        word = named[0][1] if named else lines[0][3]
        return int(word) if word != "-" else 0

    async def job_pid(self, job: int) -> int:
        """The pid of the job's process, once it has become the job."""
        await until(lambda: (self.spool / QUEUE / f"{job}.1.out").exists(), f"job {job} to begin")
        await until(lambda: self._pid(job), f"job {job} to be named")
        pid = self._pid(job)
        await until(lambda: carries(pid, f"PEGASUS_ATTEMPT={job}.1.{QUEUE}"), f"job {job} to run")
        return pid


@dataclass
class Place:
    """Where sessions are opened in a test: a kind of shell and a spool."""

    shell: str
    spool: Path
    env: dict[str, str] = field(default_factory=dict)

    @asynccontextmanager
    async def node(self, name: str = "n1", epoch: int = 1) -> AsyncIterator[Node]:
        subnode = SubNode(name, "localhost", (("hostname", "localhost"),), str(self.spool))
        connection = await connector(self.shell, self.env).connect(subnode)
        watcher = Watcher()
        try:
            session = await NodeSession.open(connection, subnode, QUEUE, epoch, watcher)
            yield Node(session, connection, watcher, self.spool, self.shell)
            session.close()
        finally:
            await connection.close()


async def until(true: Callable[[], object], what: str) -> None:
    """Wait, bounded, for something that no event tells."""
    for _ in range(int(WAIT / 0.01)):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"waited in vain for {what}")


def carries(pid: int, variable: str) -> bool:
    """The process has it in its environment, and its own process group."""
    environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return variable.encode() in environment and os.getpgid(pid) == pid


def gone(pid: int) -> bool:
    """No such process, or only its zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True
