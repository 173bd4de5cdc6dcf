"""asyncssh's options are shared by a node's connections, and what is a connection's own stays its own."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from pegasus_py.errors import NodeError
from pegasus_py.node import sshlogin
from pegasus_py.node.once import Once
from pegasus_py.node.ssh import SshConnector
from pegasus_py.node.sshlink import Link
from tests.support.shells import node, run_script
from tests.support.sshd import SshFarm, SshServer, make_key


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


@contextmanager
def authorized(server: SshServer, key: Path) -> Iterator[None]:
    """For the time being the server lets in this key alone."""
    before = server.authorized_keys.read_text()
    server.authorized_keys.write_text(Path(f"{key}.pub").read_text())
    try:
        yield
    finally:
        server.authorized_keys.write_text(before)


def denied(server: SshServer) -> int:
    """How many connections have ended in the login."""
    return len(re.findall(r"authenticating user .*\[preauth\]", server.log_text()))


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
    assert not any(options_of(link).client_keys for link in links), "nobody needs them after the login"
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


async def test_what_is_shared_stays_as_it_was(
    farm: SshFarm, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a key of RSA, which is told by each connection how its server wants it to sign."""
    config = farm.configure(home)
    key = tmp_path / "rsa"
    words = ["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", str(key)]
    await asyncio.to_thread(subprocess.run, words, check=True, timeout=60)
    made: list[Any] = []

    class Spy(sshlogin.Own):
        __slots__ = ()

        def __init__(self, shared: Any, *more: Any) -> None:
            made.append((shared, _words(shared)))
            super().__init__(shared, *more)
            assert self.client_keys
            assert not {id(pair) for pair in self.client_keys} & {id(pair) for pair in shared.client_keys}

    monkeypatch.setattr(sshlogin, "Own", Spy)
    config.write_text(config.read_text().replace(str(farm.client_key), str(key)))
    with authorized(farm["node-1"], key):
        connector = SshConnector()
        links = await asyncio.gather(*(connector.connect(node("node-1", f"{n}")) for n in range(3)))
        for link in links:
            assert await run_script(link, "echo hello") == (b"hello\n", None)
            await link.close()
    assert len(made) == 3
    assert len({id(shared) for shared, _ in made}) == 1
    for shared, before in made:
        assert _words(shared) == before


def _words(shared: Any) -> str:
    keys = [{name: repr(value) for name, value in vars(pair).items()} for pair in shared.client_keys]
    return repr(
        {name: repr(value) for name, value in vars(shared).items() if name != "client_keys"} | {"keys": keys}
    )


async def test_a_key_that_is_changed_between_two_logins_is_read_again(
    farm: SshFarm, home: Path, tmp_path: Path
) -> None:
    """The connections share what was read, but none is refused for that."""
    config = farm.configure(home)
    key, other = make_key(tmp_path / "key"), make_key(tmp_path / "other")
    config.write_text(config.read_text().replace(str(farm.client_key), str(key)))
    connector = SshConnector()
    with authorized(farm["node-1"], key):
        first = await connector.connect(node("node-1"))
    for suffix in ("", ".pub"):
        shutil.copy(f"{other}{suffix}", f"{key}{suffix}")
    with authorized(farm["node-1"], other):
        later = await asyncio.gather(*(connector.connect(node("node-1", f"{n}")) for n in range(3)))
    # Of nobody's now: the server hears of each once, for they have not changed.
    before = denied(farm["node-1"])
    refused = await asyncio.gather(
        *(connector.connect(node("node-1", f"{n}")) for n in range(4)), return_exceptions=True
    )
    assert all(isinstance(each, NodeError) and "permission denied" in each.what for each in refused)
    assert denied(farm["node-1"]) - before == 4
    for link in (first, *later):
        await link.close()


def test_what_asyncssh_may_set_is_the_connections_own() -> None:
    class Options:
        def __init__(self, before: Options | None = None, **changes: object) -> None:
            self.client_keys = ()
            self.host: object = changes.get("host", before and before.host)

    shared: Any = Options(host="alpha")
    own: Any = sshlogin.Own(shared, cast(Link, None), None, None)
    own.anything = 5
    own.update(host="beta")
    assert (own.anything, own.host, shared.host) == (5, "beta", "alpha")
    assert not hasattr(shared, "anything")
