"""asyncssh's options are shared by a node's connections, and what is a connection's own stays its own."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from pegasus_py.errors import NodeError
from pegasus_py.node import sshlogin
from pegasus_py.node.once import Once
from pegasus_py.node.ssh import SshConnector
from pegasus_py.node.sshlink import Link
from tests.support.shells import node, run_script
from tests.support.sshd import SshFarm


async def test_one_answer_serves_all_who_ask() -> None:
    asked = 0
    go_on = asyncio.Event()

    async def question() -> int:
        nonlocal asked
        asked += 1
        await go_on.wait()
        return asked

    once = Once(question)
    first, gives_up, third = (asyncio.create_task(once.get()) for _ in range(3))
    await asyncio.sleep(0)
    gives_up.cancel()
    await asyncio.sleep(0)
    go_on.set()
    assert [await first, await third, await once.get()] == [1, 1, 1]
    assert gives_up.cancelled()


async def test_a_failure_is_not_kept() -> None:
    answers: list[int | Exception] = [ValueError("no"), 5]

    async def question() -> int:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    once = Once(question)
    found = await asyncio.gather(once.get(), once.get(), return_exceptions=True)
    assert [str(each) for each in found] == ["no", "no"]
    assert await once.get() == 5


def options_of(link: Any) -> Any:
    assert isinstance(link, Link)
    return link.connection._options


async def test_connections_to_a_node_share_their_options(farm: SshFarm, ssh_home: Path) -> None:
    assert sshlogin.KNOWN_WAY, "asyncssh connects in another way now"
    connector = SshConnector()
    names = ["node-1"] * 3 + ["node-2"] * 2
    links = await asyncio.gather(*(connector.connect(node(name, f"{n}")) for n, name in enumerate(names)))
    made = [options_of(link)._shared for link in links]
    assert len({id(each) for each in made}) == 2
    own = [options_of(link).client_keys[0] for link in links]
    assert len({id(each) for each in own}) == len(links), "each key pair is told how to sign"
    for link, name in zip(links, names, strict=True):
        assert await run_script(link, "echo $HOME") == (f"{farm[name].home}\n".encode(), None)
        await link.close()


@pytest.mark.parametrize("known", [True, False])
async def test_all_of_it_works_the_usual_way_too(
    known: bool, farm: SshFarm, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Directly, through a jump host, through a command, and with a key that is revoked."""
    monkeypatch.setattr(sshlogin, "KNOWN_WAY", known)
    config = farm.configure(home)
    (home / "plain").write_text(config.read_text())
    ways = "Host node-2\n  ProxyJump node-1\n"
    ways += f"Host node-3\n  ProxyCommand ssh -F {home}/plain -W %h:%p node-1\n"
    config.write_text(ways + config.read_text())
    connector = SshConnector()
    for name in ("node-1", "node-2", "node-3"):
        link = await connector.connect(node(name))
        assert isinstance(options_of(link), sshlogin.Own) is known
        assert await run_script(link, "echo $HOME") == (f"{farm[name].home}\n".encode(), None)
        await link.close()
    known_hosts = home / ".ssh" / "known_hosts"
    lines = known_hosts.read_text().splitlines()
    revoked = next(line for line in lines if line.startswith("node-4 "))
    known_hosts.write_text("\n".join([*lines, f"@revoked {revoked}"]) + "\n")
    with pytest.raises(NodeError, match="revoked"):
        await connector.connect(node("node-4"))
