"""SSH's keepalive with a timer that is not set again for each read: it asks after an interval of silence as before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from pegasus_py.node.sshimport import asyncssh
from pegasus_py.node.sshspare import spare_timers


class Timer:
    def __init__(self, when: float, function: Callable[[], None]) -> None:
        self.when = when
        self.function = function
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Clock:
    """An event loop's time and timers, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.timers: list[Timer] = []
        self.made = 0

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, function: Callable[[], None]) -> Timer:
        self.made += 1
        self.timers.append(Timer(self.now + delay, function))
        return self.timers[-1]

    def pass_to(self, then: float) -> None:
        while due := [t for t in self.timers if not t.is_cancelled and t.when <= then]:
            first = min(due, key=lambda timer: timer.when)
            self.timers.remove(first)
            self.now = max(self.now, first.when)
            first.function()
        self.now = then


def connected(clock: Clock, *, spared: bool) -> tuple[Any, list[float]]:
    """A connection that is logged in, and when it asked."""
    options = asyncssh.SSHClientConnectionOptions(
        config=None, known_hosts=None, username="u", client_keys=None, keepalive_interval=10
    )
    connection: Any = asyncssh.SSHClientConnection(asyncio.get_running_loop(), options, wait=None)
    asked: list[float] = []
    connection._loop = clock

    def ask(work: Coroutine[Any, Any, None]) -> None:
        work.close()
        asked.append(clock.now)

    connection.create_task = ask
    if spared:
        spare_timers(connection)
    connection._recv_data()
    connection._auth_complete = True
    connection._set_keepalive_timer()
    return connection, asked


# What happens when: "r" is a read, "a" an answer to what was asked, a number a new interval.
COURSES = [
    [(1002.0, "r"), (1004.0, "r"), (1040.0, "")],
    [(1009.9, "r"), (1019.9, "r"), (1029.9, "r")],
    [(1010.5, "a"), (1021.0, "a"), (1080.0, "")],
    [(1003.0, "r"), (1004.0, 30), (1100.0, "")],
    [(1003.0, "r"), (1004.0, 2), (1011.0, "")],
    [(1003.0, "r"), (1004.0, 0), (1100.0, "r"), (1101.0, 5), (1107.0, "")],
]


@pytest.mark.parametrize("course", COURSES)
async def test_it_asks_when_asyncssh_alone_would(course: list[tuple[float, Any]]) -> None:
    async def asked(*, spared: bool) -> list[float]:
        clock = Clock()
        connection, found = connected(clock, spared=spared)
        lost: list[float] = []
        connection.connection_lost = lambda error: lost.append(clock.now)
        for then, what in course:
            clock.pass_to(then)
            if what == "a":
                connection._keepalive_count = 0
            if what in ("r", "a"):
                connection._recv_data()
            elif what != "":
                connection.set_keepalive(what)
        return [*found, *(-at for at in lost)]

    assert await asked(spared=True) == pytest.approx(await asked(spared=False))


async def test_a_read_sets_no_timer() -> None:
    clock = Clock()
    connection, _ = connected(clock, spared=True)
    connection._recv_data()
    before = clock.made
    for _ in range(100):
        connection._recv_data()
    assert clock.made == before, "asyncssh is made otherwise: it sets a timer for each read again"
    connection._cancel_keepalive_timer()
    clock.pass_to(2000.0)
    assert clock.made == before
