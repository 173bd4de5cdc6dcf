"""Anything that gives us a shell: what a way to a node must offer, and how the node-side script is started there.

A `Connector` makes a `Connection` to a node; a `Connection` opens shells, each with a `Stream` to write to and a
`Receiver` that is told what comes back. `node.local` does it with child processes, `node.ssh` with SSH channels.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from pegasus_py.core.model import SubNode

END_MARK = "#pegasus-end"
"""The last line of what is sent to BOOTSTRAP; nothing before it contains it."""

BOOTSTRAP = (
    "exec /bin/sh -c '"
    "pegasus_s=; "
    "while :; do "
    "pegasus_c=$(dd bs=65536 count=1 2>/dev/null; echo .); "
    "pegasus_c=${pegasus_c%.}; "
    '[ -n "$pegasus_c" ] || exit 72; '
    "pegasus_s=$pegasus_s$pegasus_c; "
    f"case $pegasus_s in *{END_MARK}*) break;; esac; "
    "done; "
    'eval "$pegasus_s"'
    "'"
)
"""The command line to run on a node: it reads a script from stdin up to END_MARK and becomes it.

It is one line that means the same to sh, bash, zsh, csh and fish (no backslash, no `!`, no quote within the quotes
that one of them would see). After the script send nothing until the script has answered. `dd` reads what there is
and no more; the dot keeps the newlines at the end of a block, which `$(...)` would take off.
"""


class Receiver(Protocol):
    """What a shell's output is given to, in the event loop's thread. Neither method may raise or block."""

    def data_received(self, data: bytes) -> None:
        """The next bytes of the shell's stdout, in blocks of any size; never empty."""

    def closed(self, reason: str | None) -> None:
        """Called once, after the last data: the shell is gone. `reason` is None when it ended in good order."""


class Stream(Protocol):
    """The way into an open shell. All methods return at once and may be called after the shell is gone."""

    def write(self, data: bytes) -> None:
        """Send `data` to the shell's stdin; what cannot go out yet is buffered, what can never go is dropped."""

    def pause(self) -> None:
        """Read no more from the shell until `resume`, so that its writer is held up instead of our memory filled."""

    def resume(self) -> None: ...

    def close(self) -> None:
        """End the shell's stdin (after what was written) and read no more. What it runs goes on: never a signal."""


class Connection(Protocol):
    """An open way to one node, on which shells can be opened."""

    @property
    def host(self) -> str:
        """The name by which errors speak of the node."""

    @property
    def lost(self) -> asyncio.Future[str]:
        """Done with the reason, one line, once the connection is gone, by our `close` or without us."""

    async def open_shell(self, receiver: Receiver) -> Stream:
        """Start BOOTSTRAP on the node with stdin and stdout connected to us.

        Raises NodeError, transient when the node refuses one more channel for now.
        """

    async def close(self) -> None:
        """Close all shells and the connection. Bounded in time, never raises, may be called again."""


class Connector(Protocol):
    """Makes connections. One for all sub-nodes of a kind."""

    async def connect(self, subnode: SubNode) -> Connection:
        """Raises NodeError, which says whether trying again may help. Bounded in time."""
