"""Before a run takes anything: finish the pops that a crash left undone, when the queue's lock is free."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Sequence

from pegasus_py.core.events import Event, Note
from pegasus_py.store.control import ControlServer
from pegasus_py.store.queuefile import QueueFile
from pegasus_py.store.queuelock import QueueBusy

LOOK_EVERY = 0.1
"""Seconds between tries while someone else (an editor, mostly) holds the lock."""


async def mend_queue(
    queue: QueueFile, pops: Sequence[bytes], server: ControlServer, tell: Callable[[Event], None]
) -> bool:
    """Complete `pops` in the queue file. False: a stop came while the lock was held by others, nothing was done.

    Raises StorageError.
    """
    try:
        queue.recover(pops, timeout=0)
        return True
    except QueueBusy as error:
        tell(Note(f"{error}; waiting"))
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    try:
        while not stopped.is_set() and not _stop_is_asked(server):
            await asyncio.sleep(LOOK_EVERY)
            with contextlib.suppress(QueueBusy):
                queue.recover(pops, timeout=0)
                return True
        return False
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def _stop_is_asked(server: ControlServer) -> bool:
    asked = False
    for request in server.poll_requests():
        if request.verb == "stop":
            asked = True
            server.reply(request.id, {"running": 0})
        else:
            server.reply(request.id, {"error": "the run has not begun yet: the queue is locked"})
    return asked
