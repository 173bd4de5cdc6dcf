"""Nodes reached by SSH: one connection per sub-node, made as OpenSSH's configuration says, host keys always checked.

asyncssh is met in node/ssh*.py alone, and imported when the first connection is made.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pegasus_py.core.model import SubNode
from pegasus_py.errors import NodeError
from pegasus_py.node import sshconfig
from pegasus_py.node.hostkeys import KnownKey
from pegasus_py.node.once import Once
from pegasus_py.node.shell import Connection
from pegasus_py.node.sshgate import TRIES, Gates, pause_before
from pegasus_py.node.sshjump import Jump, JumpHosts
from pegasus_py.node.sshpulse import Pulse

if TYPE_CHECKING:
    from pegasus_py.node.sshlink import Link
    from pegasus_py.node.sshlogin import Login

CONFIG_VARIABLE = "PEGASUS_SSH_CONFIG"
"""An environment variable that names the one configuration file to read, like `ssh -F`."""

RESOLVE_TIMEOUT = 30.0
"""Seconds for reading the configuration, `Match exec` commands included."""

RESOLVED_FOR = 5.0
"""Seconds for which what the configuration said of a node holds, for other connections to the same one."""

MAX_JUMPS = 8


class SshConnector:
    """Makes SSH connections. Keep one for a run: it bounds logins, shares jump hosts and remembers host keys.

    `accept_new` learns the keys of hosts that are not known; a changed key is refused always. All times in seconds:
    `connect_timeout` is for reaching the node and agreeing on keys (ConnectTimeout in the configuration wins),
    `login_timeout` for logging in after that. A node that is silent for `keepalive_interval` x (`keepalive_count`
    + 1) is lost (ServerAliveInterval and ServerAliveCountMax win); one whose kernel still answers, and which is not
    behind a jump host, after three times as long (`sshpulse`). `config` replaces the user's and the system's
    configuration.
    """

    def __init__(
        self,
        *,
        accept_new: bool = False,
        connect_timeout: float = 10.0,
        login_timeout: float = 30.0,
        keepalive_interval: float = 10.0,
        keepalive_count: int = 2,
        config: Path | None = None,
    ) -> None:
        self._accept_new = accept_new
        self._connect_timeout = connect_timeout
        self._login_timeout = login_timeout
        self._keepalive_interval = keepalive_interval
        self._keepalive_count = keepalive_count
        named = os.environ.get(CONFIG_VARIABLE)
        self._config = config or (Path(named) if named else None)
        self._gates = Gates()
        self._pins: dict[str, KnownKey] = {}
        self._logins: dict[tuple[str, bool], tuple[float, Once[Login]]] = {}
        self._tidied = 0.0
        self._jumps = JumpHosts(self._open_hop)
        self._pulse = Pulse(keepalive_interval, keepalive_count)

    async def connect(self, subnode: SubNode) -> Connection:
        """Log in to the node. NodeError with the reason in words and whether trying again may help."""
        name = subnode.name
        login = await self._resolve(subnode.hostname, name)
        route = login.route
        if not route.jumps:
            link = await self._log_in(login, name, None)
            if route.alive_interval is None and route.alive_count is None:
                self._pulse.watch(link)
            return link
        try:
            jump = await self._jumps.enter(await self._all_hops(route.jumps))
        except NodeError as error:
            raise error.of(name) from error
        try:
            link = await self._log_in(login, name, jump)
        except BaseException:
            self._jumps.leave(jump)
            raise
        link.leaves(lambda: self._jumps.leave(jump))
        return link

    async def _open_hop(self, hop: str, outer: Jump | None) -> Link:
        return await self._log_in(await self._resolve(hop, hop, hop=True), hop, outer)

    async def _all_hops(self, jumps: tuple[str, ...]) -> tuple[str, ...]:
        """The whole chain: the first hop may have a ProxyJump of its own; the others are reached through it."""
        while len(jumps) <= MAX_JUMPS:
            first = await self._resolve(jumps[0], jumps[0], hop=True)
            if not first.route.jumps:
                return jumps
            jumps = (*first.route.jumps, *jumps)
        what = f"more than {MAX_JUMPS} jump hosts, ProxyJump goes in a circle: {' > '.join(jumps)}"
        raise NodeError(jumps[-1], what, transient=False)

    async def _resolve(self, written: str, name: str, *, hop: bool = False) -> Login:
        """Ask the configuration; sub-nodes of one node that connect together ask once."""
        now = asyncio.get_running_loop().time()
        key = (written, hop)
        until, asking = self._logins.get(key, (0.0, None))
        if asking is None or now > until:
            if now > self._tidied + RESOLVED_FOR:
                self._tidied = now
                self._logins = {key: kept for key, kept in self._logins.items() if now <= kept[0]}
            asking = Once(lambda: self._look_up(written, hop=hop))
            self._logins[key] = (now + RESOLVED_FOR, asking)
        try:
            return await asking.get()
        except NodeError as error:
            raise error.of(name) from error

    async def _look_up(self, written: str, *, hop: bool) -> Login:
        try:
            files = sshconfig.config_files(self._config)
            async with asyncio.timeout(RESOLVE_TIMEOUT):
                route = await asyncio.to_thread(sshconfig.resolve, written, files, hop=hop, pins=self._pins)
        except TimeoutError:
            what = f"the ssh configuration took longer than {RESOLVE_TIMEOUT:g} s (a command of Match exec?)"
            raise NodeError(written, what) from None
        from pegasus_py.node.sshlogin import Login

        count = route.alive_count
        settings = {
            "connect_timeout": None,
            "login_timeout": self._connect_timeout + self._login_timeout,
            "keepalive_interval": route.alive_interval or self._keepalive_interval,
            "keepalive_count_max": self._keepalive_count if count is None else count,
        }
        return Login(route, files, settings)

    async def _log_in(self, login: Login, name: str, jump: Jump | None) -> Link:
        """Connect and log in; try again, with pauses, while the server hangs up before the handshake."""
        import asyncssh

        from pegasus_py.node.ssherrors import dropped_early, explain
        from pegasus_py.node.sshlink import Link

        route = login.route
        way = " > ".join([*(jump.hops if jump else ()), route.address])
        async with self._gates.login(way) as gate:
            retry = 0
            again = False
            while True:
                link = Link(name, route.host_keys, self._accept_new)
                try:
                    if not await self._try(login, link, jump, again):
                        again = True
                        continue
                    gate.accepted()
                    return link
                except (asyncssh.Error, OSError, ValueError) as error:  # TimeoutError is an OSError
                    if jump and jump.link.lost.done():
                        what = f"jump host {jump.hops[-1]}: {jump.link.lost.result()}"
                        raise NodeError(name, what) from error
                    retry += 1
                    if not dropped_early(error, link) or retry == TRIES:
                        raise await asyncio.to_thread(explain, error, route, link, name) from error
                gate.refused()
                await asyncio.sleep(pause_before(retry))

    async def _try(self, login: Login, link: Link, jump: Jump | None, again: bool) -> bool:
        import asyncssh

        loop = asyncio.get_running_loop()
        async with asyncio.timeout(login.route.connect_timeout or self._connect_timeout) as limit:
            link.on_handshake = lambda: limit.reschedule(loop.time() + self._login_timeout)
            is_in = await login.connect(link, jump.link.connection if jump else None, again=again)
        if is_in and link.lost.done():
            raise asyncssh.ConnectionLost(link.lost.result())
        return is_in
