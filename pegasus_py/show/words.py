"""What the console says of an event: one line of plain text. No colours, no widths."""

from __future__ import annotations

import os
import signal

from pegasus_py.core.model import Attempt, End, JobState
from pegasus_py.show.terminal import plain

LONGEST_COMMAND = 500
"""Characters of a command that are shown at most; the ledger has the whole."""


def command_line(attempt: Attempt, recovered: bool = False) -> str:
    """`12 $ command`, the first line of the command only; and what is special about this start."""
    job = attempt.job
    special = [plain(job.task.options.name)] if job.task.options.name else []
    if attempt.number > 1:
        special.append(f"attempt {attempt.number}")
    if recovered:
        special.append("from an earlier run")
    about = f" ({', '.join(special)})" if special else ""
    return f"{job.id}{about} $ {first_line(job.command)}"


def first_line(command: str) -> str:
    """A command on one line, cut to a length that can be read."""
    first, _, rest = command[: 2 * LONGEST_COMMAND].strip().partition("\n")
    more = rest or len(first) > LONGEST_COMMAND or len(command) > 2 * LONGEST_COMMAND
    return plain(first[:LONGEST_COMMAND]) + (" ..." if more else "")


def signal_name(status: int) -> str | None:
    """The signal that an exit status above 128 stands for, if there is one."""
    try:
        return signal.Signals(status - 128).name
    except ValueError:
        return None


def status_text(end: End) -> str:
    """`exit 3`, `exit 137 (SIGKILL)`, or nothing when there is no exit status."""
    if end.status is None:
        return ""
    name = signal_name(end.status)
    return f"exit {end.status} ({name})" if name else f"exit {end.status}"


def end_line(attempt: Attempt, end: End, log: str, retry_in: float | None) -> str:
    """`job 12 failed: exit 3 (log FILE)`."""
    name = attempt.job.task.options.name
    text = f"job {attempt.job.id}{f' ({plain(name)})' if name else ''} {_VERBS[end.state]}"
    why = ", ".join(filter(None, (status_text(end), plain(end.reason))))
    if end.state is JobState.SUCCEEDED:
        return text + (f" after {seconds(end.duration)}" if end.duration is not None else "")
    text += (f": {why}" if why else "") + (f" (log {plain(near(log))})" if log else "")
    if retry_in is not None:
        text += f"; next attempt in {seconds(retry_in)}"
    return text


_VERBS = {
    JobState.QUEUED: "is queued again",
    JobState.STARTING: "is starting",
    JobState.RUNNING: "is running",
    JobState.UNREACHABLE: "cannot be reached",
    JobState.SUCCEEDED: "succeeded",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "was cancelled",
    JobState.TIMED_OUT: "timed out",
    JobState.LOST: "is lost",
}


def near(path: str) -> str:
    """A path as it is shortest from here."""
    try:
        here = os.path.join(os.getcwd(), "")  # noqa: PTH109, PTH118 -- a text is wanted, as it stands
    except FileNotFoundError:
        return path
    return path.removeprefix(here)


def survivors_line(attempt: Attempt, survivors: tuple[str, ...]) -> str:
    """What is said when processes of an ended job could not be ended."""
    return f"job {attempt.job.id} left processes that could not be ended: {plain(', '.join(survivors[:20]))}"


def seconds(value: float) -> str:
    """A duration as people say it: `0.25s`, `12s`, `3m07s`, `2h05m`, `3d04h`."""
    if value < 9.95:
        return f"{value:.2g}s" if value >= 0.01 else "0s"
    whole = round(value)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"


def counted(number: int, noun: str) -> str:
    """`1 command`, `2 commands`."""
    return f"{number} {noun}" if number == 1 else f"{number:,} {noun}s"
