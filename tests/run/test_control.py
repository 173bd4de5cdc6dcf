"""Requests are answered, whenever they come."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from pegasus_py.core.events import Note
from pegasus_py.core.moves import CancelAsked, StopAsked, StopLevel
from pegasus_py.errors import StorageError
from pegasus_py.run.control import Control
from pegasus_py.store.control import Request


class FakeServer:
    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.replies: dict[str, Any] = {}
        self.broken = False

    def poll_requests(self) -> list[Request]:
        if self.broken:
            raise StorageError("control", "Permission denied")
        taken, self.requests = self.requests, []
        return taken

    def reply(self, id: str, answer: Any) -> None:
        self.replies[id] = answer


class FakeEngine:
    """Takes facts, and does nothing about them."""

    def __init__(self) -> None:
        self.facts: list[Any] = []
        self.state = SimpleNamespace(seat_of={"1.1.q": "node-1"})
        self.on_end: Any = None

    def fact(self, fact: Any, done: Any = None) -> None:
        self.facts.append(fact)

    def job_ids(self) -> set[int]:
        return {1}

    async def guard(self, work: Any) -> None:
        await work


def _control() -> tuple[Control, FakeEngine, FakeServer, list[Any]]:
    engine, server = FakeEngine(), FakeServer()
    events: list[Any] = []
    return Control(engine, server, events.append), engine, server, events  # type: ignore[arg-type]


async def test_whoever_asks_while_the_run_ends_gets_an_answer() -> None:
    control, _, server, _ = _control()
    server.requests = [Request("early", "stop", {"now": False})]
    control._look()
    assert server.replies == {}
    server.requests = [Request("late", "stop", {"now": True}), Request("gone", "cancel", {"jobs": [1]})]
    await control.close()
    assert server.replies["early"] == server.replies["late"] == {"running": 1}
    assert server.replies["gone"]["lines"]


async def test_each_ctrl_c_goes_a_step_further() -> None:
    control, engine, _, _ = _control()
    for _ in range(3):
        control._signalled()
    assert engine.facts == [StopAsked(level) for level in StopLevel]


def test_a_directory_that_cannot_be_read_is_told_once() -> None:
    control, engine, server, events = _control()
    server.broken = True
    control._look()
    control._look()
    assert [type(event) for event in events] == [Note]
    server.broken = False
    server.requests = [Request("c", "cancel", {"jobs": [1]})]
    control._look()
    assert engine.facts == [CancelAsked(frozenset({1}))]
