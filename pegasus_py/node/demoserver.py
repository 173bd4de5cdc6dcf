"""SSH nodes for `pegasus demo` and quick tests: servers in this process, on loopback, that run real shells.

The keys are made on the spot and trusted by nobody else; the client configuration that `write_config` makes lets
in this one client and pins these host keys.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import Any

from pegasus_py.node.sshimport import asyncssh

CLOSE_TIMEOUT = 3.0
"""Seconds that connections, and then the shells on them, get to end when the servers do."""


class DemoServers:
    """`count` SSH servers, demo-1 ... demo-N, on free ports of 127.0.0.1. An async context manager.

    Each has its own home below `directory`, which is HOME and the current directory of what runs there. Their
    processes outlive a connection, as those of a real server do.
    """

    def __init__(self, directory: Path, count: int = 3, prefix: str = "demo") -> None:
        self.directory = directory
        self.names = tuple(f"{prefix}-{n}" for n in range(1, count + 1))
        self.ports: dict[str, int] = {}
        self._host_key = asyncssh.generate_private_key("ssh-ed25519")
        self._client_key = asyncssh.generate_private_key("ssh-ed25519")
        self._acceptors: list[asyncssh.SSHAcceptor] = []
        self._shells: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> DemoServers:
        client = asyncssh.import_authorized_keys(self._client_key.export_public_key().decode())
        for name in self.names:
            home = self.directory / name
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
            acceptor = await asyncssh.listen(
                "127.0.0.1",
                0,
                server_host_keys=[self._host_key],
                authorized_client_keys=client,
                process_factory=_Shell(home, self._shells),
                encoding=None,
                gss_host=None,
                allow_scp=False,
            )
            self._acceptors.append(acceptor)
            self.ports[name] = acceptor.get_port()
        return self

    async def __aexit__(self, *exc: object) -> None:
        for acceptor in self._acceptors:
            acceptor.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                for acceptor in self._acceptors:
                    await acceptor.wait_closed()
        if self._shells:
            await asyncio.wait(self._shells, timeout=CLOSE_TIMEOUT)
        for shell in self._shells:
            shell.cancel()
        await asyncio.gather(*self._shells, return_exceptions=True)

    def write_config(self) -> Path:
        """Write an ssh configuration that leads to the servers, with its key and known_hosts; returns its path."""
        key, known_hosts, config = (
            self.directory / name for name in ("id_ed25519", "known_hosts", "ssh_config")
        )
        _write_private(key, self._client_key.export_private_key())
        public = self._host_key.export_public_key().decode().strip()
        known_hosts.write_text("".join(f"[127.0.0.1]:{port} {public}\n" for port in self.ports.values()))
        config.write_text(
            "".join(
                f"Host {name}\n  HostName 127.0.0.1\n  Port {port}\n  User demo\n  IdentityFile {key}\n"
                f"  IdentitiesOnly yes\n  UserKnownHostsFile {known_hosts}\n\n"
                for name, port in self.ports.items()
            )
        )
        return config


class _Shell:
    """Runs the commands of one server's sessions with `sh -c`, in a session of their own."""

    def __init__(self, home: Path, running: set[asyncio.Task[Any]]) -> None:
        self._home = home
        self._running = running

    async def __call__(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        environment = {**os.environ, "HOME": str(self._home), "PWD": str(self._home)}
        # State of the caller's own that would lead a node's files out of its home.
        environment = {name: value for name, value in environment.items() if not name.startswith("XDG_")}
        child = await asyncio.create_subprocess_exec(
            "/bin/sh",
            "-c",
            process.command or "exec sh",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=self._home,
            env=environment,
            start_new_session=True,
        )
        assert child.stdin and child.stdout and child.stderr
        feeding = asyncio.create_task(_copy(process.stdin, child.stdin))
        copying = [
            asyncio.create_task(_copy(child.stdout, process.stdout)),
            asyncio.create_task(_copy(child.stderr, process.stderr)),
        ]
        try:
            status = await child.wait()
            # What a child in the background holds open must not hold up the end.
            await asyncio.wait(copying, timeout=1)
            if status >= 0:
                process.exit(status)
            else:
                process.exit_with_signal(signal.Signals(-status).name.removeprefix("SIG"))
        finally:
            for task in (feeding, *copying):
                task.cancel()
            await asyncio.gather(feeding, *copying, return_exceptions=True)


async def _copy(source: Any, sink: Any) -> None:
    """Copy blocks to the end of file, which is passed on; errors mean that one side has gone."""
    with contextlib.suppress(OSError, asyncssh.Error):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
        if isinstance(sink, asyncio.StreamWriter):
            sink.close()


def _write_private(file: Path, data: bytes) -> None:
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
        out.write(data)
