"""Whether the nodes' kernels still answer: one look for all connections, where SSH's keepalive wakes us for each.

Linux's TCP asks the other side when nothing else is said (`SO_KEEPALIVE`), and knows when it was last heard of.
"""

from __future__ import annotations

import asyncio
import math
import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pegasus_py.node.sshlink import Link

ASKED_RARELY = 3
"""How many times rarer the SSH server is asked whether it is there, where the kernel is."""
_LAST_HEARD = 52
"""Where in Linux's `struct tcp_info` is how many milliseconds ago data came, and then how many ago a confirmation did.

(tcpi_last_data_recv, tcpi_last_ack_recv.) Data need not count as a confirmation where nothing has been sent.
"""


class Pulse:
    """Ends connections whose other side has been silent for `interval` x (`count` + 1) seconds."""

    def __init__(self, interval: float, count: int) -> None:
        self._interval = interval
        self._every = max(1, math.ceil(interval))
        self._limit = self._every * (count + 1)
        self._links: set[Link] = set()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, link: Link) -> None:
        """From now on, until it is lost; its SSH server is asked more rarely then.

        Not for a connection through a jump host, which would answer for the node. All stays as it is where the kernel
        cannot do it, or is not to (TCPKeepAlive no).
        """
        sock = link.connection.get_extra_info("socket")
        try:
            if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE):
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, self._every)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, self._every)
            _silent_for(sock)
        except (AttributeError, OSError, struct.error):
            return
        link.connection.set_keepalive(self._interval * ASKED_RARELY)
        self._links.add(link)
        link.lost.add_done_callback(lambda _: self._links.discard(link))
        if self._timer is None:
            self._look_after(self._every)

    def _look_after(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        self._timer = None
        longest = 0.0
        for link in list(self._links):
            try:
                silent = _silent_for(link.connection.get_extra_info("socket"))
            except (AttributeError, OSError):
                # Closed, and about to be told lost.
                continue
            if silent >= self._limit:
                link.falls_silent()
            else:
                longest = max(longest, silent)
        if self._links:
            self._look_after(min(self._every, self._limit - longest))


def _silent_for(sock: socket.socket) -> float:
    """Seconds since the other side's kernel was heard of."""
    found = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_HEARD + 8)
    return float(min(struct.unpack_from("=II", found, _LAST_HEARD))) / 1000
