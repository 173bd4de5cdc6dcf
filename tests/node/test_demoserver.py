"""The servers of the demo are real enough: the connector reaches them as it would any node."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from pegasus_py.errors import NodeError
from pegasus_py.node.demoserver import DemoServers
from pegasus_py.node.shell import END_MARK
from pegasus_py.node.ssh import SshConnector
from tests.support.shells import Collector, node, run_script


async def test_shells_on_demo_nodes(tmp_path: Path) -> None:
    async with DemoServers(tmp_path, 2) as servers:
        connector = SshConnector(config=servers.write_config())
        for name in servers.names:
            connection = await connector.connect(node(name))
            assert await run_script(connection, "pwd; echo $HOME") == (
                f"{tmp_path / name}\n".encode() * 2,
                None,
            )
            _, reason = await run_script(connection, "echo oh >&2; exit 3")
            assert reason == "the node's shell ended with exit status 3: 'oh'"
            _, reason = await run_script(connection, "kill -9 $$")
            assert reason == "the node's shell was killed by SIGKILL"
            await connection.close()
    assert stat.S_IMODE((tmp_path / "id_ed25519").stat().st_mode) == 0o600


async def test_bytes_and_many_shells_at_once(tmp_path: Path) -> None:
    async with DemoServers(tmp_path, 1) as servers:
        connection = await SshConnector(config=servers.write_config()).connect(node("demo-1"))
        collectors = [Collector() for _ in range(4)]
        streams = [await connection.open_shell(collector) for collector in collectors]
        sent = bytes(range(256)) * 1024
        for stream, collector in zip(streams, collectors, strict=True):
            stream.write(f"echo; exec cat\n{END_MARK}\n".encode())
            await collector.until(lambda data: data == b"\n")
            stream.write(sent)
        for collector in collectors:
            await collector.until(lambda data: len(data) == len(sent) + 1)
            assert collector.data[1:] == sent
        for stream in streams:
            stream.close()
        await connection.close()


async def test_a_stranger_is_not_let_in_and_strangers_are_not_trusted(tmp_path: Path) -> None:
    async with DemoServers(tmp_path / "a", 1) as ours, DemoServers(tmp_path / "b", 1) as theirs:
        text = ours.write_config().read_text()
        their_key = theirs.write_config().parent / "id_ed25519"
        wrong_key, wrong_host = tmp_path / "wrong-key", tmp_path / "wrong-host"
        wrong_key.write_text(text.replace(str(tmp_path / "a/id_ed25519"), str(their_key)))
        wrong_host.write_text(text.replace(str(ours.ports["demo-1"]), str(theirs.ports["demo-1"])))
        with pytest.raises(NodeError, match="permission denied"):
            await SshConnector(config=wrong_key).connect(node("demo-1"))
        with pytest.raises(NodeError, match="host key not known"):
            await SshConnector(config=wrong_host).connect(node("demo-1"))
