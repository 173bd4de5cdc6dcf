"""One question at a time for all who need its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Once(Generic[T]):
    """The result of one call, for all who ask while it runs and afterwards. A failure is for those alone who waited."""

    def __init__(self, call: Callable[[], Awaitable[T]]) -> None:
        self._call = call
        self._task: asyncio.Task[T] | None = None

    async def get(self) -> T:
        if self._task is None:
            self._task = asyncio.create_task(self._run())
            # If all have given up, nobody needs the error.
            self._task.add_done_callback(lambda task: task.cancelled() or task.exception())
        # Shielded: one who gives up takes nothing from the others.
        return await asyncio.shield(self._task)

    async def _run(self) -> T:
        try:
            return await self._call()
        except BaseException:
            self._task = None
            raise
