"""What the ledger says, for people and scripts: `pegasus status` and `pegasus logs`."""

from __future__ import annotations

import json as json_format
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pegasus_py.core.model import JobState
from pegasus_py.errors import NoController, PegasusError, StorageError, UsageError
from pegasus_py.show.table import table
from pegasus_py.show.terminal import clean, plain
from pegasus_py.show.words import counted, first_line, seconds
from pegasus_py.store.control import living_holder, request
from pegasus_py.store.ledger import Ledger
from pegasus_py.store.ledger_schema import JobRow
from pegasus_py.store.queuefile import QueueFile
from pegasus_py.store.rundir import RunDir

FOLLOW_EVERY = 0.1
ASK_EVERY = 1.0
"""Seconds between looks whether there is still a controller that takes the output in."""
BLOCK = 1 << 20
ANSWER_WITHIN = 3.0
"""Seconds that a controller may take to say how it is: one on another host looks once a second."""
MOST_ABSENT = 20
"""Sub-nodes without jobs that are named."""


def show_status(queue_file: Path, limit: int, *, json: bool) -> None:
    """Print the controller and how it is, the jobs by state, those that are open, the newest that ended, the queue."""
    run_dir = RunDir(queue_file)
    controller = _controller(run_dir)
    condition, manner = _condition(run_dir) if controller else (None, "")
    counts, rows = _jobs(run_dir, limit)
    left, error = _queued(queue_file)
    if json:
        print(
            json_format.dumps(
                {
                    "controller": controller,
                    "condition": condition,
                    "queued_in_file": left,
                    "queue_error": error,
                    "counts": {state.value: number for state, number in counts.items()},
                    "jobs": [_as_dict(row) for row in rows],
                }
            )
        )
        return
    print(f"controller  {controller or 'none runs'}{manner}")
    if condition is not None:
        _print_nodes(condition)
    queued = error if left is None else f"{counted(left, 'job')} left in {queue_file}"
    print(f"queue       {queued}")
    if condition is not None and left is not None and (trouble := condition["trouble"]):
        print(f"            nothing is taken from it: {plain(trouble)}")
    print("jobs        " + (", ".join(f"{n:,} {state}" for state, n in counts.items()) or "none yet"))
    if rows:
        print()
        headers = ["job", "state", "sub-node", "for", "exit", "command"]
        cells = [_cells(row) for row in rows]
        width = os.get_terminal_size().columns if sys.stdout.isatty() else None
        for line in table(headers, cells, width=width, colour=False, flexible=(2, 5)):
            print(line)


def _controller(run_dir: RunDir) -> str | None:
    try:
        return str(living_holder(run_dir.path))
    except NoController:
        return None


def _condition(run_dir: RunDir) -> tuple[dict[str, Any] | None, str]:
    """What the controller says of itself (`condition.condition`); None and in words why not if it does not."""
    try:
        reply = request(run_dir.path, "status", timeout=ANSWER_WITHIN)
    except NoController:
        return None, "; it gives no answer"
    except (PegasusError, OSError) as error:
        return None, f"; it cannot be asked more: {error}"
    if "error" in reply:
        return None, f"; {reply['error']}"
    return reply, "; stopping" if reply["stopping"] else ""


def _print_nodes(condition: dict[str, Any]) -> None:
    absent = condition["absent"]
    print(f"sub-nodes   {condition['subnodes'] - len(absent):,} of {condition['subnodes']:,} take jobs")
    for each in absent[:MOST_ABSENT]:
        print(f"            {plain(each['subnode'])}: {plain(each['reason'])}")
    if (more := len(absent) - MOST_ABSENT) > 0:
        print(f"            and {more:,} more; --json names them all")


def _absence(run_dir: RunDir) -> NoController | None:
    try:
        living_holder(run_dir.path)
    except NoController as error:
        return error
    return None


def _jobs(run_dir: RunDir, limit: int) -> tuple[dict[JobState, int], list[JobRow]]:
    if not run_dir.ledger.exists():
        return {}, []
    with Ledger.open(run_dir.ledger, create=False) as ledger:
        open_states = [state for state in JobState if not state.is_end]
        ends = [state for state in JobState if state.is_end]
        counts: dict[JobState, int] = {}
        for state, number in ledger.counts().items():
            counts[_seen(state)] = counts.get(_seen(state), 0) + number
        return counts, ledger.jobs(open_states) + ledger.jobs(ends, limit=limit)


def _seen(state: JobState) -> JobState:
    """The ledger has a start from before it leaves for the node; for people it runs from then on."""
    return JobState.RUNNING if state is JobState.STARTING else state


def _queued(queue_file: Path) -> tuple[int | None, str]:
    try:
        return sum(entry.size for entry in QueueFile(queue_file).entries()), ""
    except PegasusError as error:
        return None, str(error)


def _cells(row: JobRow) -> list[str]:
    end = row.end
    if row.state is JobState.QUEUED:
        length = f"in {seconds(max(0.0, row.due - time.time()))}" if row.due else ""
    elif end is not None and end.duration is not None:
        length = seconds(end.duration)
    else:
        length = seconds(max(0.0, time.time() - row.began)) if row.began and not row.ended else ""
    status = "" if end is None or end.status is None else str(end.status)
    return [
        str(row.job.id),
        str(_seen(row.state)),
        row.job.subnode,
        length,
        status,
        (f"{plain(name)}: " if (name := row.job.task.options.name) else "") + first_line(row.job.command),
    ]


def _as_dict(row: JobRow) -> dict[str, Any]:
    end = row.end
    return {
        "job": row.job.id,
        "name": row.job.task.options.name,
        "state": _seen(row.state).value,
        "subnode": row.job.subnode,
        "command": row.job.command,
        "params": dict(row.job.task.params),
        "attempts": row.number,
        "began": row.began,
        "ended": row.ended,
        "due": row.due,
        "status": None if end is None else end.status,
        "reason": None if end is None else end.reason,
        "duration": None if end is None else end.duration,
    }


def show_log(queue_file: Path, job: int, attempt: int | None, *, follow: bool) -> None:
    """Write an attempt's output to stdout; to `follow` goes on with the next attempts unless one is named.

    UsageError when there is no such job or attempt.

    NoController when there is nobody (any more) who would take in what is to be followed.
    """
    run_dir = RunDir(queue_file)
    if not run_dir.ledger.exists():
        raise UsageError(f"{queue_file}: no job has run yet")
    with Ledger.open(run_dir.ledger, create=False) as ledger:
        attempts = ledger.attempts(job)
        number = attempt or len(attempts)
        newest = follow and attempt is None
        if not attempts or number > len(attempts):
            known = (
                f"job {job} has {counted(len(attempts), 'attempt')}" if attempts else f"there is no job {job}"
            )
            raise UsageError(f"{queue_file}: {known}; `pegasus status` lists jobs")
        path = run_dir.logs / f"{job}.{number}.log"
        done = 0
        asked = 0.0
        alone: NoController | None = None
        while True:
            row = ledger.jobs(ids=[job])[0]
            ended = row.number > number or row.end is not None
            done = _copy(path, done)
            if newest and row.number > number:
                number += 1
                path, done = run_dir.logs / f"{job}.{number}.log", 0
                continue
            if not follow or (ended and (row.state.is_end or not newest)):
                return
            if alone is not None:
                raise NoController(f"job {job} has not ended as far as is known, but {alone}")
            if time.monotonic() > asked + ASK_EVERY:
                asked = time.monotonic()
                # What it has written until now is looked for once more.
                alone = _absence(run_dir)
            time.sleep(FOLLOW_EVERY)


def _copy(path: Path, start: int) -> int:
    """Write what follows `start` in the file; return where it ends now. No file: the job had no output."""
    terminal = sys.stdout.isatty()
    for block in _blocks(path, start, lines=terminal):
        start += len(block)
        sys.stdout.buffer.write(clean(block, True) if terminal else block)
    sys.stdout.buffer.flush()
    return start


def _blocks(path: Path, start: int, *, lines: bool) -> Iterator[bytes]:
    """What is in the file from `start` on; `lines`: whole ones, unless they are very long, that no character is cut."""
    try:
        with path.open("rb") as file:
            file.seek(start)
            while block := file.read(BLOCK):
                if lines:
                    block += file.readline(BLOCK)
                yield block
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(path, error.strerror or str(error)) from error
