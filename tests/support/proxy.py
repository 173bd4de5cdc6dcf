"""A TCP proxy that spoils connections on demand: delay, stall (one way or both), one-byte writes, FIN and RST.

It runs in a thread with an event loop of its own, so it works for tests of processes as well as of coroutines.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

T = TypeVar("T")
BLOCK = 65536
Queue = asyncio.Queue[tuple[float, bytes]]


class Conversation:
    """One connection through the proxy. Change its fields through `Proxy.call` only."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.onward = asyncio.Event()
        self.back = asyncio.Event()
        self.hold((True, True))
        self.bytes_moved = 0

    def hold(self, flowing: tuple[bool, bool]) -> None:
        """Let bytes flow, or not: to the server, to the client."""
        for event, flows in zip((self.onward, self.back), flowing, strict=True):
            event.set() if flows else event.clear()

    def end(self, *, reset: bool) -> None:
        for writer in (self.client, self.server):
            if reset:
                sock = writer.get_extra_info("socket")
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
            else:
                writer.close()
        self.hold((True, True))


class Proxy:
    """Listens on 127.0.0.1:`port` and forwards to `target` (address, port).

    `delay` is in seconds and each way (0.025 makes a round trip of 50 ms longer); `block` is the most bytes that
    are written at once. Both can be changed at any time.
    """

    def __init__(self, target: tuple[str, int], *, delay: float = 0.0, block: int = BLOCK) -> None:
        self.target = target
        self.delay = delay
        self.block = block
        self.refusing = False
        self.accepted = 0
        self._conversations: set[Conversation] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._flowing = (True, True)

    def __enter__(self) -> Proxy:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._accept, "127.0.0.1", 0), self._loop
        ).result(10)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    def cut(self, *, reset: bool = True) -> int:
        """End all connections, with RST or else FIN; new ones are served. Says how many there were."""
        return self.call(lambda: self._cut(reset))

    def stall(self, *, onward: bool = True, back: bool = True) -> None:
        """From now on nothing moves (`onward`: to the server), in all connections, and nobody is told."""
        self._flowing = (not onward, not back)
        self.call(self._hold)

    def flow(self) -> None:
        """The end of a stall; what was held back arrives, even if its sender has gone meanwhile."""
        self._flowing = (True, True)
        self.call(self._hold)

    def refuse(self, refusing: bool = True) -> None:
        """Drop new connections as soon as they are accepted."""
        self.refusing = refusing

    def conversations(self) -> list[Conversation]:
        """The connections that are up now, for `call`."""
        return self.call(lambda: list(self._conversations))

    def call(self, function: Callable[[], T]) -> T:
        """Run `function` in the proxy's thread."""

        async def run() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    def _hold(self) -> None:
        for conversation in self._conversations:
            conversation.hold(self._flowing)

    def _cut(self, reset: bool) -> int:
        count = len(self._conversations)
        for conversation in list(self._conversations):
            conversation.end(reset=reset)
        return count

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self.refusing:
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            there, onward = await asyncio.open_connection(*self.target)
        except OSError:
            writer.transport.abort()
            self._tasks.discard(task)
            return
        conversation = Conversation(writer, onward)
        conversation.hold(self._flowing)
        self._conversations.add(conversation)
        try:
            async with asyncio.TaskGroup() as group:
                ways = ((reader, onward, conversation.onward), (there, writer, conversation.back))
                for source, sink, flowing in ways:
                    queue: Queue = asyncio.Queue(256)
                    group.create_task(self._read(source, queue))
                    group.create_task(self._send(conversation, flowing, queue, sink))
        except asyncio.CancelledError:
            pass  # the proxy stops; nobody waits for this task but `_stop`
        finally:
            self._conversations.discard(conversation)
            self._tasks.discard(task)
            conversation.end(reset=False)

    async def _read(self, reader: asyncio.StreamReader, queue: Queue) -> None:
        """Queue blocks with the time when they are due; `_send` writes them, so that delay costs no bandwidth."""
        with contextlib.suppress(OSError):
            while data := await reader.read(BLOCK):
                await queue.put((self._loop.time() + self.delay, data))
        await queue.put((0, b""))

    async def _send(
        self,
        conversation: Conversation,
        flowing: asyncio.Event,
        queue: Queue,
        writer: asyncio.StreamWriter,
    ) -> None:
        with contextlib.suppress(OSError):
            while True:
                due, data = await queue.get()
                if not data:
                    break
                await asyncio.sleep(max(0.0, due - self._loop.time()))
                for start in range(0, len(data), self.block):
                    await flowing.wait()
                    writer.write(data[start : start + self.block])
                    await writer.drain()
                conversation.bytes_moved += len(data)
            if writer.can_write_eof():
                writer.write_eof()
            return
        while (await queue.get())[1]:  # nobody to send it to; keep the reader going to its end
            pass

    async def _stop(self) -> None:
        self._server.close()
        self._cut(reset=True)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
