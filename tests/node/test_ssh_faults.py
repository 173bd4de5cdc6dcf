"""A connection that goes away is reported, once, with a reason and within its time."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pegasus_py.node.shell import END_MARK, Connection
from pegasus_py.node.ssh import SshConnector
from pegasus_py.node.sshlink import Link
from pegasus_py.node.sshpulse import ASKED_RARELY
from tests.support.proxy import Proxy
from tests.support.shells import Collector, node, run_script
from tests.support.sshd import SshFarm

SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27


@pytest.fixture
def proxy(farm: SshFarm, home: Path) -> Iterator[Proxy]:
    """A proxy through which the configuration leads to node-1."""
    server = farm["node-1"]
    with Proxy((server.address, server.port)) as proxy:
        farm.configure(home, {"node-1": proxy.address})
        yield proxy


async def open_sleeper(connection: Connection) -> Collector:
    """A shell that says its pid and then nothing more, until its stdin ends."""
    collector = Collector()
    stream = await connection.open_shell(collector)
    stream.write(f"echo up; read x; exit 0\n{END_MARK}\n".encode())
    await collector.until(lambda data: data == b"up\n")
    return collector


@pytest.mark.parametrize("reset", [True, False], ids=["RST", "FIN"])
async def test_a_cut_is_reported_to_connection_and_shell(proxy: Proxy, reset: bool) -> None:
    connection = await SshConnector().connect(node("node-1"))
    collector = await open_sleeper(connection)
    proxy.cut(reset=reset)
    assert "connection was" in await asyncio.wait_for(connection.lost, 10)
    assert "connection was" in (await asyncio.wait_for(collector.end, 10) or "")
    await connection.close()
    again = await SshConnector().connect(node("node-1"))
    assert await run_script(again, "echo up") == (b"up\n", None)
    await again.close()


async def test_a_silent_network_is_noticed_by_keepalive(proxy: Proxy) -> None:
    connection = await SshConnector(keepalive_interval=0.3, keepalive_count=2).connect(node("node-1"))
    collector = await open_sleeper(connection)
    # While all is well, silence of the shell alone ends nothing.
    await asyncio.wait([connection.lost], timeout=1.5)
    assert not connection.lost.done() and not collector.end.done()
    proxy.stall()
    begin = time.monotonic()
    reason = await asyncio.wait_for(connection.lost, 20)
    assert "no longer answers" in reason
    assert "no longer answers" in (await asyncio.wait_for(collector.end, 10) or "")
    assert time.monotonic() - begin > 0.3  # not by accident of something else
    await connection.close()


@contextlib.contextmanager
def deaf(connection: Connection) -> Iterator[None]:
    """While inside, the kernel drops every packet that comes for the connection, acknowledgements and resets too."""
    assert isinstance(connection, Link)
    sock = connection.connection.get_extra_info("socket")
    drop_all = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # BPF: return 0 bytes
    sock.setsockopt(
        socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HxxxxxxP", 1, ctypes.addressof(drop_all))
    )
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # it may have been closed
            sock.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "with a request on its way"])
async def test_a_node_that_is_gone_is_noticed_by_its_kernels_silence(
    farm: SshFarm, ssh_home: Path, *, busy: bool
) -> None:
    connector = SshConnector(keepalive_interval=1, keepalive_count=1)
    connection, other = [await connector.connect(node(name)) for name in ("node-1", "node-2")]
    collector = Collector()
    stream = await connection.open_shell(collector)
    stream.write(f"echo up; read x; exit 0\n{END_MARK}\n".encode())
    await collector.until(lambda data: data == b"up\n")
    # Nobody but the kernels asks; what they ask is answered, so all is well for as long as it is.
    for each in (connection, other):
        assert isinstance(each, Link)
        each.connection.set_keepalive(0)
    await asyncio.wait([connection.lost], timeout=3.5)
    assert not connection.lost.done() and not collector.end.done()
    with deaf(connection):
        if busy:
            stream.write(b"done\n")
        assert "no longer answers" in await asyncio.wait_for(connection.lost, 20)
    assert "no longer answers" in (await asyncio.wait_for(collector.end, 10) or "")
    assert not other.lost.done()
    for each in (connection, other):
        await each.close()
    # What our kernel says to it at the end may take minutes, for it has heard no confirmation.
    farm["node-1"].kill_sessions()


async def test_a_node_that_only_speaks_is_not_silent(farm: SshFarm, ssh_home: Path) -> None:
    """What comes need not confirm anything where nothing is sent: a job that says a line now and then, for long."""
    connection = await SshConnector(keepalive_interval=1, keepalive_count=1).connect(node("node-1"))
    collector = Collector()
    stream = await connection.open_shell(collector)
    stream.write(f"for i in 1 2 3 4 5 6 7 8 9 10; do echo x; sleep 0.5; done; exit 0\n{END_MARK}\n".encode())
    assert await asyncio.wait_for(collector.end, 30) is None
    assert collector.data == b"x\n" * 10 and not connection.lost.done()
    await connection.close()


@pytest.mark.parametrize(
    "why", ["ServerAliveInterval 10", "ServerAliveCountMax 5", "TCPKeepAlive no", "ProxyJump node-2"]
)
async def test_the_server_is_asked_as_often_where_the_kernel_is_not_to_watch(
    farm: SshFarm, ssh_home: Path, why: str
) -> None:
    """Where the user says how often, or forbids it, and on all of the way through a jump host."""
    config = ssh_home / ".ssh" / "config"
    config.write_text(f"Host node-1\n  {why}\nHost *\n{config.read_text()}")
    connector = SshConnector()
    asked = []
    for name in ("node-1", "node-2"):
        connection = await connector.connect(node(name))
        assert isinstance(connection, Link)
        asked.append(vars(connection.connection)["_keepalive_interval"])
        for jump in vars(connector._jumps)["_jumps"].values() if "Jump" in why and name == "node-1" else ():
            asked.append(vars(jump.link.connection)["_keepalive_interval"])
        await connection.close()
    assert asked == [*[10] * (len(asked) - 1), 10 * ASKED_RARELY]
    assert len(asked) == 2 + ("Jump" in why)


async def test_a_stall_in_the_handshake_ends_in_time(proxy: Proxy) -> None:
    proxy.stall()
    with pytest.raises(Exception, match="no SSH answer from"):
        await SshConnector(connect_timeout=0.3).connect(node("node-1"))
    proxy.flow()
    connection = await SshConnector().connect(node("node-1"))
    await connection.close()


async def test_closing_over_a_dead_network_is_bounded(proxy: Proxy) -> None:
    connection = await SshConnector().connect(node("node-1"))
    await open_sleeper(connection)
    proxy.stall()
    await asyncio.wait_for(connection.close(), 20)
    assert connection.lost.done()


async def test_bytes_that_trickle_in_make_no_difference(proxy: Proxy) -> None:
    proxy.block = 1
    connection = await SshConnector().connect(node("node-1"))
    assert await run_script(connection, "echo slow but sure") == (b"slow but sure\n", None)
    await connection.close()


async def test_killed_sessions_are_reported(farm: SshFarm, ssh_home: Path) -> None:
    connection = await SshConnector().connect(node("node-2"))
    collector = await open_sleeper(connection)
    farm["node-2"].kill_sessions()
    assert "lost" in await asyncio.wait_for(connection.lost, 10)
    assert await asyncio.wait_for(collector.end, 10)
    await connection.close()


async def test_a_server_that_comes_back_is_connected_to_again(new_farm: SshFarm, home: Path) -> None:
    server = new_farm.add("alone").start()
    new_farm.configure(home)
    connector = SshConnector()
    connection = await connector.connect(node("alone"))
    server.crash()
    await asyncio.wait_for(connection.lost, 10)
    await connection.close()
    with pytest.raises(Exception, match="connection refused"):
        await connector.connect(node("alone"))
    server.start()
    connection = await connector.connect(node("alone"))
    await connection.close()
