"""Which nodes are reached, how, and what is said of those that are not. (More of SSH is in tests/node.)"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import NewServer
from tests.e2e.program import Gate, pegasus, running, write
from tests.support.proxy import Proxy
from tests.support.sshd import SshFarm, make_key


def add_config(home: Path, text: str) -> None:
    """Put this before what is in ~/.ssh/config."""
    config = home / ".ssh" / "config"
    config.write_text(text + (config.read_text() if config.exists() else ""))


@contextmanager
def listener(*, answers: bool) -> Iterator[tuple[str, int]]:
    """A port that takes connections and says nothing, or (not `answers`) refuses them."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if answers:
            server.listen(50)
        yield server.getsockname()


def host(name: str, address: tuple[str, int], more: str = "") -> str:
    return f"Host {name}\n  HostName {address[0]}\n  Port {address[1]}\n{more}\n"


def test_localhost_is_a_local_shell(workdir: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No keys, no known hosts, an SSH configuration that cannot be read: it does not matter."""
    (home / ".ssh").mkdir()
    (home / ".ssh" / "config").write_text("Nonsense {\n")
    write(workdir, "- localhost\n", "- echo $PEGASUS_HOSTNAME; pwd; env | grep SSH_CONNECTION\n")
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    run = pegasus("q")
    assert run.said == sorted(["localhost", str(workdir)]) and run.code == 1, run


def test_the_user_s_configuration_counts(here: Path, farm: SshFarm, home: Path) -> None:
    """Include, Host, Match host and user, HostName, Port, User, IdentityFile, hashed known_hosts."""
    one, two = farm["node-1"], farm["node-2"]
    ssh = home / ".ssh"
    known = ssh / "hashed"
    known.write_text(
        f"[{one.address}]:{one.port} {one.public_key}\n[{two.address}]:{two.port} {two.public_key}\n"
    )
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", known], check=True, capture_output=True)
    (ssh / "hashed.old").unlink()
    assert one.address not in known.read_text()
    (ssh / "config").write_text(
        f"Include more\nHost gpu*\n  IdentityFile {farm.client_key}\n  UserKnownHostsFile {known}\n"
    )
    (ssh / "more").write_text(
        host("gpu-1", (one.address, one.port), f"  User {one.user}")
        + f"Match host gpu-2\n  HostName {two.address}\n  User {two.user}\n"
        + f"Match host {two.address} user {two.user}\n  Port {two.port}\n"
    )
    write(here, "- gpu-1\n- gpu-2\n", f"- cd {here}; touch met.$PEGASUS_JOB_ID; echo $HOME\n" * 2)
    run = pegasus("q")
    assert run.code == 0 and set(run.said) == {str(one.home), str(two.home)}, run


def test_a_jump_host_is_logged_in_to_once(
    here: Path, new_server: NewServer, farm: SshFarm, home: Path
) -> None:
    bastion = farm["node-4"]
    before = bastion.logins()
    add_config(home, "Host node-1 node-2\n  ProxyJump node-4\n\n")
    write(here, "- node-1\n- node-2\n", "- echo $PEGASUS_HOSTNAME\n")
    run = pegasus("b")
    assert run.code == 0 and run.said == ["node-1", "node-2"], run
    assert bastion.logins() == before + 1


def test_a_host_certificate_of_a_known_authority_counts(
    here: Path, new_farm: SshFarm, home: Path, tmp_path: Path
) -> None:
    server = new_farm.add("certified")
    authority = make_key(tmp_path / "authority")
    key = str(server.host_key)
    sign = ["ssh-keygen", "-q", "-s", str(authority), "-I", "host", "-h", "-n", "certified", f"{key}.pub"]
    subprocess.run(sign, check=True, capture_output=True)
    server.options["HostCertificate"] = f"{server.host_key}-cert.pub"
    server.start()
    new_farm.configure(home)
    public = Path(f"{authority}.pub").read_text()
    (home / ".ssh" / "known_hosts").write_text(f"@cert-authority certified {public}")
    write(here, "- certified\n", "- echo trusted\n")
    run = pegasus("q")
    assert run.code == 0 and run.said == ["trusted"], run


def test_keys_of_the_agent_are_used(here: Path, farm: SshFarm, home: Path, tmp_path: Path) -> None:
    server = farm["node-1"]
    (home / ".ssh" / "config").write_text(
        host("node-1", (server.address, server.port), "  HostKeyAlias node-1")
    )
    write(here, "- node-1\n", "- echo in\n")
    assert "permission denied" in pegasus("q").err
    path = str(tmp_path / "agent")
    with subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.PIPE) as agent:
        try:
            assert agent.stdout is not None and agent.stdout.readline()
            env = {"SSH_AUTH_SOCK": path}
            subprocess.run(["ssh-add", "-q", farm.client_key], check=True, env={**os.environ, **env})
            run = pegasus("q", env=env)
        finally:
            agent.terminate()
    assert run.code == 0 and run.said == ["in"], run


def test_unknown_and_changed_keys_are_told_apart_and_only_unknown_ones_are_learnt(
    here: Path, farm: SshFarm, home: Path
) -> None:
    known = home / ".ssh" / "known_hosts"
    one, two = farm["node-1"], farm["node-2"]
    known.write_text(f"node-2 {one.public_key}\n")
    write(here, "- node-1\n- node-2\n", "- echo in\n")

    strict = pegasus("q")
    assert strict.code == 3 and (here / "queue.yaml").read_text() == "- echo in\n", strict
    assert "[node-1] cannot be reached: host key not known" in strict.err, strict
    assert "[node-2] cannot be reached: HOST KEY CHANGED" in strict.err, strict
    assert known.read_text() == f"node-2 {one.public_key}\n"

    learning = pegasus("q", "--accept-new")
    assert learning.code == 0 and learning.nodes == {"node-1"}, learning
    assert "[node-2] cannot be reached: HOST KEY CHANGED" in learning.err, learning
    assert (
        known.read_text().split()[-1] == one.public_key.split()[1] and two.public_key not in known.read_text()
    )

    write(here, None, "- echo again\n")
    assert pegasus("q").nodes == {"node-1"}


def test_a_node_that_cannot_be_reached_is_named_and_holds_up_nobody(here: Path, home: Path) -> None:
    with listener(answers=False) as refusing, listener(answers=True) as silent:
        add_config(home, host("refusing", refusing) + host("silent", silent, "  ConnectTimeout 20"))
        write(here, "- silent\n- refusing\n- nowhere.invalid\n- node-1\n", "- echo one\n- echo two\n")
        with running(here, "q") as run:
            run.until_said("] two\n")
            assert "[silent]" not in run.err, "its time is not over"
            assert pegasus("stop", "--wait").code == 0
            result = run.result()
    assert result.code == 0 and result.nodes == {"node-1"}, result
    assert f"[refusing] cannot be reached: connection refused by {refusing[0]}:{refusing[1]}" in result.err
    assert "[nowhere.invalid] cannot be reached: the name 'nowhere.invalid' cannot be resolved" in result.err


def test_a_silent_node_is_given_up_in_time(here: Path, home: Path) -> None:
    with listener(answers=True) as silent:
        add_config(home, host("silent", silent, "  ConnectTimeout 1"))
        write(here, "- silent\n", "- echo one\n")
        run = pegasus("q")
    assert run.code == 3 and f"no SSH answer from {silent[0]}:{silent[1]} in time" in run.err, run


def test_an_unreachable_node_is_tried_again_while_the_run_lasts(
    here: Path, new_farm: SshFarm, farm: SshFarm, home: Path
) -> None:
    late = new_farm.add("late")
    hosts = home / ".ssh" / "known_hosts"
    hosts.write_text(hosts.read_text() + new_farm.known_hosts())
    add_config(home, new_farm.ssh_config(hosts))
    gate = Gate(here, "first")
    write(here, "- node-1\n- late\n", f"- {gate.command}\n- echo here I am\n")
    # Only one of the two sub-nodes is there, and it is busy.
    with running(here, "q") as run:
        gate.wait()
        run.until_said("[late] cannot be reached")
        late.start()
        run.until_said("[late] here I am\n")
        gate.open()
        assert run.result().code == 0, run.result()


@pytest.mark.parametrize("verb", ["q", "b"])
def test_if_no_node_can_be_reached_the_queue_is_left_untouched(here: Path, home: Path, verb: str) -> None:
    with listener(answers=False) as refusing:
        add_config(home, host("refusing", refusing))
        queue = "# mine\n- echo   one\n"
        write(here, "- refusing\n- nowhere.invalid\n", queue)
        run = pegasus(verb)
    assert run.code == 3 and "no node can be reached" in run.err, run
    assert (here / "queue.yaml").read_text() == queue and not (here / "consumed.yaml").exists()


@pytest.mark.parametrize("verb", ["q", "b"])
def test_require_all_stops_before_the_first_pop(here: Path, verb: str) -> None:
    write(here, "- node-1\n- nowhere.invalid\n", "- echo one\n")
    run = pegasus(verb, "--require-all")
    assert run.code == 3 and "nowhere.invalid" in run.err and run.out == "", run
    assert "--require-all was given" in run.err and "no node can be reached" not in run.err, run
    assert (here / "queue.yaml").read_text() == "- echo one\n" and not (here / "consumed.yaml").exists()

    write(here, "- node-1\n- node-2\n", None)
    assert pegasus(verb, "--require-all").code == 0


def test_a_network_that_goes_silent_is_noticed_by_keepalive(here: Path, farm: SshFarm, home: Path) -> None:
    """The job goes on meanwhile, and its result is taken when the network is back."""
    gate = Gate(here, "gate")
    with Proxy((farm["node-1"].address, farm["node-1"].port)) as proxy:
        farm.configure(home, {"node-1": proxy.address})
        add_config(home, "Host *\n  ServerAliveInterval 1\n  ServerAliveCountMax 1\n\n")
        write(here, "- node-1\n", f"- {gate.command}; echo survived\n")
        with running(here, "q") as run:
            gate.wait()
            proxy.stall()
            run.until_said("[node-1] connection lost")
            gate.open()
            proxy.cut()
            proxy.flow()
            result = run.result()
    assert result.code == 0 and result.said == ["survived"], result
    assert "[node-1] connected again" in result.err
