"""One SSH connection and the channels on it: asyncssh's callbacks on one side, `node.shell`'s protocols on the other.

Imported only once a connection is wanted, for asyncssh takes some 60 ms to import.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
import time
from collections.abc import Callable
from typing import Any

from pegasus_py.errors import NodeError
from pegasus_py.node import sshquick
from pegasus_py.node.hostkeys import Finding, HostKeys, Verdict
from pegasus_py.node.shell import BOOTSTRAP, Receiver, Stream
from pegasus_py.node.sshimport import asyncssh
from pegasus_py.node.sshspare import forget_negotiation, spare_copies, spare_ignore_packets, spare_timers

WINDOW = 2 * 1024 * 1024
LARGEST_WINDOW = 16 * 1024 * 1024
FULL_SPEED = 320_000_000
"""Bytes a node may send ahead: a round trip's worth at this many bytes a second, within these bounds.

2 MiB alone would cap a path of 50 ms at 20 MB/s. But sshd keeps a window's worth of output in a buffer that it grows
by copying, which costs it more than a second of CPU for 16 MiB.
"""

LARGEST_PACKET = 128 * 1024
"""Bytes of output in one SSH packet at most: 32 KiB, the default, costs more for each byte."""

OPEN_TIMEOUT = 15.0
"""Seconds that opening a channel may take."""

CLOSE_TIMEOUT = 3.0
"""Seconds for an orderly good-bye; then the connection is cut."""

STDERR_KEPT = 2048
"""Bytes of a shell's stderr that are kept to explain why it ended."""

SILENT = "not responding to keepalive"
"""asyncssh's words for a server that does not answer."""


class Link(asyncssh.SSHClient):
    """A connection to one node, see `node.shell.Connection`; it decides about the host key while it is made.

    `on_handshake` is called when the key exchange is done and logging in begins.
    """

    def __init__(self, host: str, host_keys: HostKeys, accept_new: bool) -> None:
        self._host = host
        self._host_keys = host_keys
        self._accept_new = accept_new
        self.on_handshake: Callable[[], object] = lambda: None
        self._connection: asyncssh.SSHClientConnection | None = None
        self._lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._new_key: tuple[str, str] | None = None
        self._round_trip = 0.0
        self._afterwards: asyncio.Task[None] | None = None
        self._closing = False
        self.authenticated = False
        self.handshaken = False
        self.fingerprint = ""
        self.finding: Finding | None = None
        self.learning_failed: OSError | None = None

    def __repr__(self) -> str:
        state = (
            f"lost: {self._lost.result()}"
            if self._lost.done()
            else "up"
            if self.authenticated
            else "connecting"
        )
        return f"<Link {self._host} {state}>"

    @property
    def host(self) -> str:
        return self._host

    @property
    def lost(self) -> asyncio.Future[str]:
        return self._lost

    @property
    def connection(self) -> asyncssh.SSHClientConnection:
        """For tunnels through this connection."""
        assert self._connection is not None
        return self._connection

    def revoked_keys(self) -> list[asyncssh.SSHKey]:
        """The keys that known_hosts revokes for this host."""
        keys = []
        for line in self._host_keys.revoked():
            with contextlib.suppress(asyncssh.KeyImportError):
                keys.append(asyncssh.import_public_key(f"{line.kind} {line.blob}"))
        return keys

    def leaves(self, leave: Callable[[], asyncio.Task[None] | None]) -> None:
        """Call `leave` when this connection is gone; what it returns is a part of closing."""

        def gone(_: object) -> None:
            self._afterwards = leave()

        self._lost.add_done_callback(gone)

    # What asyncssh calls.

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        self._connection = conn
        spare_ignore_packets(conn)
        spare_copies(conn)
        spare_timers(conn)

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        kind, blob = key.algorithm.decode(), base64.b64encode(key.public_data).decode()
        self.fingerprint = f"{kind} {key.get_fingerprint()}"
        self.finding = self._host_keys.judge(kind, blob)
        if self.finding.verdict is Verdict.UNKNOWN and self._accept_new:
            self._new_key = (kind, blob)
            return True
        return self.finding.verdict is Verdict.KNOWN

    def validate_host_ca_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self.fingerprint = f"certificate by {key.get_fingerprint()}"
        return base64.b64encode(key.public_data).decode() in self._host_keys.authorities()

    def begin_auth(self, username: str) -> None:
        """The key exchange is complete, so the server has shown that it owns its key: only now is it learnt."""
        self.handshaken = True
        self.on_handshake()
        if self._new_key is not None:
            self._learn(*self._new_key)

    def auth_completed(self) -> None:
        self.authenticated = True
        forget_negotiation(self.connection)

    def connection_lost(self, exc: Exception | None) -> None:
        # No key stays longer than what it is for; the others come back with the next packet.
        sshquick.key_of.cache_clear()
        if not self._lost.done():
            self._lost.set_result("closed" if self._closing else _reason_of(exc))

    def _learn(self, kind: str, blob: str) -> None:
        # Another connection to the same host may have learnt its key since we looked.
        self.finding = self._host_keys.judge(kind, blob)
        if self.finding.verdict is Verdict.UNKNOWN:
            try:
                self._host_keys.learn(kind, blob)
            except OSError as error:
                self.learning_failed = error
                self.connection.abort()
        elif self.finding.verdict is not Verdict.KNOWN:
            self.connection.abort()

    # What node.shell promises.

    async def open_shell(self, receiver: Receiver) -> Stream:
        if self._lost.done():
            raise NodeError(self._host, self._lost.result())
        channel = Channel(receiver)
        began = time.monotonic()
        # After the question has been sent: to send anything takes it back.
        asyncio.get_running_loop().call_soon(self._acknowledge_at_once)
        try:
            async with asyncio.timeout(OPEN_TIMEOUT):
                await self.connection.create_session(
                    lambda: channel,
                    BOOTSTRAP,
                    encoding=None,
                    max_pktsize=LARGEST_PACKET,
                    window=min(max(WINDOW, int(self._round_trip * FULL_SPEED)), LARGEST_WINDOW),
                    request_pty=False,
                    x11_forwarding=False,
                )
        except TimeoutError:
            what = f"no channel was opened within {OPEN_TIMEOUT:g} s"
        except asyncssh.ChannelOpenError as error:
            what = f"the node refused another channel: {error.reason} (sshd's MaxSessions?)"
        except (asyncssh.Error, OSError) as error:
            what = _reason_of(error)
        else:
            # Opened, then started: two questions and their answers.
            self._round_trip = (time.monotonic() - began) / 2
            return channel
        channel.abandon()
        # A channel fails first when its connection does; the connection knows better why.
        await asyncio.sleep(0)
        raise NodeError(self._host, self._lost.result() if self._lost.done() else what)

    def _acknowledge_at_once(self) -> None:
        """Have the kernel confirm what it receives now, instead of waiting 40 ms for something to send along.

        Right after the login sshd sends two small packets, and the second one only when the first is confirmed (Nagle's
        algorithm, which it turns off with the first command).
        """
        sock = self.connection.get_extra_info("socket")
        if sock is not None and hasattr(socket, "TCP_QUICKACK"):  # Linux
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def falls_silent(self) -> None:
        """The other side has not been heard of for too long."""
        self.connection.connection_lost(asyncssh.ConnectionLost(SILENT))

    async def close(self) -> None:
        self._closing = True
        if self._connection is not None:
            self._connection.close()
            try:
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await self._connection.wait_closed()
            except (TimeoutError, asyncssh.Error, OSError):
                self._connection.abort()
        if not self._lost.done():
            self._lost.set_result("closed")
        await asyncio.sleep(0)  # lets `leaves` be called
        if self._afterwards is not None:
            await asyncio.wait([self._afterwards], timeout=CLOSE_TIMEOUT)


class Channel(asyncssh.SSHClientSession[bytes]):
    """One shell. A channel that ends without exit status 0 has not ended in good order: the reason says why."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver: Receiver | None = receiver
        self._channel: asyncssh.SSHClientChannel[bytes] | None = None
        self._stderr = b""
        self._ended: str | None = "the channel was closed without an exit status"
        self._closing = False

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        self._channel = chan

    def data_received(self, data: bytes, datatype: Any) -> None:
        if datatype is not None:
            self._stderr = (self._stderr + data)[-STDERR_KEPT:]
        elif self._receiver is not None and not self._closing:
            self._receiver.data_received(data)

    def eof_received(self) -> bool:
        return True  # the way to its stdin stays open until we close it

    def exit_status_received(self, status: int) -> None:
        self._ended = f"the node's shell ended with exit status {status}" if status else None

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        self._ended = f"the node's shell was killed by SIG{signal}"

    def connection_lost(self, exc: Exception | None) -> None:
        receiver, self._receiver = self._receiver, None
        if receiver is None:
            return
        reason = _reason_of(exc) if exc else None if self._closing else self._ended
        if reason and self._stderr.strip():
            last = self._stderr.decode(errors="replace").strip().splitlines()[-1]
            reason = f"{reason}: {last!r}"
        receiver.closed(reason)

    def write(self, data: bytes) -> None:
        if self._channel is not None and not self._closing:
            with contextlib.suppress(OSError):  # gone; `closed` tells, or has told
                if not sshquick.send(self._channel, data):
                    self._channel.write(data)

    def pause(self) -> None:
        if self._channel is not None:
            self._channel.pause_reading()

    def resume(self) -> None:
        if self._channel is not None:
            self._channel.resume_reading()

    def close(self) -> None:
        if not self._closing and self._channel is not None:
            self._closing = True
            self._channel.resume_reading()  # or what is held back would keep the channel from closing
            self._channel.close()

    def abandon(self) -> None:
        """Nobody is to be told anything any more."""
        self._receiver = None
        self.close()


def _reason_of(error: Exception | None) -> str:
    """Why a connection that was up has gone, in one line."""
    if error is None:
        return "the node closed the connection"
    text = str(error)
    if SILENT in text or isinstance(error, TimeoutError):
        return "the node no longer answers (keepalive timed out)"
    if isinstance(error, ConnectionResetError):
        return "the connection was reset"
    if isinstance(error, asyncssh.ConnectionLost):
        return "the connection was lost" + ("" if text in ("", "Connection lost") else f": {text}")
    if isinstance(error, OSError) and error.strerror:
        return f"the connection was lost: {error.strerror}"
    return f"the connection was lost: {text or type(error).__name__}"
