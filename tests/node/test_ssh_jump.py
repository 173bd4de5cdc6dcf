"""Jump hosts: each is logged in to once, however many go through it, and none is left open."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pegasus_py.errors import NodeError
from pegasus_py.node.ssh import SshConnector
from tests.support.procs import wait_until
from tests.support.shells import node, run_script
from tests.support.sshd import SshFarm


def through(farm: SshFarm, home: Path, jumps: dict[str, str]) -> None:
    """Configure `home` so that each name of `jumps` is reached through the hops given."""
    config = farm.configure(home)
    routes = "".join(f"Host {name}\n  ProxyJump {hops}\n" for name, hops in jumps.items())
    config.write_text(routes + config.read_text())


async def sessions_end(farm: SshFarm, name: str) -> None:
    await asyncio.to_thread(wait_until, lambda: not farm[name].sessions(), f"connections to {name} to end")


async def test_many_targets_share_one_login_to_the_bastion(farm: SshFarm, home: Path) -> None:
    through(farm, home, dict.fromkeys(("node-2", "node-3", "node-4"), "node-1"))
    before = farm["node-1"].logins()
    connector = SshConnector()
    targets = [node(f"node-{2 + n % 3}", f"n{n}") for n in range(12)]
    links = await asyncio.gather(*(connector.connect(target) for target in targets))
    for link, target in zip(links, targets, strict=True):
        assert await run_script(link, "echo $HOME") == (f"{farm[target.hostname].home}\n".encode(), None)
    assert farm["node-1"].logins() - before == 1
    await asyncio.gather(*(link.close() for link in links))
    await sessions_end(farm, "node-1")
    # A new one is opened for whoever comes later.
    link = await connector.connect(targets[0])
    assert farm["node-1"].logins() - before == 2
    await link.close()
    await sessions_end(farm, "node-1")


async def test_chains_written_as_a_list_or_hop_by_hop(farm: SshFarm, home: Path) -> None:
    one = farm["node-1"]
    for jumps in ({"node-3": f"{one.user}@node-1,node-2"}, {"node-3": "node-2", "node-2": "node-1"}):
        through(farm, home, jumps)
        before = {server.name: server.logins() for server in farm}
        link = await SshConnector().connect(node("node-3"))
        assert await run_script(link, "echo up") == (b"up\n", None)
        await link.close()
        assert {server.name: server.logins() - before[server.name] for server in farm} == {
            "node-1": 1,
            "node-2": 1,
            "node-3": 1,
            "node-4": 0,
        }
        await sessions_end(farm, "node-1")


async def test_a_proxy_command_is_run_and_ends(farm: SshFarm, home: Path) -> None:
    config = farm.configure(home)
    command = f"ssh -F {home}/plain -W %h:%p node-1"
    (home / "plain").write_text(config.read_text())
    config.write_text(f"Host node-2\n  ProxyCommand {command}\n" + config.read_text())
    link = await SshConnector().connect(node("node-2"))
    assert await run_script(link, "echo $HOME") == (f"{farm['node-2'].home}\n".encode(), None)
    await link.close()
    await sessions_end(farm, "node-1")


async def test_a_circle_is_told(farm: SshFarm, home: Path) -> None:
    through(farm, home, {"node-3": "node-2", "node-2": "node-1", "node-1": "node-2"})
    with pytest.raises(NodeError, match="ProxyJump goes in a circle") as caught:
        await SshConnector().connect(node("node-3", "name"))
    assert caught.value.host == "name" and not caught.value.transient


async def test_a_bastion_that_refuses_us_is_named(new_farm: SshFarm, home: Path) -> None:
    new_farm.add("bastion", {"DenyUsers": "*"}).start()
    new_farm.add("target").start()
    through(new_farm, home, {"target": "bastion"})
    connector = SshConnector()
    results = await asyncio.gather(
        *(connector.connect(node("target", f"t{n}")) for n in range(3)), return_exceptions=True
    )
    for n, error in enumerate(results):
        assert isinstance(error, NodeError) and not error.transient
        assert str(error).startswith(f"t{n}: jump host bastion: permission denied")


async def test_a_target_that_the_bastion_cannot_reach_is_named(new_farm: SshFarm, home: Path) -> None:
    new_farm.add("bastion").start()
    new_farm.add("target")
    through(new_farm, home, {"target": "bastion"})
    with pytest.raises(NodeError, match=r"the jump host bastion cannot reach .*Connection refused") as caught:
        await SshConnector().connect(node("target"))
    assert caught.value.transient
    await sessions_end(new_farm, "bastion")


async def test_a_bastion_that_dies_loses_its_targets_and_is_opened_again(
    new_farm: SshFarm, home: Path
) -> None:
    bastion = new_farm.add("bastion").start()
    new_farm.add("target").start()
    through(new_farm, home, {"target": "bastion"})
    connector = SshConnector()
    links = await asyncio.gather(*(connector.connect(node("target", f"t{n}")) for n in range(3)))
    bastion.kill_sessions()
    for link in links:
        assert "the connection was lost" in await asyncio.wait_for(link.lost, 10)
    again = await connector.connect(node("target"))
    assert await run_script(again, "echo up") == (b"up\n", None)
    await asyncio.gather(*(link.close() for link in (*links, again)))
    await sessions_end(new_farm, "bastion")


async def test_one_that_gives_up_takes_nothing_from_the_others(farm: SshFarm, home: Path) -> None:
    through(farm, home, {"node-2": "node-1"})
    connector = SshConnector()
    tasks = [asyncio.create_task(connector.connect(node("node-2", f"n{n}"))) for n in range(4)]
    await asyncio.sleep(0.05)
    tasks[0].cancel()
    links = [
        link
        for link in await asyncio.gather(*tasks, return_exceptions=True)
        if not isinstance(link, BaseException)
    ]
    assert len(links) >= 3
    await asyncio.gather(*(link.close() for link in links))
    await sessions_end(farm, "node-1")


async def test_all_giving_up_closes_the_bastion(farm: SshFarm, home: Path) -> None:
    through(farm, home, {"node-2": "node-1"})
    connector = SshConnector()
    for pause in (0.02, 0.05, 0.1):
        tasks = [asyncio.create_task(connector.connect(node("node-2", f"n{n}"))) for n in range(3)]
        await asyncio.sleep(pause)
        for task in tasks:
            task.cancel()
        for link in await asyncio.gather(*tasks, return_exceptions=True):
            if not isinstance(link, BaseException):
                await link.close()
    await sessions_end(farm, "node-1")
