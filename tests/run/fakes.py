"""A node's session that does nothing by itself: the test sees what is asked of it, and says what comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pegasus_py.core.events import Event
from pegasus_py.core.model import Attempt, Job, Report, Spot, SubNode, Task
from pegasus_py.core.moves import Fact
from pegasus_py.errors import NodeError
from pegasus_py.node.channel import Sink
from pegasus_py.node.session import NodeInfo, NodeSession
from pegasus_py.run import link as link_module
from pegasus_py.run.link import Link, Plant
from pegasus_py.store.logs import LogFiles

QUEUE = "0123456789abcdef"
NODE = SubNode("node-1", "node-1", (("hostname", "node-1"),))


def attempt(job: int = 1, number: int = 1, node: SubNode = NODE, **job_fields: Any) -> Attempt:
    made = Job(job, Task("true"), "true", node.name, **job_fields)
    return Attempt(made, number, node.name, QUEUE, node.hostname, node.spool)


class FakeSession:
    """In place of NodeSession. `said` is what was asked; questions are answered by `answers`, or wait for ever."""

    def __init__(self, subnode: SubNode, observer: Link) -> None:
        self.subnode = subnode
        self.host = subnode.name
        self.info = NodeInfo("boot-1", "machine", "bash", True, 1e9)
        self.fresh = False
        self.observer = observer
        self.job: str | None = None
        self.said: list[tuple[str, Any]] = []
        self.answers: dict[str, Callable[..., Any]] = {
            "clear": lambda ids: None,
            "list": lambda _: [],
            "bye": lambda _: None,
        }
        self.output = b""
        self.cleared_along: list[str] = []
        """What the last start was to clear."""

    @property
    def busy(self) -> bool:
        return self.job is not None

    def start(self, attempt: Attempt, clear: Sequence[str] = (), *, within: float | None = None) -> None:
        self._take("start", attempt.id)
        self.cleared_along = list(clear)

    def attach(self, attempt_id: str) -> None:
        self._take("attach", attempt_id)

    def _take(self, verb: str, attempt_id: str) -> None:
        assert self.job is None, f"{verb} {attempt_id} while {self.job} is out"
        self.job = attempt_id
        self.said.append((verb, attempt_id))

    async def _ask(self, verb: str, about: Any) -> Any:
        self.said.append((verb, about))
        if verb not in self.answers:
            await asyncio.get_running_loop().create_future()
        answer = self.answers[verb](about)
        return await answer if asyncio.isfuture(answer) else answer

    async def ask(self, ids: Sequence[str]) -> list[Report]:
        return [await self._ask("ask", each) for each in ids]

    async def fence(self, attempt_id: str) -> Any:
        return await self._ask("fence", attempt_id)

    async def end(self, attempt_id: str, grace: float) -> Any:
        return await self._ask("end", attempt_id)

    async def run_cancel(self, attempt_id: str, text: str, limit: float) -> Any:
        return await self._ask("run", attempt_id)

    async def clear(self, ids: Sequence[str]) -> None:
        await self._ask("clear", list(ids))

    async def list(self) -> Any:
        return await self._ask("list", None)

    async def read(self, attempt_id: str, offset: int, length: int) -> bytes:
        await self._ask("read", offset)
        return self.output[offset : offset + length]

    async def follow(self, attempt_id: str, offset: int, sink: Sink) -> Any:
        if "follow" not in self.answers:
            raise NodeError(self.host, "no more channels")
        self.said.append(("follow", offset))
        return self.answers["follow"](sink)

    async def know(self) -> None:
        self.fresh = False

    async def bye(self) -> None:
        await self._ask("bye", None)

    def exit(self, status: int, size: int = 0, inline: bytes | None = b"") -> None:
        """The job that is out has ended."""
        job, self.job = self.job, None
        assert job is not None
        self.observer.exited(job, status, size, inline)


class FakeConnection:
    async def close(self) -> None:
        pass


class FakeConnector:
    async def connect(self, subnode: SubNode) -> FakeConnection:
        return FakeConnection()


class Stage:
    """A link with everything around it. `sessions` are those that were opened, in order."""

    def __init__(self, tmp_path: Path, monkeypatch: Any) -> None:
        self.facts: list[Fact] = []
        self.events: list[Event] = []
        self.crashes: list[BaseException] = []
        self.cleared: list[str] = []
        self.sessions: list[FakeSession] = []
        self.began: dict[str, float] = {}
        self.logs = LogFiles(tmp_path)
        self.opened = asyncio.Event()
        self.before_sweep: Callable[[FakeSession], None] = lambda session: None

        self.refusal: NodeError | None = None
        """What opening a session meets."""

        async def open_session(
            connection: Any, subnode: SubNode, queue: str, epoch: int, observer: Link
        ) -> FakeSession:
            if self.refusal is not None:
                raise self.refusal
            self.sessions.append(FakeSession(subnode, observer))
            return self.sessions[-1]

        monkeypatch.setattr(NodeSession, "open", staticmethod(open_session))
        monkeypatch.setattr(link_module, "FIRST_WAIT", 0.0)
        monkeypatch.setattr(link_module, "LONGEST_WAIT", 0.0)
        monkeypatch.setattr(link_module, "REFUSED_WAIT", 0.0)
        self.link = Link(NODE, self._plant())

    def _plant(self) -> Plant:
        async def flush(attempts: list[Attempt]) -> None:
            self.logs.sync(attempts)

        async def sweep(session: Any) -> None:
            pass

        return Plant(
            connector=lambda _: FakeConnector(),  # type: ignore[arg-type,return-value]
            queue_id=QUEUE,
            epoch=1,
            grace=10.0,
            logs=self.logs,
            flush=flush,
            fact=self.facts.append,
            tell=self.events.append,
            overtaken=lambda who: None,
            crashed=self.crashes.append,
            cleared=self.cleared.extend,
            expects=lambda name: False,
            sweep=sweep,
            began=self.began,
            backlog=lambda: 0,
        )

    async def session(self, count: int = 1) -> FakeSession:
        """The `count`-th session, once the link has it."""
        await until(lambda: len(self.sessions) >= count and self.link.is_up)
        return self.sessions[count - 1]


async def until(condition: Callable[[], object]) -> None:
    """Let the loop turn until `condition` holds."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def report(attempt: Attempt, spot: Spot, **fields: Any) -> Report:
    return Report(attempt.id, spot, **fields)
