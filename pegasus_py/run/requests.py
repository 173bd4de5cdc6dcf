"""What `pegasus stop` and `pegasus cancel` ask of a running controller, by way of its state directory.

Imports little: `pegasus stop` is to start as fast as Python allows.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pegasus_py.errors import NoController, UsageError
from pegasus_py.store.control import living_holder, request
from pegasus_py.store.holder import Holder
from pegasus_py.store.rundir import RunDir

ACKNOWLEDGE_WITHIN = 30.0
"""Seconds that a controller may take to acknowledge a stop: one turn, which may include a slow disk."""
WAIT_STEP = 0.1
CANCEL_WITHIN = 3600.0
"""Seconds that ending jobs may take: their cancel commands, the grace period, and nodes that are unreachable."""


def ask_stop(queue_file: Path, *, now: bool, wait: bool) -> str:
    """Stop the controller of this queue; return the line that says what holds now. Raises NoController."""
    state = RunDir(queue_file).path
    holder = living_holder(state)
    reply = _ask(state, "stop", {"now": now}, ACKNOWLEDGE_WITHIN)
    if wait:
        while _still_there(state, holder):
            time.sleep(WAIT_STEP)
        return "stopped: the controller has ended"
    running = int(reply["running"])
    if not running:
        return "stopped: nothing new starts; no command is running"
    what = f"{running} running command{'' if running == 1 else 's'}"
    return f"stopped: nothing new starts; {what} {'will be ended' if now else 'may finish'}"


def _still_there(state: Path, holder: Holder) -> bool:
    """Whether that controller is still at work, as far as can be told from here."""
    try:
        return living_holder(state) == holder
    except NoController:
        return False


def ask_cancel(queue_file: Path, jobs: Sequence[int] | None) -> tuple[list[str], bool]:
    """End jobs (None: all); one line for each when they have ended, and whether all were there and are gone.

    Raises NoController.
    """
    wanted = None if jobs is None else list(jobs)
    reply = _ask(RunDir(queue_file).path, "cancel", {"jobs": wanted}, CANCEL_WITHIN)
    return [str(line) for line in reply["lines"]], bool(reply["done"])


def _ask(state: Path, verb: str, arguments: dict[str, Any], timeout: float) -> dict[str, Any]:
    def say(holder: Holder) -> None:
        what = (
            ""
            if verb == "stop"
            else "; a job on a node that cannot be reached is ended when the node is back"
        )
        print(f"pegasus: waiting for the controller ({holder}){what}", file=sys.stderr)

    try:
        reply = request(state, verb, arguments, timeout, say)
    except FileNotFoundError:
        raise NoController(f"{state}: no controller runs here") from None
    if "error" in reply:
        raise UsageError(str(reply["error"]))
    return reply
