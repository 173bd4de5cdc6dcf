"""What users ask of a running controller: signals in its terminal, and requests of `stop`, `cancel` and `status`."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from pegasus_py.core.events import Ended, Event, Note
from pegasus_py.core.model import JobState
from pegasus_py.core.moves import CancelAsked, StopAsked, StopLevel
from pegasus_py.errors import PegasusError
from pegasus_py.run.condition import condition
from pegasus_py.run.engine import Engine
from pegasus_py.store.control import ControlServer, Request

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LOOK_EVERY = 1.0
"""Seconds between looks at the requests of clients that could not knock (on another host)."""


class Control:
    """Turns signals and requests into facts for the engine, and answers requests when they have taken effect."""

    def __init__(self, engine: Engine, server: ControlServer, tell: Callable[[Event], None]) -> None:
        self._engine = engine
        self._server = server
        self._tell = tell
        self._level: StopLevel | None = None
        self._looker: asyncio.Task[None] | None = None
        self._cancels: list[_Cancel] = []
        self._stops: list[Request] = []
        self._trouble = ""
        self._handled: list[signal.Signals] = []

    def start(self) -> None:
        """Begin to listen."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._signalled)
            self._handled.append(number)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            # The terminal is gone: jobs go on, and the next run takes them up.
            loop.add_signal_handler(signal.SIGHUP, self._stop, StopLevel.LEAVE)
            self._handled.append(signal.SIGHUP)
        loop.add_signal_handler(signal.SIGUSR1, self._look)
        self._handled.append(signal.SIGUSR1)
        self._looker = asyncio.create_task(self._engine.guard(self._look_often()))
        self._engine.on_end = self._ended

    async def close(self) -> None:
        """Stop listening; who still waits for an answer gets one."""
        loop = asyncio.get_running_loop()
        for number in self._handled:
            loop.remove_signal_handler(number)
            # Not SIG_IGN, which says that our user wants it ignored.
            signal.signal(number, lambda *_: None)
        if self._looker is not None:
            self._looker.cancel()
            await asyncio.gather(self._looker, return_exceptions=True)
        self._look()
        for cancel in self._cancels:
            lines = [*cancel.lines, "the controller ended before the rest did"]
            self._reply(cancel.request, {"lines": lines, "done": False})
        for request in self._stops:
            self._reply(request, {"running": len(self._engine.state.seat_of)})

    def _signalled(self) -> None:
        """First: finish what runs. Second: end it. Third: leave it. Fourth: even if the disk does not answer."""
        if self._level is StopLevel.LEAVE:
            with mortal():
                signal.raise_signal(signal.SIGTERM)
        order = [StopLevel.FINISH, StopLevel.NOW, StopLevel.LEAVE]
        self._stop(order[min(order.index(self._level) + 1, 2)] if self._level else StopLevel.FINISH)

    def _stop(self, level: StopLevel, done: Callable[[], None] | None = None) -> None:
        if self._level is None or level.value > self._level.value:
            self._level = level
        self._engine.fact(StopAsked(level), done)

    async def _look_often(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            self._look()

    def _look(self) -> None:
        try:
            requests = self._server.poll_requests()
        except PegasusError as error:
            if str(error) != self._trouble:
                self._trouble = str(error)
                self._tell(Note(self._trouble, warning=True))
            return
        self._trouble = ""
        for request in requests:
            self._serve(request)

    def _serve(self, request: Request) -> None:
        match request.verb, request.arguments:
            case "stop", {"now": bool(now)}:
                self._stops.append(request)
                self._stop(StopLevel.NOW if now else StopLevel.FINISH, lambda: self._acknowledge(request))
            case "status", _:
                self._reply(request, condition(self._engine))
            case "cancel", {"jobs": None}:
                self._cancel(request, None)
            case "cancel", {"jobs": list(jobs)} if all(isinstance(job, int) for job in jobs):
                self._cancel(request, jobs)
            case _:
                self._reply(request, {"error": f"the controller does not know how to {request.verb!r}"})

    def _acknowledge(self, request: Request) -> None:
        self._stops.remove(request)
        self._reply(request, {"running": len(self._engine.state.seat_of)})

    def _cancel(self, request: Request, jobs: Iterable[int] | None) -> None:
        present = self._engine.job_ids()
        wanted = present if jobs is None else set(jobs)
        cancel = _Cancel(request, wanted & present)
        cancel.lines += [f"job {job} neither runs nor waits" for job in sorted(wanted - present)]
        cancel.is_done = wanted <= present
        self._cancels.append(cancel)
        self._engine.fact(CancelAsked(frozenset(wanted & present)), lambda: self._settle(cancel))

    def _ended(self, job: int, event: Ended | None) -> None:
        """A job has reached an end (no event: while it was waiting)."""
        for cancel in list(self._cancels):
            if job in cancel.jobs:
                cancel.jobs.discard(job)
                cancel.lines.append(_line(job, event))
                if event is not None and event.end.survivors:
                    cancel.is_done = False
                self._settle(cancel)

    def _settle(self, cancel: _Cancel) -> None:
        if not cancel.jobs and cancel in self._cancels:
            self._cancels.remove(cancel)
            lines = cancel.lines or ["nothing to cancel"]
            self._reply(cancel.request, {"lines": lines, "done": cancel.is_done})

    def _reply(self, request: Request, answer: dict[str, Any]) -> None:
        self._server.reply(request.id, answer)


@contextmanager
def signals_restored() -> Iterator[None]:
    """Whatever is done to the signals' handlers within is undone."""
    before = {number: signal.getsignal(number) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def make_mortal() -> None:
    """Signals end the process at once: for when all is recorded, and what is left may never end."""
    for number in _ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def mortal() -> Iterator[None]:
    """`make_mortal` within."""
    with signals_restored():
        make_mortal()
        yield


class _Cancel:
    def __init__(self, request: Request, jobs: set[int]) -> None:
        self.request = request
        self.jobs = jobs
        self.lines: list[str] = []
        self.is_done = True
        """Each job that was named was there, and nothing of it is left."""


def _line(job: int, event: Ended | None) -> str:
    if event is None:
        return f"job {job} is cancelled"
    text = f"job {job} on {event.attempt.subnode} is {event.end.state}"
    if event.end.state is not JobState.CANCELLED and event.end.status is not None:
        text += f" (exit {event.end.status})"
    if event.end.survivors:
        text += f"; could not be ended: {', '.join(event.end.survivors)}"
    return text
