"""What asyncssh is spared: work at each packet and memory of each connection that nobody has a use for.

All of this reaches into asyncssh. Should it one day be made otherwise there, tests say so; what is done to a connection
itself is then no longer saved, but nothing breaks.
"""

from __future__ import annotations

import logging
from typing import Any

from pegasus_py.node import sshquick
from pegasus_py.node.sshimport import asyncssh

LARGE = 64 * 1024
"""Bytes of one read from which on what is left of it after each packet is not copied by asyncssh."""

# Nobody reads asyncssh's log, and to write it for nobody takes some 5 % of the time of small packets.
logging.getLogger("asyncssh").disabled = True


def _not_logged(*_: object) -> None:
    """In place of what puts a packet into words, and only then asks whether these are wanted."""


for _name in ("log_sent_packet", "log_received_packet"):
    setattr(asyncssh.packet.SSHPacketLogger, _name, _not_logged)


class Rest:
    """Bytes of which the beginning is taken off again and again: what `[n:]` gives shares them instead of copying.

    As immutable as bytes, and answers as they would.
    """

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes, at: int = 0) -> None:
        self._data = data
        self._at = at

    def __bytes__(self) -> bytes:
        return self._data[self._at :]

    def __len__(self) -> int:
        return len(self._data) - self._at

    def __add__(self, more: bytes) -> Rest | bytes:
        return bytes(self) + more if more else self

    def __radd__(self, before: bytes) -> bytes:
        return before + bytes(self)

    def __eq__(self, other: object) -> bool:
        return bytes(self) == (bytes(other) if isinstance(other, Rest) else other)

    def __hash__(self) -> int:
        return hash(bytes(self))

    def __getitem__(self, part: int | slice) -> Rest | bytes | int:
        if isinstance(part, slice) and part.step is None:
            at, end = self._at + (part.start or 0), part.stop
            if at >= self._at:
                if end is None:
                    # Nothing left keeps nothing.
                    return Rest(self._data, at) if at < len(self._data) else b""
                if end >= 0:
                    return self._data[at : self._at + end]
        return bytes(self)[part]

    def __getattr__(self, name: str) -> Any:
        """What else bytes can do."""
        return getattr(bytes(self), name)


def spare_copies(connection: asyncssh.SSHClientConnection) -> None:
    """Have packets go the quick way, and what is left of a large read not copied for each of the others.

    Eight packets come in one read when there is much output.
    """
    own: Any = connection
    receive = connection.data_received

    def data_received(data: bytes, datatype: Any = None) -> None:
        kept = getattr(own, "_inpbuf", None)
        if isinstance(kept, bytes | Rest):
            left, at = sshquick.take(connection, bytes(kept), data)
            own._inpbuf = Rest(left, at)[:] if len(left) - at >= LARGE else left[at:]
            data = b""
        receive(data, datatype)

    connection.data_received = data_received  # type: ignore[method-assign]


def spare_ignore_packets(connection: asyncssh.SSHClientConnection) -> None:
    """Leave out the empty packet that asyncssh sends before each packet.

    It hides the next initialisation vector of CBC ciphers (RFC 4251, 9.3.1). The others have no use for it, and it is
    half of the encryption, of the system calls, and of what the server has to read.
    """
    send, ignore = connection.send_packet, asyncssh.constants.MSG_IGNORE

    def send_packet(pkttype: int, *args: bytes, handler: Any = None) -> None:
        if pkttype != ignore or "-cbc" in str(connection.get_extra_info("send_cipher")):
            send(pkttype, *args, handler=handler)

    connection.send_packet = send_packet  # type: ignore[method-assign]


def spare_timers(connection: asyncssh.SSHClientConnection) -> None:
    """Have the timer of SSH's keepalive run on when something is received, and ask how long ago that was when it ends.

    asyncssh cancels it and sets another one for each read.
    """
    own: Any = connection
    names = (
        "_loop",
        "_keepalive_timer",
        "_keepalive_interval",
        "_reset_keepalive_timer",
        "_keepalive_timer_callback",
    )
    if not all(hasattr(own, name) for name in names):
        return
    loop, reset, ask = own._loop, own._reset_keepalive_timer, own._keepalive_timer_callback
    heard = interval = 0.0

    def heard_of() -> None:
        nonlocal heard, interval
        heard = loop.time()
        if own._keepalive_timer is None or own._keepalive_interval != interval:
            interval = own._keepalive_interval
            reset()

    def is_due() -> None:
        silent = loop.time() - heard
        if silent < own._keepalive_interval:
            own._keepalive_timer = loop.call_later(own._keepalive_interval - silent, is_due)
        else:
            ask()

    own._reset_keepalive_timer, own._keepalive_timer_callback = heard_of, is_due


def forget_negotiation(connection: asyncssh.SSHClientConnection) -> None:
    """Let go of what only the key exchange and the login needed: 4 kB of each connection, a tenth of all.

    A later key exchange makes its own.
    """
    own = vars(connection)
    if own.get("_kex_complete") and not own.get("_kexinit_sent"):
        for name, empty in (("_client_kexinit", b""), ("_server_kexinit", b""), ("_server_sig_algs", set())):
            if name in own:
                own[name] = empty
