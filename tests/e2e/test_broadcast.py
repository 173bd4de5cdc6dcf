"""`pegasus b`: each command on all sub-nodes, in step."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.conftest import NewServer
from tests.e2e.program import Gate, pegasus, records, running, write
from tests.support.sshd import SshFarm


def on(node: str, command: str) -> str:
    return f"if [ $PEGASUS_SUBNODE = {node} ]; then {command}; fi"


def test_each_command_runs_on_all_sub_nodes_in_lock_step(here: Path) -> None:
    gate = Gate(here, "slow")
    second = f"ls {gate.open_} > /dev/null && echo second"
    write(
        here,
        "- hostname: [node-1, node-2]\n  gpu: [0, 1]\n",
        yaml.safe_dump([on("node-1/0", gate.command) + "; echo first", second]),
    )
    with running(here, "b") as run:
        gate.wait()
        for name in ("node-1/1", "node-2/0", "node-2/1"):
            run.until_said(f"[{name}] first\n")
        gate.open()
        result = run.result()
    assert result.code == 0 and result.said == ["first"] * 4 + ["second"] * 4, result
    assert len(records(here / "consumed.yaml")) == 2


def test_error_aborts_names_each_host_and_status_and_leaves_the_rest(here: Path) -> None:
    rest = "# not yet\n- echo second\n- echo third\n"
    failing = on("node-2", "exit 4") + "; " + on("node-3", "kill -9 $$")
    write(here, "- node-1\n- node-2\n- node-3\n", yaml.safe_dump([failing]) + rest)

    run = pegasus("b", "-e")

    assert run.code == 1, run
    assert (here / "queue.yaml").read_text() == rest
    assert (
        "[node-2] job 2 failed: exit 4" in run.err and "[node-3] job 3 failed: exit 137 (SIGKILL)" in run.err
    )
    assert "second" not in run.out and "1 succeeded, 2 failed, 2 not started" in run.err, run


def test_without_it_the_run_goes_on_and_the_summary_names_every_failure(here: Path) -> None:
    write(
        here,
        "- node-1\n- node-2\n",
        yaml.safe_dump([on("node-1", "exit 5"), on("node-2", "exit 6"), "echo end"]),
    )

    run = pegasus("b")

    assert run.code == 1 and run.said == ["end", "end"], run
    summary = run.err[run.err.index("job  ended") :]
    for failure in (("exit 5", "node-1"), ("exit 6", "node-2")):
        assert any(all(word in line for word in failure) for line in summary.splitlines()), run
    assert "4 succeeded, 2 failed" in summary


@pytest.mark.parametrize("option", ["--daemon", "-d"])
def test_a_daemon_broadcasts_what_is_appended(here: Path, option: str) -> None:
    write(here, "- node-1\n- node-2\n", "")
    with running(here, "b", option) as run:
        with (here / "queue.yaml").open("a") as queue:
            queue.write("- echo appended $PEGASUS_SUBNODE\n")
        run.until_said("] appended node-1\n")
        run.until_said("] appended node-2\n")
        assert pegasus("stop", "--wait").code == 0
        assert run.result().code == 0


def test_a_node_lost_in_the_middle_is_reported_and_the_others_keep_their_step(
    here: Path, farm: SshFarm, new_server: NewServer, new_farm: SshFarm, ssh_home: Path
) -> None:
    """It comes back as somebody else (another host key), so it is lost for good."""
    victim = new_server("victim")
    new_farm.configure(ssh_home)
    config = ssh_home / ".ssh" / "config"
    hosts = ssh_home / ".ssh" / "known_hosts"
    config.write_text(config.read_text() + farm.ssh_config(hosts))
    hosts.write_text(hosts.read_text() + farm.known_hosts())
    gate = Gate(here, "middle")
    command = f"if [ $PEGASUS_SUBNODE = victim ]; then sleep 60; else {gate.command}; fi; echo first"
    write(here, "- node-1\n- victim\n- node-2\n", yaml.safe_dump([command, "echo second", "echo third"]))
    with running(here, "b") as run:
        gate.wait()
        victim.stop()
        victim.new_host_key()
        run.until_said("[victim] connection lost")
        victim.start()
        run.until_said("[victim] cannot be reached: HOST KEY CHANGED")
        gate.open()
        result = run.result()
    assert result.code == 1, result
    for node in ("node-1", "node-2"):
        mine = [line for line in result.out.splitlines() if line.startswith(f"[{node}] ")]
        assert [line.partition("] ")[2] for line in mine] == ["first", "second", "third"], result
    assert "victim" not in result.nodes
    assert (
        "victim: " in result.err[result.err.index("succeeded") - 2000 :].rpartition("job ")[2]
        or "set aside: victim" in result.err
    )


def test_a_connection_that_comes_back_costs_nobody_the_step(
    here: Path, new_server: NewServer, new_farm: SshFarm, home: Path
) -> None:
    gate = Gate(here, "middle")
    for name in ("one", "two"):
        new_server(name)
    new_farm.configure(home)
    write(here, "- one\n- two\n", yaml.safe_dump([on("one", gate.command) + "; echo first", "echo second"]))
    with running(here, "b") as run:
        gate.wait()
        assert new_farm["one"].kill_sessions() > 0
        run.until_said("[one] connection lost")
        run.until_said("[one] connected again")
        gate.open()
        result = run.result()
    assert result.code == 0 and result.said == ["first", "first", "second", "second"], result
    assert "from an earlier run" not in result.err
