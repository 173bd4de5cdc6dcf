"""The controller's end of one sub-node: start attempts, ask after them, end them, follow their output.

A session has one control channel, whose script runs one job at a time, and opens others when they are needed: one for
questions while a job runs, one to follow output. Never more than three, for servers allow only a few.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from msgspec import Struct

from pegasus_py.core.model import Attempt, Report, Spot, SubNode
from pegasus_py.errors import NodeError
from pegasus_py.node.channel import Answer, Channel, Question, Sink
from pegasus_py.node.protocol import (
    BY_STARTER,
    ProtocolError,
    greeting,
    request,
    serve_request,
    text_request,
)
from pegasus_py.node.shell import Connection

T = TypeVar("T")
_Reports = list[Report]
_Ids = list[str]
_Words = list[str]

OPEN_WITHIN = 30.0
"""Seconds for a shell to be opened and to answer."""
ANSWER_WITHIN = 60.0
"""Seconds for the answer to a question that needs no waiting on the node."""
_KILL_WITHIN = 10.0
_NAMES_AT_ONCE = 100
_CHANNEL_TRIES = 6


class Observer(Protocol):
    """Who is told what becomes of the attempts that were started or attached. Called in the event loop; may call
    `start` at once, and must not raise."""

    def exited(self, attempt_id: str, status: int, size: int, inline: bytes | None) -> None:
        """It has ended. `size` is that of its output in bytes; `inline` is the whole output when it is short."""

    def exists(self, attempt_id: str) -> None:
        """`start` did nothing: its marker was there. It may be running, or ended, or fenced: attach or ask."""

    def refused(self, attempt_id: str, reason: str) -> None:
        """`start` could not be done and left no trace: the command did not run, and may be started again."""

    def overtaken(self, epoch: int) -> None:
        """A newer run of a controller (`epoch`), or a newer session for this sub-node, has taken over: nothing was
        started, and nothing can be."""

    def reported(self, report: Report) -> None:
        """What `attach` found where there is nothing to wait for and no exit status."""

    def closed(self, reason: str) -> None:
        """The connection or the control channel is gone; once, and not after our own `close` or `bye`."""


class NodeInfo(Struct, frozen=True):
    """What the node said of itself: boot id, machine name, kind of shell, whether jobs get a process group.

    `ahead`: its clock less ours, in seconds; what is true is this or a little more (the way of the answer to us).
    """

    boot: str
    machine: str
    shell: str
    group: bool
    ahead: float


class NodeSession:
    """Open with `NodeSession.open`. All questions raise NodeError, and every wait has a bound."""

    def __init__(
        self, connection: Connection, subnode: SubNode, queue_id: str, epoch: int, observer: Observer
    ) -> None:
        self.subnode = subnode
        self.info = NodeInfo("", "", "", False, 0.0)
        self.fresh = False
        """The spool knows nothing of this sub-node: it is new, or what it had of earlier attempts is gone. Until
        `know` says otherwise, in later sessions too."""
        self._connection = connection
        self._queue_id = queue_id
        self._epoch = epoch
        self._observer = observer
        self._job: str | None = None
        self._is_served = False
        """The control channel's script has been sent starter.py, and no request since that it would hand back."""
        self._finished = False
        self._control = Channel(connection.host, self._gone)
        self._aux: Channel | None = None
        self._aux_opening = asyncio.Lock()
        self._follow: Follow | None = None
        self._follow_place = asyncio.Semaphore(1)

    def __repr__(self) -> str:
        state = "closed" if self._finished else f"running {self._job}" if self._job else "idle"
        return f"<NodeSession {self.subnode.name} {state}>"

    @classmethod
    async def open(
        cls, connection: Connection, subnode: SubNode, queue_id: str, epoch: int, observer: Observer
    ) -> NodeSession:
        """Start the script on `subnode` for run `epoch` of the controllers of queue `queue_id`.

        Raises NodeError (no shell, no spool) and Overtaken when a higher epoch has been there.
        """
        session = cls(connection, subnode, queue_id, epoch, observer)
        boot, machine, bash, group, clock, fresh = await session._open(session._control, "control")
        session.fresh = fresh == "yes"
        # Read after the answer came, so that a deadline is rather too early than too late.
        ahead = int(clock) / 100 - time.monotonic()
        session.info = NodeInfo(boot, machine, "bash" if bash == "yes" else "sh", group == "yes", ahead)
        connection.lost.add_done_callback(session._lost)
        return session

    @property
    def host(self) -> str:
        """The name by which errors speak of the node."""
        return self._connection.host

    @property
    def busy(self) -> bool:
        """An attempt that was started or attached has not been told of yet."""
        return self._job is not None

    # --- what is told through the observer -----------------------------------------------------------------------

    def start(self, attempt: Attempt, clear: Sequence[str] = (), *, within: float | None = None) -> None:
        """Start `attempt`. The spool files of the ids in `clear` go first, and are gone once this start is answered.

        The node refuses to start it later than `within` seconds from now, by its own clock, however late the request
        arrives and whoever can reach the node then.
        """
        if self.fresh:
            self.fresh = False
            known = Question[bool](self.host, lambda words, body: _only("known", words, True))
            self._request(request("know"), known)
        self._take_job(attempt.id)
        deadline = "-" if within is None else _centiseconds(time.monotonic() + self.info.ahead + within)
        words = [deadline, *(self._name(each) for each in clear)]
        message = text_request("start", self._name(attempt.id), attempt.job.command, words)
        if not self._is_served:
            message = serve_request() + message
        self._request(message, self)
        self._is_served = True

    def _request(self, message: bytes, answer: Answer) -> None:
        """On the control channel."""
        if not message.startswith(BY_STARTER):
            self._is_served = False
        self._control.request(message, answer)

    def attach(self, attempt_id: str) -> None:
        """Wait on the node for an attempt that an earlier session has started."""
        self._take_job(attempt_id)
        self._request(request("attach", self._name(attempt_id)), self)

    # --- questions ----------------------------------------------------------------------------------------------

    async def ask(self, attempt_ids: Sequence[str]) -> _Reports:
        """What the node knows of each, in their order."""
        reports: _Reports = []
        for at in range(0, len(attempt_ids), _NAMES_AT_ONCE):
            names = [self._name(each) for each in attempt_ids[at : at + _NAMES_AT_ONCE]]
            found: _Reports = []

            def take(
                words: list[str],
                body: bytes,
                found: _Reports = found,
                wanted: int = len(names),
            ) -> _Reports | None:
                found.append(self._report(words))
                return found if len(found) == wanted else None

            reports += await self._ask(request("ask", *names), take)
        return reports

    async def fence(self, attempt_id: str) -> Report:
        """Take the start marker if it is free, so that the attempt can never start; else what there is (see Spot)."""
        return await self._ask(
            request("fence", self._name(attempt_id)), lambda words, body: self._report(words)
        )

    async def read(self, attempt_id: str, offset: int, length: int) -> bytes:
        """A piece of the output; shorter than `length` only where it ends."""
        return await self._ask(
            request("read", self._name(attempt_id), offset, length),
            lambda words, body: _only("data", words, body),
        )

    async def clear(self, attempt_ids: Sequence[str]) -> None:
        """Remove all that the spool has of these attempts, their start markers too."""
        for at in range(0, len(attempt_ids), _NAMES_AT_ONCE):
            names = [self._name(each) for each in attempt_ids[at : at + _NAMES_AT_ONCE]]
            await self._ask(request("clear", *names), lambda words, body: _only("cleared", words, True))

    async def list(self) -> _Ids:
        """The ids of all attempts of this queue that the spool has anything of, in no order."""
        names: set[str] = set()

        def take(words: list[str], body: bytes) -> bool | None:
            if words[0] == "listed":
                return True
            job, number, _ = _only("name", words, words[1]).split(".", 2)
            names.add(f"{job}.{number}.{self._queue_id}")
            return None

        await self._ask(request("list"), take)
        return sorted(names)

    async def know(self) -> None:
        """Let the spool know this sub-node from now on."""
        if self.fresh:
            await self._ask(request("know"), lambda words, body: _only("known", words, True))
            self.fresh = False

    async def end(self, attempt_id: str, grace: float) -> tuple[str, ...]:
        """TERM to every process of the attempt, KILL after `grace` seconds; the survivors as "PID NAME".

        That it has ended is told through the observer to who started or attached it.
        """
        survivors: _Ids = []

        def take(words: list[str], body: bytes) -> tuple[str, ...] | None:
            if words[0] == "survivor":
                survivors.append(f"{int(words[2])} {' '.join(words[3:])}")
                return None
            return _only("ended", words, tuple(survivors))

        message = request("end", self._name(attempt_id), _centiseconds(grace))
        return await self._ask(message, take, grace + _KILL_WITHIN, apart=True)

    async def run_cancel(self, attempt_id: str, text: str, limit: float) -> int:
        """Run an entry's cancel command, its output goes to the attempt's; the exit status, 124 after `limit`."""
        message = text_request("run", self._name(attempt_id), text, [_centiseconds(limit)])
        return await self._ask(
            message,
            lambda words, body: _only("ran", words, int(words[2])),
            limit + _KILL_WITHIN,
            apart=True,
        )

    async def follow(self, attempt_id: str, offset: int, sink: Sink) -> Follow:
        """Give `sink` the output from byte `offset` on as it is written, until the Follow is closed.

        One at a time: a second one waits until the first is closed.
        """
        await self._within(self._follow_place.acquire(), ANSWER_WITHIN)
        follow = Follow(self._connection.host, self._follow_place.release)
        self._follow = follow
        try:
            await self._open(follow.channel, "aux", self._close_idle)
            follow.channel.pass_on(sink)
            taken = Question[bool](self._connection.host, lambda words, body: _only("follow", words, True))
            follow.channel.request(request("follow", self._name(attempt_id), offset), taken)
            await self._within(taken.result, ANSWER_WITHIN)
        except BaseException:
            follow.close()
            raise
        return follow

    # --- the end ------------------------------------------------------------------------------------------------

    async def bye(self) -> None:
        """Leave the node: what nobody needs any more is removed there. The session is closed after this."""
        answer = Question[bool](self._connection.host, lambda words, body: _only("bye", words, True))
        with contextlib.suppress(NodeError):
            if not self.busy:
                self._request(request("bye"), answer)
                await self._within(answer.result, ANSWER_WITHIN)
        self.close()

    def close(self) -> None:
        """Close all channels; a job that runs goes on. The connection stays open. May be called again."""
        self._finished = True
        self._connection.lost.remove_done_callback(self._lost)
        self._control.close()
        self._close_others()

    def _close_others(self) -> None:
        if self._aux is not None:
            self._aux.close()
        if self._follow is not None:
            self._follow.close()

    def _lost(self, lost: asyncio.Future[str]) -> None:
        self._gone("the connection was closed" if lost.cancelled() else lost.result())

    def _gone(self, reason: str) -> None:
        if not self._finished:
            self.close()
            self._observer.closed(reason)

    # --- within -------------------------------------------------------------------------------------------------

    async def _open(
        self, channel: Channel, role: str, make_room: Callable[[], None] = lambda: None
    ) -> _Words:
        """Open a channel and return what its script says of itself.

        A server that has none free for now is asked again a few times, after `make_room`.
        """
        token = secrets.token_hex(4)
        data = greeting(role, self._queue_id, self._epoch, token, self.subnode)
        pause = 0.05
        for _ in range(_CHANNEL_TRIES - 1):
            try:
                return await channel.open(self._connection, data, OPEN_WITHIN)
            except NodeError as error:
                if not error.transient or self._connection.lost.done() or channel.was_open:
                    raise
            make_room()
            await asyncio.sleep(pause)
            pause *= 2
        return await channel.open(self._connection, data, OPEN_WITHIN)

    async def _ask(
        self,
        message: bytes,
        take: Callable[[_Ids, bytes], T | None],
        within: float = 0.0,
        *,
        apart: bool = False,
    ) -> T:
        """Ask on the control channel if it is free, else (or `apart`, when it takes long) on the other one."""
        if self._finished:
            raise NodeError(self._connection.host, "the session is closed")
        channel = await self._other() if apart or self.busy else self._control
        question = Question[T](self._connection.host, take)
        if channel is self._control:
            self._request(message, question)
        else:
            channel.request(message, question)
        try:
            return await self._within(question.result, ANSWER_WITHIN + within)
        except _NoAnswer:
            # Nobody knows what it is at: it cannot be used again.
            channel.close()
            if channel is self._control:
                self._gone("the shell there does not answer")
            raise

    async def _other(self) -> Channel:
        async with self._aux_opening:
            if self._aux is None or not self._aux.is_open:
                aux = Channel(self._connection.host, _nothing)
                await self._open(aux, "aux", self._close_follow)
                if self._finished:
                    aux.close()
                    raise NodeError(self._connection.host, "the session is closed")
                self._aux = aux
            return self._aux

    def _close_follow(self) -> None:
        """Questions come before live output; what is missing of that can be read when the job has ended."""
        if self._follow is not None:
            self._follow.close()

    def _close_idle(self) -> None:
        if self._aux is not None and self._aux.current is None:
            self._aux.close()

    async def _within(self, waiting: Awaitable[T], seconds: float) -> T:
        try:
            async with asyncio.timeout(seconds):
                return await waiting
        except TimeoutError:
            raise _NoAnswer(self._connection.host, f"no answer within {seconds:g} s") from None

    def _take_job(self, attempt_id: str) -> None:
        if self._job is not None:
            raise RuntimeError(f"{self!r} was given {attempt_id} too")
        self._name(attempt_id)
        if self._control.is_open:
            self._job = attempt_id

    def _name(self, attempt_id: str) -> str:
        name, _, queue_id = attempt_id.rpartition(".")
        if queue_id != self._queue_id:
            raise ValueError(f"attempt {attempt_id} is not of queue {self._queue_id}")
        return name

    def _report(self, words: Sequence[str]) -> Report:
        verb, name, spot, status, size, machine = words
        _only("report", [verb], True)
        known = None if status == "-" else int(status)
        return Report(f"{name}.{self._queue_id}", Spot(spot), known, int(size), machine)

    def frame(self, words: Sequence[str], body: bytes) -> bool:
        """The answer to `start` or `attach`, from the control channel."""
        attempt_id = self._job or ""
        observer = self._observer
        try:
            verb, name = words[0], words[1]
            if verb != "overtaken" and f"{name}.{self._queue_id}" != attempt_id:
                raise ValueError
            if verb == "exit":
                status, size = int(words[2]), int(words[3])
            elif verb == "overtaken":
                epoch = int(name)
            elif verb == "report":
                report = self._report(words)
            elif verb not in ("exists", "refused"):
                raise ValueError
        except (ValueError, IndexError):
            raise ProtocolError(f"a frame that is none: {' '.join(words)[:100]!r}") from None
        # Free before it is told, so that the next can be started at once.
        self._job = None
        if verb == "exit":
            observer.exited(attempt_id, status, size, None if words[4] == "-" else body)
        elif verb == "exists":
            observer.exists(attempt_id)
        elif verb == "refused":
            observer.refused(attempt_id, " ".join(words[2:]))
        elif verb == "overtaken":
            observer.overtaken(epoch)
        else:
            observer.reported(report)
        return True

    def failed(self, error: NodeError) -> None:
        """The channel is gone under `start` or `attach`: `closed` tells it."""


class Follow:
    """The output of an attempt, given on as it comes. Ends by `close`, or when the session does."""

    def __init__(self, host: str, free: Callable[[], None]) -> None:
        self.channel = Channel(host, lambda reason: self.close())
        self.on_close: Callable[[], None] = lambda: None
        """Called once when it is closed, by whomever."""
        self._free: Callable[[], None] | None = free

    @property
    def is_open(self) -> bool:
        """More may come. It may also be closed by the session, when the server has too few channels for all."""
        return self.channel.is_open

    def pause(self) -> None:
        """Read no more for now; the job is not held up, its output is a file."""
        self.channel.pause()

    def resume(self) -> None:
        self.channel.resume()

    def close(self) -> None:
        """The sink gets nothing after this. May be called again."""
        self.channel.close()
        if self._free is not None:
            free, self._free = self._free, None
            free()
            self.on_close()


class _NoAnswer(NodeError):
    """The bound of a wait has passed."""


def _centiseconds(seconds: float) -> int:
    return max(0, round(seconds * 100))


def _only(verb: str, words: Sequence[str], value: T) -> T:
    if words[0] != verb:
        raise ValueError(f"{words[0]} where {verb} was due")
    return value


def _nothing(reason: str) -> None:
    pass
