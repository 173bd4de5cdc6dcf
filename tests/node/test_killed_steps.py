"""The script on the node is killed at the N-th call of a kind, for N after N, whichever of its processes makes it.

After each kill a new session takes the attempt up as a controller would. The oracle is a file that only the job writes.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from pegasus_py.core.model import Spot, SubNode
from pegasus_py.errors import NodeError
from pegasus_py.node.local import LocalConnector
from pegasus_py.node.session import NodeSession
from tests.node.nodes import QUEUE, Place, Watcher, attempt, attempt_id, bootstrap, surroundings

pytestmark = pytest.mark.skipif(not shutil.which("strace"), reason="needs strace to kill at a call")

STRIDE = 1 if os.environ.get("PEGASUS_TORTURE") == "full" else 7


def killer(place: Place, call: str, number: int) -> LocalConnector:
    inject = f"inject={call}:signal=KILL:when={number}"
    told = str(place.spool.parent / "strace")
    strace = ("strace", "-f", "-q", "-o", told, "-e", f"trace={call}", "-e", inject)
    return LocalConnector(surroundings(place.shell), (*strace, "/bin/sh", "-c", bootstrap(place.shell)))


async def first_life(place: Place, subnode: SubNode, call: str, number: int, command: str) -> bool:
    """True when nothing was killed."""
    connection = await killer(place, call, number).connect(subnode)
    watcher = Watcher()
    try:
        session = await NodeSession.open(connection, subnode, QUEUE, 1, watcher)
        session.start(attempt(1, command))
        await watcher.next()
        session.close()
    except NodeError:
        pass
    finally:
        await connection.close()
    return "killed by SIGKILL" not in (place.spool.parent / "strace").read_text()


async def taken_up(place: Place, command: str) -> tuple[str, int | None]:
    """What the next controller makes of it: the spot it ends in, and the exit status."""
    async with place.node() as node:
        (report,) = await node.session.ask([attempt_id(1)])
        if report.spot is Spot.ABSENT:
            node.session.start(attempt(1, command))
        else:
            node.session.attach(attempt_id(1))
        told = await node.watcher.next()
        if told[0] == "exited":
            return "exited", told[2]
        assert told[0] == "reported", told
        return str(told[1].spot), told[1].status


@pytest.mark.parametrize(
    "call", ["openat", "write", "read", "clone,clone3,vfork,fork", "execve", "dup2", "close", "wait4"]
)
def test_killed_at_a_call(place: Place, call: str, tmp_path: Path) -> None:
    subnode = SubNode("n1", "localhost", (("hostname", "localhost"),), str(place.spool))
    oracle = tmp_path / "oracle"
    command = f"echo ran >>{oracle}\nexit 7"
    for number in range(1, 2000, STRIDE if call == "read" else 1):
        shutil.rmtree(place.spool, ignore_errors=True)
        oracle.unlink(missing_ok=True)
        alive = asyncio.run(first_life(place, subnode, call, number, command))
        spot, status = asyncio.run(taken_up(place, command))
        ran = len(oracle.read_text().splitlines()) if oracle.exists() else 0
        seen = f"{call} {number}: {spot} {status}, ran {ran} times"
        assert ran <= 1, seen
        if spot == "exited":
            assert status in (7, 137), seen
            assert ran == 1 or status == 137, seen
        else:
            assert spot in ("vanished", "fenced"), seen
            assert spot == "vanished" or ran == 0, seen
        if alive:
            assert number > 1, "nothing was ever killed"
            return
