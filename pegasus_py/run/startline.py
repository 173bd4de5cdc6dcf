"""The first news of connections, held back until all are there: nobody takes the queue's first jobs for being near."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from pegasus_py.core.moves import Closed, Fact, Opened

PATIENCE = 2.0
"""Seconds that the others get once the first connection is open; a node that is silent holds nobody up for longer."""


class StartLine:
    """Passes facts on to `fact`; those about connections only once every name in `names` has had a first try."""

    def __init__(self, names: Iterable[str], fact: Callable[[Fact], None]) -> None:
        self._fact = fact
        self._awaited = set(names)
        self._held: list[Fact] = []
        self._timer: asyncio.TimerHandle | None = None
        self._gone = False

    def __call__(self, fact: Fact) -> None:
        """Take a fact from a link."""
        if self._gone or not isinstance(fact, Opened | Closed):
            self._fact(fact)
            return
        self._held.append(fact)
        self._awaited.discard(fact.seat)
        if not self._awaited:
            self.go()
        elif self._timer is None and isinstance(fact, Opened):
            self._timer = asyncio.get_running_loop().call_later(PATIENCE, self.go)

    def go(self) -> None:
        """Wait for nobody any more."""
        self._gone = True
        if self._timer is not None:
            self._timer.cancel()
        held, self._held = self._held, []
        for fact in held:
            self._fact(fact)
