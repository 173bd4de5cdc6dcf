"""How many logins may be under way at once, in all and to one host, and when to try a refused one again.

A default sshd drops some of more than ten simultaneous logins (MaxStartups 10:30:100) and tells nothing but a closed
connection. So: few at once to one host, fewer after a refusal, and a jittered pause before the next try.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

IN_ALL = 64
PER_HOST = 8
TRIES = 9
"""How often a login that the server drops before it has said anything is tried in all."""


class HostGate:
    """Lets `limit` logins to one host through at a time; a refusal halves the limit, a success raises it by one."""

    def __init__(self, limit: int = PER_HOST) -> None:
        self.limit = limit
        self.inside = 0
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        async with self._changed:
            try:
                await self._changed.wait_for(lambda: self.inside < self.limit)
            except asyncio.CancelledError:
                # It may have been woken for a place that it does not take: the next one shall have it.
                self._changed.notify()
                raise
            self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1
            async with self._changed:
                # Not all: hundreds that wait would be woken for one place.
                self._changed.notify(max(self.limit - self.inside, 0))

    def refused(self) -> None:
        self.limit = max(1, self.limit // 2)

    def accepted(self) -> None:
        self.limit = min(PER_HOST, self.limit + 1)


class Gates:
    """One gate for all and one for each host, made on demand."""

    def __init__(self, in_all: int = IN_ALL) -> None:
        self._all = asyncio.Semaphore(in_all)
        self._hosts: dict[str, HostGate] = {}

    @asynccontextmanager
    async def login(self, address: str) -> AsyncIterator[HostGate]:
        """Wait for a turn to log in to `address`, and hold it."""
        gate = self._hosts.setdefault(address, HostGate())
        async with gate.slot(), self._all:
            yield gate


def pause_before(retry: int) -> float:
    """Seconds to wait before retry 1, 2, ...: random up to a limit that doubles from 0.1 s to 3 s."""
    return random.uniform(0, min(3.0, 0.1 * 2 ** (retry - 1)))
