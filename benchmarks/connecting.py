"""Pegasus's own way to nodes alone, in a process of its own: `python -m benchmarks.connecting NAME... `.

Opens a connection to each name at once, then a session (a shell that answers) on each, and prints the seconds of both
as JSON. Imports are not counted. The configuration is the one that PEGASUS_SSH_CONFIG names.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from pegasus_py.core.model import Report, SubNode
from pegasus_py.node import sshlink  # noqa: F401 -- imported late otherwise, and that is not to be measured
from pegasus_py.node.session import NodeSession
from pegasus_py.node.ssh import SshConnector


class Nobody:
    """An observer of sessions on which nothing happens."""

    def exited(self, attempt_id: str, status: int, size: int, inline: bytes | None) -> None: ...

    def exists(self, attempt_id: str) -> None: ...

    def refused(self, attempt_id: str, reason: str) -> None: ...

    def overtaken(self, epoch: int) -> None: ...

    def reported(self, report: Report) -> None: ...

    def closed(self, reason: str) -> None: ...


async def measure(names: list[str]) -> tuple[float, float]:
    connector = SshConnector()
    subnodes = [SubNode(f"{name}/{n}", name, (("hostname", name),)) for n, name in enumerate(names)]
    began = time.perf_counter()
    connections = await asyncio.gather(*map(connector.connect, subnodes))
    connected = time.perf_counter()
    sessions = await asyncio.gather(
        *(
            NodeSession.open(connection, subnode, "0123456789abcdef", 1, Nobody())
            for connection, subnode in zip(connections, subnodes, strict=True)
        )
    )
    opened = time.perf_counter()
    await asyncio.gather(*(session.bye() for session in sessions))
    await asyncio.gather(*(connection.close() for connection in connections))
    return connected - began, opened - connected


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(sys.argv[1:]))))
