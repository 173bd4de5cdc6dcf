"""Driving a `Connection` by hand: a receiver that keeps what it gets, and running one script through it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pegasus_py.core.model import SubNode
from pegasus_py.node.shell import END_MARK, Connection


def node(hostname: str, name: str = "") -> SubNode:
    """A sub-node without parameters."""
    return SubNode(name or hostname, hostname, (("hostname", hostname),))


class Collector:
    """A Receiver that keeps all data, and how it was closed."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.end: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._arrived = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        assert data and not self.end.done()
        self.data += data
        self._arrived.set()

    def closed(self, reason: str | None) -> None:
        assert not self.end.done(), "closed twice"
        self.end.set_result(reason)

    async def until(self, condition: Callable[[bytearray], bool], limit: float = 20.0) -> None:
        """Wait until what has come satisfies `condition`."""
        async with asyncio.timeout(limit):
            while not condition(self.data):
                self._arrived.clear()
                await self._arrived.wait()


async def run_script(connection: Connection, script: str, limit: float = 30.0) -> tuple[bytes, str | None]:
    """Open a shell, run `script` in it to its end; its output, and the reason that the receiver was given."""
    collector = Collector()
    async with asyncio.timeout(limit):
        stream = await connection.open_shell(collector)
        stream.write(f"{script}\n{END_MARK}\n".encode())
        reason = await collector.end
    stream.close()
    return bytes(collector.data), reason
