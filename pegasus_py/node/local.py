"""The node that we are on: shells as child processes, with no SSH.

They are sessions of their own, so that neither Ctrl-C nor the controller's end reaches them or their jobs. asyncio's
own subprocesses will not do: they kill the child when the transport is closed, and a runner has to see its job's end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pegasus_py.core.model import SubNode
from pegasus_py.errors import NodeError
from pegasus_py.node.shell import BOOTSTRAP, Receiver

_BLOCK = 1 << 18
_LEAVE_WITHIN = 0.5


class LocalConnector:
    """Connects to this machine. `env` and `command` are for other surroundings: another shell, another home."""

    def __init__(
        self, env: Mapping[str, str] | None = None, command: Sequence[str] = ("/bin/sh", "-c", BOOTSTRAP)
    ) -> None:
        self._env = env
        self._command = tuple(command)

    async def connect(self, subnode: SubNode) -> LocalConnection:
        return LocalConnection(subnode.hostname, self._command, self._env)


class LocalConnection:
    """A set of local shells that are closed together."""

    def __init__(self, host: str, command: Sequence[str], env: Mapping[str, str] | None) -> None:
        self._host = host
        self._command = command
        self._env = env
        self._streams: set[LocalStream] = set()
        self._exits: set[_Exit] = set()
        self._lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    @property
    def host(self) -> str:
        return self._host

    @property
    def lost(self) -> asyncio.Future[str]:
        return self._lost

    async def open_shell(self, receiver: Receiver) -> LocalStream:
        if self._lost.done():
            raise NodeError(self._host, "the connection is closed")
        try:
            stream = LocalStream(receiver, self._command, self._env)
        except OSError as error:
            raise NodeError(
                self._host, f"cannot start {self._command[0]}: {error.strerror or error}"
            ) from error
        self._streams.add(stream)
        stream.on_gone = self._gone
        return stream

    def _gone(self, stream: LocalStream) -> None:
        self._streams.discard(stream)
        leaving = _Exit(stream.pid)
        self._exits.add(leaving)
        leaving.done.add_done_callback(lambda _: self._exits.discard(leaving))

    async def close(self) -> None:
        for stream in list(self._streams):
            stream.close()
        if not self._lost.done():
            self._lost.set_result("closed")
        # One that is idle leaves at once; one that has a job stays with it, and is not waited for.
        leaving = set(self._exits)
        if leaving:
            await asyncio.wait([each.done for each in leaving], timeout=_LEAVE_WITHIN)
        for each in leaving:
            each.drop()


class LocalStream:
    """A running shell's stdin and stdout. Raises OSError if it cannot be started."""

    def __init__(self, receiver: Receiver, command: Sequence[str], env: Mapping[str, str] | None) -> None:
        self._receiver = receiver
        self._loop = asyncio.get_running_loop()
        self._unsent = bytearray()
        self._ending = False
        self._paused = False
        self.on_gone: Callable[[LocalStream], None] = _nothing
        self.pid, self._stdin, self._stdout = _spawn(command, os.environ if env is None else env)
        os.set_blocking(self._stdin, False)
        os.set_blocking(self._stdout, False)
        self._loop.add_reader(self._stdout, self._read)

    def write(self, data: bytes) -> None:
        if self._stdin < 0 or self._ending:
            return
        if not self._unsent:
            data = data[self._send(data) :]
            if not data or self._stdin < 0:
                return
            self._loop.add_writer(self._stdin, self._send_rest)
        self._unsent += data

    def pause(self) -> None:
        if self._stdout >= 0 and not self._paused:
            self._paused = True
            self._loop.remove_reader(self._stdout)

    def resume(self) -> None:
        if self._stdout >= 0 and self._paused:
            self._paused = False
            self._loop.add_reader(self._stdout, self._read)

    def close(self) -> None:
        self._ending = True
        if not self._unsent:
            self._close_stdin()
        self._close_stdout()

    def _send(self, data: bytes | bytearray) -> int:
        try:
            return os.write(self._stdin, data)
        except BlockingIOError:
            return 0
        except OSError:
            # It reads no more. The end of its stdout will say that it is gone.
            self._unsent.clear()
            self._close_stdin()
            return len(data)

    def _send_rest(self) -> None:
        del self._unsent[: self._send(self._unsent)]
        if not self._unsent and self._stdin >= 0:
            self._loop.remove_writer(self._stdin)
            if self._ending:
                self._close_stdin()

    def _read(self) -> None:
        try:
            data = os.read(self._stdout, _BLOCK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._receiver.data_received(data)
            return
        self._unsent.clear()
        self._close_stdin()
        self._close_stdout()
        self._receiver.closed(None)

    def _close_stdin(self) -> None:
        if self._stdin >= 0:
            self._loop.remove_writer(self._stdin)
            os.close(self._stdin)
            self._stdin = -1

    def _close_stdout(self) -> None:
        if self._stdout >= 0:
            self._loop.remove_reader(self._stdout)
            os.close(self._stdout)
            self._stdout = -1
            self.on_gone(self)


def _nothing(stream: LocalStream) -> None:
    pass


_AS_AT_LOGIN = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGPIPE,
    signal.SIGTERM,
    signal.SIGXFSZ,
)
"""What `nohup`, a shell's `&` or Python may have had us ignore; a job must not inherit that."""


def _spawn(command: Sequence[str], env: Mapping[str, str]) -> tuple[int, int, int]:
    """Start it; returns pid, its stdin to write to and its stdout to read from. No other descriptor is passed on."""
    with contextlib.ExitStack() as on_error:
        ours, theirs = [], []
        for here, there in ((1, 0), (0, 1)):
            ends = os.pipe()
            ours.append(ends[here])
            theirs.append(ends[there])
            on_error.callback(os.close, ends[here])
        try:
            actions = [
                (os.POSIX_SPAWN_DUP2, theirs[0], 0),
                (os.POSIX_SPAWN_DUP2, theirs[1], 1),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
                *((os.POSIX_SPAWN_CLOSE, descriptor) for descriptor in _inheritable()),
            ]
            pid = os.posix_spawnp(
                command[0],
                list(command),
                dict(env),
                file_actions=actions,
                setsid=True,
                setsigdef=_AS_AT_LOGIN,
                setsigmask=[],
            )
        finally:
            for end in theirs:
                os.close(end)
        on_error.pop_all()
        return pid, ours[0], ours[1]


def _inheritable() -> list[int]:
    """What our own parent left open for children: a runner that lives on must not hold it."""
    found = []
    for name in (path.name for path in Path("/dev/fd").iterdir()):
        with contextlib.suppress(OSError):
            if int(name) > 2 and os.get_inheritable(int(name)):
                found.append(int(name))
    return found


class _Exit:
    """The end of a shell that we have let go: its exit status is taken when it ends, as late as that may be."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._loop = asyncio.get_running_loop()
        self._descriptor = -1
        self.done: asyncio.Future[None] = self._loop.create_future()
        try:
            self._descriptor = os.pidfd_open(pid)
        except (AttributeError, OSError):
            # No pidfd here: unless it has ended by now it stays a zombie until the controller ends.
            self._ended()
        else:
            self._loop.add_reader(self._descriptor, self._ended)

    def _ended(self) -> None:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, os.WNOHANG)
        self.drop()

    def drop(self) -> None:
        """Wait for it no longer."""
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
        if not self.done.done():
            self.done.set_result(None)
