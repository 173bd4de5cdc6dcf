"""The servers that other tests rely on do what they say, shown with OpenSSH's own client."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.conftest import NewServer
from tests.support import procs
from tests.support.sshd import SshFarm


def ssh(home: Path, host: str, command: str) -> subprocess.CompletedProcess[str]:
    words = ["ssh", "-F", str(home / ".ssh/config"), "-o", "BatchMode=yes", host, command]
    return subprocess.run(words, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL)


def test_every_node_lets_us_in_and_has_its_own_home(farm: SshFarm, ssh_home: Path) -> None:
    for server in farm:
        assert ssh(ssh_home, server.name, "echo $HOME").stdout.strip() == str(server.home)


def test_another_host_key_after_a_restart_is_refused(new_farm: SshFarm, home: Path) -> None:
    server = new_farm.add("alone").start()
    new_farm.configure(home)
    assert ssh(home, "alone", "true").returncode == 0
    server.stop()
    server.new_host_key()
    server.start()
    assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in ssh(home, "alone", "true").stderr


def test_killed_sessions_leave_jobs_alive_and_stop_ends_them(
    new_server: NewServer, new_farm: SshFarm, home: Path
) -> None:
    server = new_server("alone")
    new_farm.configure(home)
    client = subprocess.Popen(
        ["ssh", "-F", str(home / ".ssh/config"), "alone", "setsid sleep 77 & echo up; wait"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"up\n"
        assert server.kill_sessions() > 0
        assert client.wait(10) == 255
    assert any("sleep 77" in procs.command_of(p) for p in server.processes())
    server.reboot()
    assert server.processes() == []
    assert ssh(home, "alone", "true").returncode == 0


def test_options_count(new_server: NewServer, new_farm: SshFarm, home: Path) -> None:
    new_server("shut", {"DenyUsers": "*"})
    new_farm.configure(home)
    assert "Permission denied" in ssh(home, "shut", "true").stderr
