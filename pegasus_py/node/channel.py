"""One shell with the node-side script in it: requests go in one after the other, answers come back to who asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from pegasus_py.errors import NodeError, QueueHeld
from pegasus_py.node.protocol import FrameReader, ProtocolError
from pegasus_py.node.shell import Connection, Stream

T = TypeVar("T")


class Sink(Protocol):
    """Who takes the bytes of an output: the pieces that have come together, in order, at least one."""

    def __call__(self, *pieces: bytes) -> None: ...


class Answer(Protocol):
    """Who waits for the answer to a request."""

    def frame(self, words: list[str], body: bytes) -> bool:
        """Take a frame; true when it was the last of the answer. ProtocolError when it makes no sense."""

    def failed(self, error: NodeError) -> None:
        """There will be no answer: the channel is gone."""


class Question(Generic[T]):
    """An answer that is awaited: `take(words, body)` collects; it gives None until the result is whole."""

    def __init__(self, host: str, take: Callable[[list[str], bytes], T | None]) -> None:
        self.result: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._host = host
        self._take = take

    def frame(self, words: list[str], body: bytes) -> bool:
        if words[0] == "error":
            self.failed(NodeError(self._host, " ".join(words[1:])))
            return True
        try:
            value = self._take(words, body)
        except (ValueError, IndexError):
            raise ProtocolError(f"a frame that is none: {' '.join(words)[:100]!r}") from None
        if value is not None and not self.result.done():
            self.result.set_result(value)
        return value is not None

    def failed(self, error: NodeError) -> None:
        if not self.result.done():
            self.result.set_exception(error)
            # Whoever asked may have given up already.
            self.result.exception()


class Channel:
    """A shell that speaks our protocol. `on_closed(reason)` is called once, and not after our own `close`."""

    def __init__(self, host: str, on_closed: Callable[[str], None]) -> None:
        self.host = host
        self.current: Answer | None = None
        self.is_open = False
        self.was_open = False
        self._on_closed = on_closed
        self._on_raw: Sink | None = None
        self._raws: list[bytes] = []
        # A list, no deque: an empty one takes 760 bytes, most of what a channel takes, and there are hundreds.
        self._waiting: list[tuple[bytes, Answer]] = []
        self._reader = FrameReader(self._frame, self._raw)
        self._stream: Stream | None = None
        self._greeted: asyncio.Future[list[str]] | None = None
        """The words of the script's greeting, while `open` waits for them."""

    async def open(self, connection: Connection, greeting: bytes, within: float) -> list[str]:
        """Start the script; returns the words after `pegasus-hello`.

        May be tried again when the shell could not even be opened. Raises NodeError, and Overtaken when a newer run of
        a controller has been there.
        """
        greeted: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()
        self._greeted = greeted
        connection.lost.add_done_callback(self._connection_lost)
        try:
            async with asyncio.timeout(within):
                stream = await connection.open_shell(self)
                self._stream = stream
                self.is_open = self.was_open = True
                stream.write(greeting)
                verb, *rest = await greeted
        except TimeoutError:
            self.close()
            raise NodeError(self.host, f"its shell did not answer within {within:g} s") from None
        except BaseException:
            self.close()
            raise
        finally:
            connection.lost.remove_done_callback(self._connection_lost)
            greeted.cancel()
            self._greeted = None
        if verb == "pegasus-hello" and len(rest) == 6:
            return rest
        self.close()
        if verb == "pegasus-overtaken":
            raise Overtaken(self.host, int(rest[0]))
        if verb == "pegasus-error":
            raise NodeError(self.host, " ".join(rest[1:]), transient=rest[0] != "wrong")
        raise NodeError(self.host, f"its shell answered {' '.join([verb, *rest])[:100]!r}", transient=False)

    def request(self, data: bytes, answer: Answer) -> None:
        """Send a request now, or when those before it are answered."""
        if not self.is_open:
            answer.failed(NodeError(self.host, "the connection is gone"))
        elif self.current is None:
            self.current = answer
            self._write(data)
        else:
            self._waiting.append((data, answer))

    def pass_on(self, sink: Sink) -> None:
        """Give `sink` what comes after a `follow` frame."""
        self._on_raw = sink

    def pause(self) -> None:
        if self._stream is not None:
            self._stream.pause()

    def resume(self) -> None:
        if self._stream is not None:
            self._stream.resume()

    def close(self) -> None:
        """End the script's stdin: it leaves after what it is at. Those who still wait get an error."""
        self.is_open = False
        self._on_raw = None
        if self._stream is not None:
            self._stream.close()
        self._fail_greeting("the connection was closed")
        self._give_up("the connection was closed")

    def data_received(self, data: bytes) -> None:
        if self._raws:
            # Nothing but output comes now, and there is more of it in the same read.
            self._raws.append(data)
            return
        if not self.is_open:
            return
        try:
            self._reader.feed(data)
        except ProtocolError as error:
            self._broken(str(error))

    def closed(self, reason: str | None) -> None:
        self._broken(reason or "the shell there has ended")

    def _broken(self, reason: str) -> None:
        if not self.is_open:
            return
        self._hand_on()
        self.is_open = False
        if self._stream is not None:
            self._stream.close()
        if self._fail_greeting(reason):
            return
        self._give_up(reason)
        self._on_closed(reason)

    def _connection_lost(self, lost: asyncio.Future[str]) -> None:
        self.close()

    def _fail_greeting(self, reason: str) -> bool:
        """True when `open` was still waiting: then it raises, and nobody else is told."""
        if self._greeted is None or self._greeted.done():
            return False
        self._greeted.set_exception(NodeError(self.host, f"{reason} before it had answered"))
        # `open` may have given up for another reason.
        self._greeted.exception()
        return True

    def _give_up(self, reason: str) -> None:
        left = [self.current] if self.current is not None else []
        left += [answer for _, answer in self._waiting]
        self.current = None
        self._waiting.clear()
        for answer in left:
            answer.failed(NodeError(self.host, reason))

    def _frame(self, words: list[str], body: bytes) -> None:
        if not self.is_open:
            return
        if self._greeted is not None and not self._greeted.done():
            self._greeted.set_result(words)
            return
        if self.current is None:
            raise ProtocolError(f"an answer that nobody asked for: {' '.join(words)[:100]!r}")
        answer = self.current
        # Free before it is told, so that it may send the next request at once.
        self.current = None
        if not answer.frame(words, body):
            self.current = answer
        elif self.current is None and self._waiting and self.is_open:
            data, self.current = self._waiting.pop(0)
            self._write(data)

    def _raw(self, data: bytes) -> None:
        # A read from the socket brings many packets: handled together they cost a fraction.
        if not self._raws:
            asyncio.get_running_loop().call_soon(self._hand_on)
        self._raws.append(data)

    def _hand_on(self) -> None:
        raws, self._raws = self._raws, []
        if raws and self._on_raw is not None:
            self._on_raw(*raws)

    def _write(self, data: bytes) -> None:
        if self._stream is not None:
            self._stream.write(data)


class Overtaken(QueueHeld):
    """A newer run of a controller has been on the node; this one may start nothing any more."""

    def __init__(self, host: str, epoch: int) -> None:
        super().__init__(
            f"{host}: run {epoch} of a controller has taken this queue over; this one may start nothing"
        )
        self.epoch = epoch
