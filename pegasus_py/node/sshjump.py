"""Jump hosts: one connection to each, shared by all who go through it, opened by the first and closed after the last.

(asyncssh by itself logs in to the jump host once for each target.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from pegasus_py.errors import NodeError

if TYPE_CHECKING:
    from pegasus_py.node.sshlink import Link

Hops = tuple[str, ...]
Open = Callable[[str, "Jump | None"], Awaitable["Link"]]
"""Log in to a hop as written, through another or directly."""


class Jump:
    """The connection to the last of `hops`, through the others. `link` is there once `entered`."""

    def __init__(self, hops: Hops) -> None:
        self.hops = hops
        self.users = 0
        self.link: Link
        self.opening: asyncio.Task[Link]

    def __repr__(self) -> str:
        return f"<Jump {' > '.join(self.hops)} users={self.users}>"


class JumpHosts:
    """All jump hosts in use. `open_link` makes the connection to one."""

    def __init__(self, open_link: Open) -> None:
        self._open_link = open_link
        self._jumps: dict[Hops, Jump] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def enter(self, hops: Hops) -> Jump:
        """Become a user of the way through `hops`. NodeError if it cannot be opened."""
        jump = self._jumps.get(hops)
        if jump is None:
            jump = self._jumps[hops] = Jump(hops)
            jump.opening = asyncio.create_task(self._open(jump), name=f"jump host {hops[-1]}")
        jump.users += 1
        try:
            # Shielded: one user that gives up waiting takes nothing from the others.
            jump.link = await asyncio.shield(jump.opening)
        except NodeError as error:
            self.leave(jump)
            what = (
                error.what if error.what.startswith("jump host ") else f"jump host {hops[-1]}: {error.what}"
            )
            raise error.of(error.host, what) from error
        except BaseException:
            self.leave(jump)
            raise
        return jump

    def leave(self, jump: Jump) -> asyncio.Task[None] | None:
        """Be a user no more. After the last one: the task that closes the connection."""
        jump.users -= 1
        if jump.users:
            return None
        self._forget(jump)
        if not jump.opening.done():
            jump.opening.cancel()
            return None
        if jump.opening.cancelled() or jump.opening.exception() is not None:
            return None
        task = asyncio.create_task(jump.opening.result().close(), name=f"closing {jump!r}")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        return task

    async def _open(self, jump: Jump) -> Link:
        *before, last = jump.hops
        outer = await self.enter(tuple(before)) if before else None
        try:
            link = await self._open_link(last, outer)
        except BaseException:
            self._forget(jump)
            if outer:
                self.leave(outer)
            raise
        link.lost.add_done_callback(lambda _: self._forget(jump))
        if outer:
            link.leaves(lambda: self.leave(outer))
        return link

    def _forget(self, jump: Jump) -> None:
        if self._jumps.get(jump.hops) is jump:
            del self._jumps[jump.hops]
