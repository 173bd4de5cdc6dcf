"""Connections to real OpenSSH servers: logging in, shells, jump hosts, and every way in which it can be refused."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding

from pegasus_py.errors import NodeError
from pegasus_py.node.shell import END_MARK, Connection, Stream
from pegasus_py.node.ssh import CONFIG_VARIABLE, SshConnector
from tests.conftest import NewServer
from tests.support import procs
from tests.support.shells import Collector, node, run_script
from tests.support.sshd import SshFarm, make_key


async def refusal(hostname: str, connector: SshConnector | None = None) -> NodeError:
    with pytest.raises(NodeError) as caught:
        await (connector or SshConnector()).connect(node(hostname, "name"))
    assert str(caught.value).startswith("name: ")
    assert "\n" not in str(caught.value)
    return caught.value


def append(config: Path, text: str) -> None:
    with config.open("a") as file:
        file.write(text)


def test_asyncssh_is_not_imported_before_it_is_needed() -> None:
    code = "import sys, pegasus_py.node.ssh; sys.exit('asyncssh' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


async def test_scripts_run_on_the_node_and_end_in_good_order(farm: SshFarm, ssh_home: Path) -> None:
    connection = await SshConnector().connect(node("node-1", "first"))
    assert connection.host == "first"
    assert await run_script(connection, "echo $HOME") == (f"{farm['node-1'].home}\n".encode(), None)
    output, reason = await run_script(connection, "echo bad luck >&2; exit 7")
    assert (output, reason) == (b"", "the node's shell ended with exit status 7: 'bad luck'")
    _, reason = await run_script(connection, "kill -9 $$")
    assert reason == "the node's shell was killed by SIGKILL"
    assert not connection.lost.done()
    await connection.close()
    await connection.close()
    assert connection.lost.result() == "closed"


async def there_and_back(connection: Connection) -> tuple[Stream, Collector]:
    """Send a megabyte of all values through a shell that has become `cat`."""
    collector = Collector()
    stream = await connection.open_shell(collector)
    stream.write(f"echo; exec cat\n{END_MARK}\n".encode())
    await collector.until(lambda data: data == b"\n")
    sent = bytes(range(256)) * 4096
    stream.write(sent)
    await collector.until(lambda data: len(data) == len(sent) + 1)
    assert collector.data[1:] == sent
    return stream, collector


async def test_bytes_of_all_values_pass_both_ways(ssh_home: Path) -> None:
    connection = await SshConnector().connect(node("node-1"))
    stream, collector = await there_and_back(connection)
    stream.close()
    assert await collector.end is None
    stream.write(b"into the void")
    stream.close()
    await connection.close()


def x509_certificate(subject: str) -> bytes:
    """Signed by itself, as PEM."""
    key = ed25519.Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, subject)])
    now = datetime.datetime(2020, 1, 1)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now)
    return made.sign(key, None).public_bytes(Encoding.PEM)


async def test_authorities_that_openssh_does_not_know_are_in_nobodys_way(ssh_home: Path) -> None:
    """asyncssh looks for some in ~/.ssh."""
    (ssh_home / ".ssh" / "ca-bundle.crt").write_bytes(x509_certificate("an authority"))
    connection = await SshConnector().connect(node("node-1"))
    await connection.close()


async def test_a_certificate_behind_a_key_is_refused_in_words(farm: SshFarm, ssh_home: Path) -> None:
    key = ssh_home / ".ssh" / "id_with_certificate"
    key.write_bytes(farm.client_key.read_bytes() + x509_certificate("somebody"))
    key.chmod(0o600)
    config = ssh_home / ".ssh" / "config"
    config.write_text(config.read_text().replace(str(farm.client_key), str(key)))
    error = await refusal("node-1")
    assert error.what == "a key file cannot be used: X.509 certificates are not supported"


@pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="Linux has it")
async def test_what_comes_while_a_shell_opens_is_acknowledged_at_once(ssh_home: Path) -> None:
    """Else it opens 40 ms later. To send takes the wish back, so it must be said after the question was sent."""
    connection = await SshConnector().connect(node("node-1"))
    inner = connection.connection  # type: ignore[attr-defined]
    done: list[object] = []
    send_packet, get_extra_info = inner.send_packet, inner.get_extra_info

    class Socket:
        def setsockopt(self, *option: int) -> None:
            done.append(option)

    def sent(pkttype: int, *args: bytes, **more: Any) -> None:
        done.append(pkttype)
        send_packet(pkttype, *args, **more)

    inner.send_packet = sent
    inner.get_extra_info = lambda name, *rest: Socket() if name == "socket" else get_extra_info(name, *rest)
    await connection.open_shell(Collector())
    quickly = (socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
    await connection.close()
    opens, runs = asyncssh.constants.MSG_CHANNEL_OPEN, asyncssh.constants.MSG_CHANNEL_REQUEST
    assert done.index(opens) < done.index(quickly) < done.index(runs)


@pytest.mark.parametrize("who", ["server", "client"])
async def test_new_keys_are_agreed_on_while_bytes_flow(
    who: str, new_server: NewServer, new_farm: SshFarm, home: Path
) -> None:
    """As in every connection after an hour or a gigabyte."""
    new_server("rekeying", {"RekeyLimit": "64K"} if who == "server" else {})
    new_farm.configure(home)
    if who == "client":
        append(home / ".ssh" / "config", "Host *\n  RekeyLimit 64K\n")
    connection = await SshConnector().connect(node("rekeying"))
    exchanges = 0
    inner = connection.connection  # type: ignore[attr-defined]
    assert inner._server_kexinit == b"", "asyncssh has renamed it: 4 kB of each connection are back"
    send_newkeys = inner.send_newkeys

    def counted(k: bytes, h: bytes) -> None:
        nonlocal exchanges
        exchanges += 1
        send_newkeys(k, h)

    inner.send_newkeys = counted
    await there_and_back(connection)
    assert exchanges > 2
    await connection.close()


async def test_a_paused_shell_is_held_up_and_loses_nothing(ssh_home: Path) -> None:
    connection = await SshConnector().connect(node("node-1"))
    collector = Collector()
    stream = await connection.open_shell(collector)
    stream.write(f"echo; exec head -c 40000000 /dev/zero\n{END_MARK}\n".encode())
    await collector.until(bool)
    stream.pause()
    held = len(collector.data)
    # Another shell on the same connection is not held up with it, and by then much could have come.
    assert await run_script(connection, "head -c 5000000 /dev/zero | wc -c") == (b"5000000\n", None)
    assert len(collector.data) == held
    stream.resume()
    assert await collector.end is None
    assert len(collector.data) == 40000001
    await connection.close()


async def test_closing_a_paused_shell_ends_it(ssh_home: Path) -> None:
    connection = await SshConnector().connect(node("node-1"))
    collector = Collector()
    stream = await connection.open_shell(collector)
    stream.write(f"exec yes\n{END_MARK}\n".encode())
    await collector.until(bool)
    stream.pause()
    stream.close()
    await asyncio.wait_for(collector.end, 10)
    await connection.close()


async def test_a_connection_that_is_closed_tells_its_shells(ssh_home: Path) -> None:
    connection = await SshConnector().connect(node("node-1"))
    collector = Collector()
    stream = await connection.open_shell(collector)
    stream.write(f"echo $$; exec sleep 600\n{END_MARK}\n".encode())
    await collector.until(lambda data: data.endswith(b"\n"))
    await connection.close()
    assert collector.end.done()
    stream.write(b"x")
    with pytest.raises(NodeError):
        await connection.open_shell(Collector())
    procs.kill([int(collector.data)])


async def test_user_port_and_identity_file_may_come_from_the_name_and_the_configuration(
    farm: SshFarm, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = farm["node-2"]
    known_hosts = tmp_path / "known_hosts"
    known_hosts.write_text(server.known_hosts_line)
    config = tmp_path / "config"
    config.write_text(
        f"IdentityFile {farm.client_key}\nIdentityFile ~/nowhere\nUserKnownHostsFile {known_hosts}\n"
    )
    monkeypatch.setenv(CONFIG_VARIABLE, str(config))
    connection = await SshConnector().connect(node(f"ssh://{server.user}@{server.address}:{server.port}"))
    await connection.close()


@pytest.fixture
def agent(farm: SshFarm, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An agent that holds the farm's key, which is in no file that the configuration names."""
    socket_path = str(tmp_path / "agent")
    process = subprocess.Popen(["ssh-agent", "-D", "-a", socket_path], stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        monkeypatch.setenv("SSH_AUTH_SOCK", socket_path)
        subprocess.run(["ssh-add", "-q", str(farm.client_key)], check=True, timeout=10)
        yield
        process.terminate()


async def test_keys_of_the_agent_are_offered(agent: None, farm: SshFarm, home: Path) -> None:
    config = farm.configure(home)
    text = config.read_text().replace(f"IdentityFile {farm.client_key}", f"IdentityFile {home}/other")
    config.write_text(text.replace("IdentitiesOnly yes", "IdentitiesOnly no"))
    connection = await SshConnector().connect(node("node-1"))
    await connection.close()
    # With IdentitiesOnly only those whose public half is named.
    config.write_text(text)
    assert "permission denied" in (await refusal("node-1")).what
    (home / "other.pub").write_text(farm.client_public_key)
    connection = await SshConnector().connect(node("node-1"))
    await connection.close()


async def test_permission_denied_says_what_was_offered(farm: SshFarm, home: Path, tmp_path: Path) -> None:
    config = farm.configure(home)
    stranger = make_key(tmp_path / "stranger")
    text = config.read_text()
    config.write_text(text.replace(str(farm.client_key), str(stranger)))
    error = await refusal("node-1")
    assert not error.transient
    assert f"permission denied for user {farm['node-1'].user!r}; offered: {stranger}" in error.what
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "secret", "-f", str(stranger)], check=True)  # noqa: ASYNC221
    assert f"{stranger} has a passphrase" in (await refusal("node-1")).what
    config.write_text(text.replace(str(farm.client_key), "/nowhere/id"))
    assert "not there: /nowhere/id" in (await refusal("node-1")).what


async def test_a_refused_port_an_unknown_name_and_silence(farm: SshFarm, ssh_home: Path) -> None:
    with socket.socket() as closed, socket.socket() as silent:
        closed.bind(("127.0.0.1", 0))
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        refused = await refusal(f"ssh://127.0.0.1:{closed.getsockname()[1]}")
        assert refused.transient and "connection refused by 127.0.0.1:" in refused.what
        quiet = await refusal(f"ssh://127.0.0.1:{silent.getsockname()[1]}", SshConnector(connect_timeout=0.3))
        assert quiet.transient and "no SSH answer from" in quiet.what
    unknown = await refusal("no-such-host.invalid")
    assert unknown.transient and "'no-such-host.invalid' cannot be resolved" in unknown.what


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses between tries."""
    monkeypatch.setattr("pegasus_py.node.ssh.pause_before", lambda retry: 0)


async def test_what_does_not_speak_ssh_is_told_so(home: Path, impatient: None) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        error = await refusal(f"ssh://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    assert "127.0.0.1" in error.what


async def test_one_channel_too_many_is_refused_for_now(
    new_server: NewServer, new_farm: SshFarm, home: Path
) -> None:
    new_server("narrow", {"MaxSessions": "2"})
    new_farm.configure(home)
    connection = await SshConnector().connect(node("narrow"))
    streams = [await connection.open_shell(Collector()) for _ in range(2)]
    with pytest.raises(NodeError, match="refused another channel") as caught:
        await connection.open_shell(Collector())
    assert caught.value.transient
    assert not connection.lost.done()
    for stream in streams:
        stream.close()
    await connection.close()


async def test_many_connects_get_through_a_tight_max_startups(
    new_server: NewServer, new_farm: SshFarm, home: Path
) -> None:
    new_server("tight", {"MaxStartups": "3:60:6"})
    new_farm.configure(home)
    connector = SshConnector()
    links: list[Connection] = await asyncio.gather(
        *(connector.connect(node("tight", f"t{n}")) for n in range(30))
    )
    await asyncio.gather(*(link.close() for link in links))


async def test_a_server_that_always_hangs_up_is_given_up(home: Path, impatient: None) -> None:
    calls = 0

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        calls += 1
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        error = await refusal(f"ssh://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    assert error.transient and "closes new connections at once" in error.what
    assert 2 <= calls <= 10


async def test_cancelling_a_connect_leaves_nothing_behind(ssh_home: Path) -> None:
    connector = SshConnector()
    for pause in (0, 0.01, 0.03, 0.1):
        task = asyncio.create_task(connector.connect(node("node-1")))
        await asyncio.sleep(pause)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await (await task).close()
    connection = await connector.connect(node("node-1"))
    await connection.close()


@pytest.mark.parametrize("shell", ["dash", "bash", "tcsh", "fish", "zsh"])
async def test_whatever_the_login_shell_is(shell: str, new_farm: SshFarm, home: Path, tmp_path: Path) -> None:
    path = shutil.which(shell)
    if path is None:
        pytest.skip(f"{shell} is not installed here")
    # The login shell is in the password file; a forced command has the same text parsed by the shell in question.
    wrapper = tmp_path / "login-shell"
    wrapper.write_text(f'#!/bin/sh\nexec {path} -c "$SSH_ORIGINAL_COMMAND"\n')
    wrapper.chmod(0o755)
    new_farm.add("odd", {"ForceCommand": str(wrapper)}).start()
    new_farm.configure(home)
    connection = await SshConnector().connect(node("odd"))
    script = "x='it''s \"$0\"! \\ %s'\nprintf '%s\\n' \"$x\"\n\n# " + "long " * 50_000
    assert await run_script(connection, script) == (b'its "$0"! \\ %s\n', None)
    await connection.close()


async def test_no_terminal_and_no_agent_on_the_node(agent: None, farm: SshFarm, home: Path) -> None:
    append(farm.configure(home), "Host *\n  ForwardAgent yes\n  RequestTTY force\n  RemoteCommand echo no\n")
    connection = await SshConnector().connect(node("node-1"))
    script = "tty; echo ${SSH_AUTH_SOCK-none}; exit 0"
    assert await run_script(connection, script) == (b"not a tty\nnone\n", None)
    await connection.close()


@pytest.mark.parametrize(("cipher", "empty"), [("aes128-gcm@openssh.com", False), ("aes128-cbc", True)])
async def test_empty_packets_are_sent_where_the_cipher_needs_them(
    cipher: str, empty: bool, new_farm: SshFarm, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    log = asyncssh.SSHClientConnection.log_sent_packet

    def spy(self: asyncssh.SSHClientConnection, kind: int, *rest: Any) -> None:
        sent.append(kind)
        log(self, kind, *rest)

    monkeypatch.setattr(asyncssh.SSHClientConnection, "log_sent_packet", spy)
    new_farm.add("node-1", {"Ciphers": cipher}).start()
    append(new_farm.configure(home), f"Host *\n  Ciphers {cipher}\n")
    connection = await SshConnector().connect(node("node-1"))
    assert await run_script(connection, "echo hello") == (b"hello\n", None)
    await connection.close()
    assert (asyncssh.constants.MSG_IGNORE in sent) is empty


async def test_the_configuration_is_read_once_for_many_connections(
    ssh_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[Path] = []
    parse = asyncssh.config.SSHConfig.parse

    def spy(self: asyncssh.config.SSHConfig, path: Path) -> None:
        reads.append(path)
        parse(self, path)

    monkeypatch.setattr(asyncssh.config.SSHConfig, "parse", spy)
    connector = SshConnector()
    connections = await asyncio.gather(*(connector.connect(node("node-1", f"sub-{n}")) for n in range(4)))
    assert reads
    assert len(reads) == len(set(reads))
    for connection in connections:
        await connection.close()


async def test_match_final_counts_for_the_connection_too(farm: SshFarm, home: Path) -> None:
    server = farm["node-1"]
    config = farm.configure(home)
    append(
        config,
        f"Host other\n  HostName {server.address}\n  HostKeyAlias node-1\n  IdentityFile {farm.client_key}\n",
    )
    append(config, f"Match final host {server.address}\n  Port {server.port}\n  User {server.user}\n")
    connection = await SshConnector().connect(node("other"))
    assert await run_script(connection, "echo hello") == (b"hello\n", None)
    await connection.close()
