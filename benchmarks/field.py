"""Where it is measured: SSH servers on loopback, ways to them for every client, and directories for queues."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from tests.support.proxy import Proxy
from tests.support.sshd import SshFarm

ROOT = Path(__file__).resolve().parent.parent
RAM = Path("/dev/shm")
ROOM = 4 << 30
"""Bytes that must be free in memory for the nodes to live there."""


class Field:
    """Real sshd, started on first use, all gone at the end. Logins there start `sh` with an empty home.

    Servers and homes are in memory if there is room, for nodes do not share the controller's disk; queues are on disk.
    """

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="pegbench-", dir=_for_nodes()))
        self._disk = Path(tempfile.mkdtemp(prefix="pegbench-", dir=_for_queues()))
        _put_apart(self._disk)
        self.home = self.root / "home"
        self.farm = SshFarm(self.root, 0)
        self._numbers = itertools.count(1)
        self._proxies: list[Proxy] = []
        self._elsewhere: list[Path] = []
        self._echoes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Field:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for proxy in self._proxies:
            proxy.__exit__(None, None, None)
        for echo in self._echoes:
            with echo:
                echo.kill()
        self.farm.stop()
        for directory in (*self._elsewhere, self._disk, self.root):
            shutil.rmtree(directory, ignore_errors=True)

    def nodes(self, count: int) -> list[str]:
        """The names of so many servers that run."""
        for number in range(len(self.farm) + 1, count + 1):
            self.farm.add(f"node-{number}", {"MaxSessions": "100"}).start()
        self.farm.configure(self.home)
        return self.farm.names[:count]

    def slow_route(self, node: str, delay: float) -> tuple[str, int]:
        """An address that leads to the node with `delay` seconds each way."""
        server = self.farm[node]
        return self._delayed((server.address, server.port), delay)

    def slow_echo(self, delay: float) -> tuple[str, int]:
        """An address from which all comes back that is sent there, over a path with `delay` seconds each way."""
        words = [sys.executable, "-m", "benchmarks.echo"]
        echo = subprocess.Popen(words, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._echoes.append(echo)
        assert echo.stdout is not None
        return self._delayed(("127.0.0.1", int(echo.stdout.readline())), delay)

    def _delayed(self, address: tuple[str, int], delay: float) -> tuple[str, int]:
        proxy = Proxy(address, delay=delay)
        proxy.__enter__()
        self._proxies.append(proxy)
        return proxy.address

    @property
    def config(self) -> Path:
        """The ssh_config to all nodes, without multiplexing."""
        return self.home / ".ssh" / "config"

    @property
    def key(self) -> Path:
        return self.farm.client_key

    def seats(
        self,
        nodes: Sequence[str],
        count: int,
        *,
        mux: bool,
        name: str = "seat",
        routes: Mapping[str, tuple[str, int]] | None = None,
    ) -> tuple[Path, list[str]]:
        """An ssh_config in which `count` names lead round robin to the nodes, and these names.

        With `mux` each has a master connection of its own, which stays until `close_masters`. `routes` leads to a
        node by another address.
        """
        config = self.root / f"config-{next(self._numbers)}"
        names = [f"{name}{n}" for n in range(count)]
        lines = []
        for number, seat in enumerate(names):
            server = self.farm[nodes[number % len(nodes)]]
            address, port = (routes or {}).get(server.name, (server.address, server.port))
            lines += [f"Host {seat}", f"  HostName {address}", f"  Port {port}"]
            lines += [f"  HostKeyAlias {server.name}"]
        lines += ["Host *", f"  User {self.farm[nodes[0]].user}", f"  IdentityFile {self.key}"]
        lines += ["  IdentitiesOnly yes", f"  UserKnownHostsFile {self.home}/.ssh/known_hosts"]
        lines += ["  StrictHostKeyChecking yes", "  BatchMode yes", "  LogLevel ERROR"]
        if mux:
            lines += ["  ControlMaster auto", f"  ControlPath {config}.%n", "  ControlPersist 600"]
        config.write_text("\n".join(lines) + "\n")
        return config, names

    def close_masters(self, config: Path, names: Sequence[str]) -> None:
        for name in names:
            subprocess.run(["ssh", "-F", config, "-O", "exit", name], capture_output=True, timeout=30)

    def directory(self, base: Path | None = None) -> Path:
        """A new empty directory on disk; in `base` instead if that is given."""
        path = (base or self._disk) / f"{self.root.name}-work-{next(self._numbers)}"
        path.mkdir()
        if base is not None:
            self._elsewhere.append(path)
        return path

    @property
    def disk(self) -> Path:
        """A directory on the disk that holds the queues."""
        return self._disk

    def about(self) -> dict[str, str]:
        """What the directories are on, for the head of the table."""
        return {"queues on": _kind(self._disk), "nodes' homes on": _kind(self.root)}

    def environment(self) -> dict[str, str]:
        """For a Pegasus that reaches the nodes by their names."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "PYTHONPATH": str(ROOT),
            "PEGASUS_SSH_CONFIG": str(self.config),
            "LC_ALL": "C.UTF-8",
        }


def _for_nodes() -> Path | None:
    try:
        found = os.statvfs(RAM)
    except OSError:
        return None
    return RAM if found.f_bavail * found.f_frsize >= ROOM and os.access(RAM, os.W_OK) else None


def _for_queues() -> Path:
    usual = Path(tempfile.gettempdir())
    return Path("/var/tmp") if _kind(usual) == "tmpfs" else usual


def _put_apart(directory: Path) -> None:
    """Have ext4 put each directory in this one on another part of the disk, if it is ext4.

    Where it has no journal it does not use an inode again that was freed in the last minutes, and searches on: where
    many files have been removed, the next ones take ten times as long. That is not what a queue is to be measured by.
    """
    if chattr := shutil.which("chattr"):
        subprocess.run([chattr, "+T", directory], capture_output=True, timeout=30)


def _kind(path: Path) -> str:
    """The type of the file system that `path` is on."""
    best, kind = "", "unknown"
    with contextlib.suppress(OSError):
        for line in Path("/proc/mounts").read_text().splitlines():
            _, mount, name, *_ = line.split(" ")
            inside = mount == "/" or path == Path(mount) or Path(mount) in path.parents
            if inside and len(mount) >= len(best):
                best, kind = mount, name
    return kind


def pegasus(*arguments: str) -> list[str]:
    """The command line of Pegasus, from this interpreter."""
    return [sys.executable, "-m", "pegasus_py", *arguments]
