"""Asking a running controller for something, through files in the state directory.

The client puts `control/ID.req` there, knocks with SIGUSR1 if the controller is on the same host, and waits for
`control/ID.reply`. No socket: the directory may be on NFS and the client on another host. A request is taken by
renaming it, so a client that gives up knows whether it was in time. Cheap to import: no asyncio, no SQLite.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from msgspec import Struct

from pegasus_py.errors import NoController, StorageError
from pegasus_py.store.holder import Holder, read_holder, write_whole

SLOW = 2.0
"""Seconds without an answer after which the user is told what is waited for."""
MAX_REQUEST = 1 << 20
"""Bytes that a request may have."""


class Request(Struct, frozen=True):
    """What a client asks: a verb and its arguments, as JSON has them."""

    id: str
    verb: str
    arguments: dict[str, Any]


def request(
    state: Path,
    verb: str,
    arguments: Mapping[str, Any] | None = None,
    timeout: float = 10.0,
    slow: Callable[[Holder], None] = lambda holder: None,
) -> dict[str, Any]:
    """Ask the controller of a state directory and return its reply. `slow` is called when it is long in coming.

    NoController: there is none, it ended before it answered, or it did not answer within `timeout` seconds; in the
    last case the message says whether the request was withdrawn or may still be obeyed.
    """
    holder = living_holder(state)
    name = f"{time.time_ns():020d}-{os.urandom(4).hex()}"
    asked, answer = state / "control" / f"{name}.req", state / "control" / f"{name}.reply"
    body = {"to": [holder.pid, holder.host, holder.start], "verb": verb, "arguments": dict(arguments or {})}
    try:
        write_whole(asked, json.dumps(body).encode())
    except OSError as error:
        raise StorageError(asked, error.strerror or str(error)) from error
    try:
        knock(holder)
        return _wait(state, holder, answer, timeout, slow)
    except TimeoutError:
        try:
            asked.unlink()
            fate = "the request was withdrawn"
        except FileNotFoundError:
            fate = "it has the request and may still obey"
        raise NoController(
            f"{state}: the controller ({holder}) gave no answer in {timeout:g} s; {fate}"
        ) from None
    finally:
        for path in (asked, answer):
            with suppress(OSError):
                path.unlink()


def living_holder(state: Path) -> Holder:
    """The controller of a state directory, as far as can be told from here; NoController if there is none."""
    holder = read_holder(state / "controller.json")
    if holder is None:
        raise NoController(f"{state}: no controller runs here; `pegasus q` or `pegasus b` starts one")
    if holder.is_alive() is False:
        raise NoController(
            f"{state}: the controller ({holder}) was killed; the next `pegasus q` or `pegasus b` takes up its jobs"
        )
    return holder


def knock(holder: Holder) -> None:
    """Tell a controller on this host that there is something for it; others look from time to time."""
    if holder.signals and holder.is_here and holder.is_alive():
        with suppress(OSError):
            os.kill(holder.pid, signal.SIGUSR1)


def _wait(
    state: Path, holder: Holder, answer: Path, timeout: float, slow: Callable[[Holder], None]
) -> dict[str, Any]:
    began = time.monotonic()
    told = False
    pause = 0.001
    while True:
        # Looked at before the answer: one that answers and then ends has answered.
        gone = holder.is_alive() is False or read_holder(state / "controller.json") != holder
        os.listdir(answer.parent)  # noqa: PTH208 -- an NFS client forgets here that the answer was not there
        with suppress(FileNotFoundError):
            reply: dict[str, Any] = json.loads(answer.read_bytes())
            return reply
        if gone:
            raise NoController(f"{state}: the controller ({holder}) ended before it answered")
        waited = time.monotonic() - began
        if waited > timeout:
            raise TimeoutError
        if waited > SLOW and not told:
            told = True
            slow(holder)
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)


class ControlServer:
    """The controller's side. `holder` is the controller itself: what is addressed to another is not obeyed."""

    def __init__(self, state: Path, holder: Holder) -> None:
        self.directory = state / "control"
        self._to = [holder.pid, holder.host, holder.start]

    def poll_requests(self) -> list[Request]:
        """Take all requests that are there, oldest first. What cannot be understood is answered with an error."""
        try:
            names = sorted(name for name in os.listdir(self.directory) if name.endswith(".req"))  # noqa: PTH208
        except OSError as error:
            raise StorageError(self.directory, error.strerror or str(error)) from error
        taken = [self._take(name) for name in names if not name.startswith(".")]
        return [request for request in taken if request is not None]

    def reply(self, id: str, answer: Mapping[str, Any]) -> None:
        """Answer a request. A client that no longer waits is no error, nor is a disk that takes no answer."""
        with suppress(OSError):
            write_whole(self.directory / f"{id}.reply", json.dumps(dict(answer)).encode())

    def _take(self, name: str) -> Request | None:
        id_ = name.removesuffix(".req")
        path = self.directory / f"{id_}.taken"
        try:
            (self.directory / name).rename(path)
            with path.open("rb") as file:
                data = file.read(MAX_REQUEST + 1)
            path.unlink()
        except OSError:
            return None
        try:
            body = json.loads(data[:MAX_REQUEST])
            to, verb, arguments = body["to"], body["verb"], body["arguments"]
        except (ValueError, KeyError, TypeError, RecursionError):
            to, verb, arguments = None, None, None
        if not isinstance(verb, str) or not isinstance(arguments, dict):
            self.reply(
                id_, {"error": "the controller does not understand this request; is it of another version?"}
            )
            return None
        if to != self._to:
            self.reply(id_, {"error": "the controller that was asked has ended; another one runs now"})
            return None
        return Request(id_, verb, arguments)

    def clear(self) -> None:
        """Remove what was left for, or by, a controller that is gone."""
        for path in self.directory.iterdir():
            with suppress(OSError):
                path.unlink()
