"""Host keys against real servers: strict always, learnt only when asked, a change never accepted."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest

from pegasus_py.errors import NodeError
from pegasus_py.node.ssh import SshConnector
from tests.support.shells import node, run_script
from tests.support.sshd import SshFarm, SshServer, make_key


@pytest.fixture
def server(new_farm: SshFarm, home: Path) -> SshServer:
    """A server that is reached by its address, without an alias, and that nobody knows yet."""
    server = new_farm.add("alone").start()
    ssh = home / ".ssh"
    ssh.mkdir()
    (ssh / "config").write_text(
        f"Host {server.address}\n  Port {server.port}\n  User {server.user}\n  IdentityFile {new_farm.client_key}\n"
        f"  HashKnownHosts no\n"
    )
    return server


def run(*words: str) -> str:
    return subprocess.run(words, capture_output=True, check=True, text=True, timeout=30).stdout


def public_key(private: Path) -> str:
    return Path(f"{private}.pub").read_text()


async def connects(server: SshServer, connector: SshConnector | None = None) -> None:
    connection = await (connector or SshConnector()).connect(node(server.address))
    try:
        assert await run_script(connection, "echo up") == (b"up\n", None)
    finally:
        await connection.close()


async def refusal(server: SshServer, connector: SshConnector | None = None) -> NodeError:
    with pytest.raises(NodeError) as caught:
        await connects(server, connector)
    assert "\n" not in str(caught.value)
    return caught.value


async def test_an_unknown_key_is_refused_and_the_message_helps(server: SshServer, home: Path) -> None:
    error = await refusal(server)
    assert not error.transient
    assert "host key not known (ssh-ed25519 SHA256:" in error.what
    assert f"ssh-keyscan -p {server.port} {server.address} >> {home}/.ssh/known_hosts" in error.what
    assert not (home / ".ssh/known_hosts").exists()


async def test_what_ssh_keyscan_writes_is_known(server: SshServer, home: Path) -> None:
    scanned = run("ssh-keyscan", "-H", "-p", str(server.port), server.address)
    (home / ".ssh/known_hosts").write_text(scanned)
    assert "|1|" in scanned
    await connects(server)


async def test_accept_new_learns_once_and_is_strict_ever_after(server: SshServer, home: Path) -> None:
    await connects(server, SshConnector(accept_new=True))
    learnt = (home / ".ssh/known_hosts").read_text()
    assert learnt == server.known_hosts_line
    await connects(server)
    await connects(server, SshConnector(accept_new=True))
    assert (home / ".ssh/known_hosts").read_text() == learnt


async def test_many_that_learn_the_same_key_at_once_write_it_once(server: SshServer, home: Path) -> None:
    connector = SshConnector(accept_new=True)
    await asyncio.gather(*(connects(server, connector) for _ in range(8)))
    assert (home / ".ssh/known_hosts").read_text() == server.known_hosts_line


async def test_learnt_hosts_are_hashed_where_the_configuration_says_so(server: SshServer, home: Path) -> None:
    config = home / ".ssh/config"
    config.write_text(config.read_text().replace("HashKnownHosts no", "HashKnownHosts yes"))
    await connects(server, SshConnector(accept_new=True))
    assert (home / ".ssh/known_hosts").read_text().startswith("|1|")
    await connects(server)


@pytest.mark.parametrize("accept_new", [False, True])
async def test_a_changed_key_is_refused_whatever_is_asked(
    server: SshServer, home: Path, accept_new: bool
) -> None:
    known = "# mine\n" + server.known_hosts_line
    (home / ".ssh/known_hosts").write_text(known)
    server.stop()
    server.new_host_key()
    server.start()
    error = await refusal(server, SshConnector(accept_new=accept_new))
    assert not error.transient
    assert "HOST KEY CHANGED" in error.what and error.hopeless
    assert f"{home}/.ssh/known_hosts:2" in error.what
    assert f"ssh-keygen -R '[{server.address}]:{server.port}' -f {home}/.ssh/known_hosts" in error.what
    assert (home / ".ssh/known_hosts").read_text() == known


async def test_a_key_that_changes_between_two_connections_of_a_run_is_refused(
    server: SshServer, home: Path
) -> None:
    with (home / ".ssh/config").open("a") as config:
        config.write("  UserKnownHostsFile /dev/null\n")
    connector = SshConnector(accept_new=True)
    await connects(server, connector)
    server.stop()
    server.new_host_key()
    server.start()
    assert "HOST KEY CHANGED" in (await refusal(server, connector)).what


async def test_known_hosts_none_in_the_configuration_does_not_mean_that_anybody_will_do(
    server: SshServer, home: Path
) -> None:
    with (home / ".ssh/config").open("a") as config:
        config.write("  UserKnownHostsFile none\n  StrictHostKeyChecking no\n")
    assert "host key not known" in (await refusal(server)).what


async def test_a_server_of_another_key_type_has_changed(
    server: SshServer, home: Path, tmp_path: Path
) -> None:
    run("ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", str(tmp_path / "other"))
    (home / ".ssh/known_hosts").write_text(
        f"[{server.address}]:{server.port} {public_key(tmp_path / 'other')}"
    )
    assert "HOST KEY CHANGED" in (await refusal(server)).what


async def test_a_revoked_key_is_refused(server: SshServer, home: Path) -> None:
    line = server.known_hosts_line
    (home / ".ssh/known_hosts").write_text(f"{line}@revoked * {server.public_key}\n")
    error = await refusal(server)
    assert "Host key is revoked" in error.what and "known_hosts:2" in error.what


async def test_a_host_certificate_of_a_known_authority_counts(
    new_farm: SshFarm, home: Path, tmp_path: Path
) -> None:
    authority = make_key(tmp_path / "authority")
    server = new_farm.add("certified")
    run(
        "ssh-keygen",
        "-q",
        "-s",
        str(authority),
        "-I",
        "id",
        "-h",
        "-n",
        "certified",
        f"{server.host_key}.pub",
    )
    server.options["HostCertificate"] = f"{server.host_key}-cert.pub"
    server.start()
    new_farm.configure(home)
    public = public_key(authority)

    (home / ".ssh/known_hosts").write_text(f"@cert-authority certif* {public}")
    connection = await SshConnector().connect(node("certified"))
    await connection.close()

    other = make_key(tmp_path / "impostor")
    (home / ".ssh/known_hosts").write_text(f"@cert-authority * {public_key(other)}")
    with pytest.raises(NodeError, match="host key not accepted: Host CA key is not trusted"):
        await SshConnector().connect(node("certified"))

    (home / ".ssh/known_hosts").write_text(f"@cert-authority * {public}@revoked * {server.public_key}\n")
    with pytest.raises(NodeError, match="revoked"):
        await SshConnector().connect(node("certified"))


async def test_a_key_that_cannot_be_written_down_is_not_accepted(server: SshServer, home: Path) -> None:
    (home / ".ssh/known_hosts").mkdir()
    error = await refusal(server, SshConnector(accept_new=True))
    assert f"cannot be written to {home}/.ssh/known_hosts" in error.what
