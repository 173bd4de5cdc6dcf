"""Logging in with asyncssh: its options are made once for all logins to a node within a few seconds.

To make them takes 0.7 ms (a thread, the keys' files, some 90 settings) and 5 kB, for each connection anew.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pegasus_py.node.once import Once
from pegasus_py.node.sshconfig import Route
from pegasus_py.node.sshimport import asyncssh
from pegasus_py.node.sshlink import Link

ALWAYS: dict[str, Any] = {
    "compression_algs": ["none"],
    "gss_host": None,
    "pkcs11_provider": (),
    "x509_trusted_certs": None,
    "agent_forwarding": False,
    "password_auth": False,
    "kbdint_auth": False,
    "encoding": None,
}


SHARED_FOR = 5.0
"""Seconds for which keys that have been read are used for other connections, too."""


class Login:
    """How to log in to where `route` leads. `settings` are arguments for asyncssh beside those that the route has."""

    def __init__(self, route: Route, files: list[Path], settings: dict[str, Any]) -> None:
        self.route = route
        self._files = files
        self._settings = {**ALWAYS, **settings, **route.login}
        self._options = Once(self._make)
        self._until = 0.0

    async def connect(
        self, link: Link, tunnel: asyncssh.SSHClientConnection | None, *, again: bool = False
    ) -> bool:
        """Log in. False if that is denied to keys that were read for another connection, and there are others by now.

        Then try once more, `again`. Raises what asyncssh raises.
        """
        # The link judges the key; all that asyncssh needs of known_hosts are revoked keys.
        known_hosts: Any = ([], [], link.revoked_keys())
        if self.route.read is None or not KNOWN_WAY:
            await asyncssh.connect(
                self.route.asked,
                self.route.port,
                username=self.route.user,
                options=self.route.read,
                config=None if self.route.read else [str(file) for file in self._files],
                tunnel=tunnel,
                client_factory=lambda: link,
                known_hosts=known_hosts,
                **self._settings,
            )
            return True
        loop = asyncio.get_running_loop()
        if loop.time() > self._until:
            self._read_anew()
        options = self._options
        are_others = options.is_asked
        made = await options.get()
        own: Any = Own(made, link, tunnel, known_hosts)
        try:
            await _connection._connect(
                own,
                None,
                loop,
                0,
                None,
                lambda: asyncssh.SSHClientConnection(loop, own, wait="auth"),
                "Opening SSH connection to",
            )
        except asyncssh.PermissionDenied:
            # A key may have been half written, or another one, when it was read. All who are denied read it once.
            if options is self._options:
                self._read_anew()
            if again or not are_others or _keys_of(await self._options.get()) == _keys_of(made):
                raise
            return False
        own.client_keys = ()
        return True

    def _read_anew(self) -> None:
        self._options = Once(self._make)
        self._until = asyncio.get_running_loop().time() + SHARED_FOR

    async def _make(self) -> asyncssh.SSHClientConnectionOptions:
        """In a thread: keys are read, from a disk that may be slow."""
        route = self.route
        return await asyncio.to_thread(
            asyncssh.SSHClientConnectionOptions,
            route.read,
            loop=asyncio.get_running_loop(),
            host=route.asked,
            port=route.port,
            username=route.user,
            config=None,
            tunnel=None,
            **self._settings,
        )


class Own:
    """asyncssh's options as one connection sees them: what is its own is here, all else in those that are shared.

    Whatever else asyncssh may come to set is the connection's own, too.
    """

    __slots__ = ("__dict__", "_shared", "client_keys", "known_hosts", "protocol_factory", "tunnel", "waiter")

    def __init__(
        self, shared: asyncssh.SSHClientConnectionOptions, link: Link, tunnel: Any, known_hosts: Any
    ) -> None:
        self._shared = shared
        self.protocol_factory = lambda: link
        self.tunnel = tunnel
        self.known_hosts = known_hosts
        # A key pair is told how this server wants it to sign.
        self.client_keys: Sequence[Any] = [copy.copy(pair) for pair in shared.client_keys or ()]

    def update(self, **changes: Any) -> None:
        """As of asyncssh's options, for this connection alone."""
        self._shared = type(self._shared)(self._shared, **changes)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._shared, name)


def _keys_of(options: asyncssh.SSHClientConnectionOptions) -> list[bytes]:
    """What the server is offered, or which of the agent's keys are."""
    return [*(pair.public_data for pair in options.client_keys or ()), *(options.agent_identities or ())]


_connection: Any = asyncssh.connection


def _is_known() -> bool:
    """Whether what `asyncssh.connect` does once its options are made is there, and is what is known here."""
    try:
        found = list(inspect.signature(_connection._connect).parameters)
        ours = list(inspect.signature(asyncssh.SSHClientConnection).parameters)
    except (AttributeError, ValueError, TypeError):
        return False
    return (
        found == ["options", "config", "loop", "flags", "sock", "conn_factory", "msg"]
        and ours[:2] == ["loop", "options"]
        and "wait" in ours
    )


KNOWN_WAY = _is_known()
"""Else the usual way is taken, for which each connection makes its own options."""
