"""Real OpenSSH servers on loopback: each with its own address, keys, home and configuration.

`SshServer` is one sshd; `SshFarm` is a set called node-1 ... node-N, with the ssh_config that leads to them.
They run as whoever runs the tests (root or not), and every login is as that user, with HOME in the server's
directory, so that the caller's own dot files are neither read (they may be slow) nor written.
"""

from __future__ import annotations

import contextlib
import getpass
import itertools
import os
import shutil
import signal
import socket
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.support import procs

_addresses = itertools.count(os.getpid() * 16 % 60000 + 2)


def find_sshd() -> str | None:
    """The absolute path of sshd (it insists on one), or None where OpenSSH's server is not installed."""
    return shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin:/sbin")


def make_key(path: Path, comment: str = "test") -> Path:
    """Make an ed25519 key pair without a passphrase: `path` and `path.pub`."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)]
    subprocess.run(keygen, check=True, stdin=subprocess.DEVNULL)
    return path


def free_address() -> tuple[str, int]:
    """An address of 127.0.0.0/8 and a port there that nobody listens on just now."""
    n = next(_addresses) % 65000
    address = f"127.0.{n // 250}.{n % 250 + 2}"
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return address, port


class SshServer:
    """One `sshd -D` with its own directory `root`. `options` are sshd_config keywords that come before ours.

    `variable` ("PEGASUS_TEST_NODE=...") is in the environment of everything that a login here starts.
    """

    def __init__(
        self,
        name: str,
        root: Path,
        authorized_keys: Sequence[str] = (),
        options: Mapping[str, str] | None = None,
        *,
        home: Path | None = None,
    ) -> None:
        self.name = name
        self.root = root
        self.home = home or root / "home"
        self.address, self.port = free_address()
        self.user = getpass.getuser()
        self.options = dict(options or {})
        self.variable = f"PEGASUS_TEST_NODE={name}-{uuid.uuid4().hex}"
        self.environment: dict[str, str] = {}
        """What logins have besides; for the next `start`."""
        self.log = root / "sshd.log"
        self.boot_id_file = root / "boot_id"
        self.host_key = root / "host_key"
        self.authorized_keys = root / "authorized_keys"
        self._process: subprocess.Popen[bytes] | None = None
        root.mkdir(parents=True, exist_ok=True)
        self.home.mkdir(parents=True, exist_ok=True)
        self.authorized_keys.write_text("".join(key.strip() + "\n" for key in authorized_keys))
        self.new_boot_id()
        make_key(self.host_key, f"host key of {name}")

    def __repr__(self) -> str:
        state = f"pid {self._process.pid}" if self._process else "down"
        return f"<SshServer {self.name} {self.address}:{self.port} {state}>"

    @property
    def public_key(self) -> str:
        """The host key as "type base64"."""
        return " ".join(Path(f"{self.host_key}.pub").read_text().split()[:2])

    @property
    def known_hosts_line(self) -> str:
        return f"[{self.address}]:{self.port} {self.public_key}\n"

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self!r} is not running"
        return self._process.pid

    def new_boot_id(self) -> None:
        """From now on the node says that it has been booted anew (through PEGASUS_BOOT_ID_FILE)."""
        self.boot_id_file.write_text(f"{uuid.uuid4()}\n")

    def new_host_key(self) -> None:
        """Another host key, used from the next `start`."""
        self.host_key.unlink()
        Path(f"{self.host_key}.pub").unlink()
        make_key(self.host_key, f"another host key of {self.name}")

    def config(self) -> str:
        """The sshd_config; of a keyword that is there twice the first counts."""
        own = [f"{keyword} {value}" for keyword, value in self.options.items()]
        environment = f"HOME={self.home} {self.variable} PEGASUS_BOOT_ID_FILE={self.boot_id_file}"
        environment += "".join(f" {name}={value}" for name, value in self.environment.items())
        return "\n".join(
            [
                *own,
                f"ListenAddress {self.address}",
                f"Port {self.port}",
                f"HostKey {self.host_key}",
                f"AuthorizedKeysFile {self.authorized_keys}",
                "PidFile none",
                "StrictModes no",
                f"UsePAM {'yes' if _account_is_locked(self.user) else 'no'}",
                "PermitRootLogin prohibit-password",
                "PasswordAuthentication no",
                "KbdInteractiveAuthentication no",
                "MaxStartups 200",
                "PrintMotd no",
                "PrintLastLog no",
                "UseDNS no",
                "LogLevel VERBOSE",
                f"SetEnv {environment}",
                "",
            ]
        )

    def start(self) -> SshServer:
        """Start it and wait until it listens; the same address and port as before."""
        assert self._process is None, f"{self!r} runs already"
        sshd = find_sshd()
        assert sshd is not None, "no sshd on this machine"
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        config = self.root / "sshd_config"
        config.write_text(self.config())
        offset = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = process = subprocess.Popen(
                [sshd, "-D", "-e", "-f", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": os.environ["PATH"]},
                start_new_session=True,
            )

        def listens() -> bool:
            assert process.poll() is None, f"sshd ended at once: {self.log_text(offset)}"
            return "Server listening on" in self.log_text(offset)

        procs.wait_until(listens, f"{self!r} to listen")
        return self

    def log_text(self, offset: int = 0) -> str:
        with self.log.open("rb") as log:
            log.seek(offset)
            return log.read().decode(errors="replace")

    def logins(self) -> int:
        """How many times a public key has been accepted since the server was made."""
        return self.log_text().count("Accepted publickey")

    def sessions(self) -> list[int]:
        """The sshd processes that serve connections (not what they have started)."""
        return [
            p for p in procs.descendants(self.pid) if procs.command_of(p).partition(" ")[2].startswith("sshd")
        ]

    def kill_sessions(self, sig: int = signal.SIGKILL) -> int:
        """Kill the sshd processes that serve connections; jobs and the listening sshd stay. Says how many."""
        pids = self.sessions()
        procs.kill(pids, sig)
        if sig == signal.SIGKILL:
            procs.wait_until(lambda: not any(map(procs.alive, pids)), f"sessions of {self!r} to end")
        return len(pids)

    def stop_listening(self) -> None:
        """End the listening sshd only: connections and jobs stay, new connections are refused."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(10)

    def crash(self) -> None:
        """kill -9 of sshd and of its sessions; jobs stay."""
        if self._process is not None:
            pids = self.sessions()
            self.stop_listening()
            procs.kill(pids)

    def processes(self) -> list[int]:
        """Everything that logins have started here and that lives (as far as it has kept its environment)."""
        return procs.carriers(self.variable)

    def reboot(self) -> None:
        """All processes of the node end by KILL, it has another boot id, and it serves again."""
        self.stop()
        self.new_boot_id()
        self.start()

    def stop(self) -> None:
        """End sshd, its sessions and everything that logins have started. Fine when it is down already."""
        self.crash()
        procs.kill(self.processes())
        procs.wait_until(lambda: _kill_again(self.processes()), f"processes of {self!r} to end")

    def __enter__(self) -> SshServer:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()


class SshFarm:
    """Servers node-1 ... node-N that let one client key in. `options` as for SshServer."""

    def __init__(self, root: Path, count: int = 4, options: Mapping[str, str] | None = None) -> None:
        self.root = root
        self.client_key = make_key(root / "id_ed25519", "client")
        self.servers: dict[str, SshServer] = {}
        for n in range(1, count + 1):
            self.add(f"node-{n}", options)

    @property
    def client_public_key(self) -> str:
        return Path(f"{self.client_key}.pub").read_text().strip()

    def __getitem__(self, name: str) -> SshServer:
        return self.servers[name]

    def __iter__(self) -> Iterator[SshServer]:
        return iter(self.servers.values())

    def __len__(self) -> int:
        return len(self.servers)

    @property
    def names(self) -> list[str]:
        return list(self.servers)

    def add(
        self, name: str, options: Mapping[str, str] | None = None, *, home: Path | None = None
    ) -> SshServer:
        """One more server, not started."""
        server = SshServer(name, self.root / name, [self.client_public_key], options, home=home)
        self.servers[name] = server
        return server

    def start(self) -> SshFarm:
        for server in self:
            server.start()
        return self

    def stop(self) -> None:
        for server in self:
            server.stop()

    def ssh_config(self, known_hosts: Path, routes: Mapping[str, tuple[str, int]] | None = None) -> str:
        """The client's configuration. `routes` leads names through other addresses (a proxy, say).

        Host keys are known by the server's name (HostKeyAlias), so that they hold on every route.
        """
        text = ""
        for server in self:
            address, port = (routes or {}).get(server.name, (server.address, server.port))
            text += (
                f"Host {server.name}\n  HostName {address}\n  Port {port}\n  HostKeyAlias {server.name}\n"
                f"  User {server.user}\n  IdentityFile {self.client_key}\n  IdentitiesOnly yes\n"
                f"  UserKnownHostsFile {known_hosts}\n\n"
            )
        return text

    def known_hosts(self) -> str:
        return "".join(f"{server.name} {server.public_key}\n" for server in self)

    def configure(self, home: Path, routes: Mapping[str, tuple[str, int]] | None = None) -> Path:
        """Write `home`/.ssh/config and known_hosts; with HOME=`home`, `pegasus` reaches every node.

        (OpenSSH's own `ssh` does not look at HOME: call it with -F.) Returns the path of the configuration.
        """
        ssh = home / ".ssh"
        ssh.mkdir(mode=0o700, parents=True, exist_ok=True)
        config, known_hosts = ssh / "config", ssh / "known_hosts"
        known_hosts.write_text(self.known_hosts())
        config.write_text(self.ssh_config(known_hosts, routes))
        config.chmod(0o600)
        return config

    def __enter__(self) -> SshFarm:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()


def _kill_again(pids: Sequence[int]) -> bool:
    procs.kill(pids)
    return not pids


def _account_is_locked(user: str) -> bool:
    """Without PAM, sshd refuses accounts whose password field starts with "!"; only root can look."""
    with contextlib.suppress(OSError):
        for line in Path("/etc/shadow").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name == user:
                return rest.startswith("!")
    return False
