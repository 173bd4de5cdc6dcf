"""One question at a time for all who need its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Once(Generic[T]):
    """The result of one call, for all who ask while it runs and afterwards. A failure is for those alone who waited."""

    def __init__(self, call: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._call = call
        self._task: asyncio.Task[T] | None = None

    @property
    def is_asked(self) -> bool:
        """The answer is there, or about to be, and does not depend on what happens from now on."""
        task = self._task
        return task is not None and not (task.done() and (task.cancelled() or task.exception() is not None))

    async def get(self) -> T:
        task = self._task
        if task is None or not self.is_asked:
            task = self._task = asyncio.create_task(self._call())
            # If all have given up, nobody needs the error.
            task.add_done_callback(lambda task: task.cancelled() or task.exception())
        # Not the task itself: one who gives up takes nothing from the others.
        await asyncio.wait([task])
        return task.result()
