"""The ledger's tables, and the way of jobs and attempts into rows and back.

What many jobs share (template, options, file) is a row of `spec`, written once; a plain command without
options needs none. Uncleared attempts and jobs that did not succeed have partial indexes, so that their
number, and not that of all jobs, decides what the start of a run costs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict

from pegasus_py.core.model import Attempt, End, Job, JobOptions, JobState, Params, Task
from pegasus_py.errors import Place

FORMAT = 2
"""Goes up when an older Pegasus could no longer read what this one writes."""

APPLICATION_ID = 0x50656761
"""Marks the SQLite file as ours ("Pega")."""

SCHEMA = """
CREATE TABLE self(
    one INTEGER PRIMARY KEY CHECK (one = 1), queue_id TEXT NOT NULL, epoch INTEGER NOT NULL,
    serial INTEGER NOT NULL, doubts INTEGER NOT NULL);
CREATE TABLE pop(id INTEGER PRIMARY KEY, record BLOB NOT NULL);
CREATE TABLE run(
    epoch INTEGER PRIMARY KEY, mode TEXT NOT NULL, note TEXT NOT NULL, pid INTEGER NOT NULL,
    host TEXT NOT NULL, began REAL NOT NULL, ended REAL, result TEXT);
CREATE TABLE spec(id INTEGER PRIMARY KEY, template TEXT, options TEXT, file TEXT NOT NULL);
CREATE TABLE job(
    id INTEGER PRIMARY KEY, state TEXT NOT NULL, command TEXT NOT NULL, subnode TEXT NOT NULL,
    attempts INTEGER NOT NULL, spec INTEGER, params TEXT, line INTEGER NOT NULL, cancel TEXT, round INTEGER,
    due REAL);
CREATE INDEX job_unsuccessful ON job(state) WHERE state <> 'succeeded';
CREATE TABLE attempt(
    job INTEGER NOT NULL, number INTEGER NOT NULL, subnode TEXT NOT NULL, hostname TEXT NOT NULL, spool TEXT,
    epoch INTEGER NOT NULL, cleared INTEGER NOT NULL, began REAL NOT NULL, ended REAL, state TEXT,
    status INTEGER, duration REAL, reason TEXT, survivors TEXT, PRIMARY KEY (job, number)) WITHOUT ROWID;
CREATE INDEX attempt_uncleared ON attempt(job, number) WHERE cleared = 0;
CREATE TABLE ballast(id INTEGER PRIMARY KEY, filler BLOB);
"""

FROM_FORMAT_1 = """
CREATE TABLE pop(id INTEGER PRIMARY KEY, record BLOB NOT NULL);
INSERT INTO pop(record) SELECT pop FROM self WHERE pop IS NOT NULL;
ALTER TABLE self DROP COLUMN pop;
"""
"""Format 1 had one pop only, beside the other things that there are once."""

JOB_COLUMNS = (
    "job.id, job.command, job.subnode, job.params, job.line, job.cancel, job.round, "
    "spec.template, spec.options, spec.file"
)
"""What `job_from_row` takes, in this order; needs `job LEFT JOIN spec ON spec.id = job.spec`."""


class JobRow(Struct, frozen=True):
    """A line of a status table: a job and its last attempt. Times are seconds since the epoch of the clock.

    `number` counts attempts (0: none yet), `run` is the epoch of the run that started the last one, `end` is
    how that ended (None: not yet), `due` is when a queued job may start.
    """

    job: Job
    state: JobState
    number: int
    due: float | None
    run: int | None
    began: float | None
    ended: float | None
    end: End | None


UNWANTED = "unwanted"
"""The reason of an attempt that is open: the user has asked to end it."""


class AttemptRow(Struct, frozen=True):
    """One attempt of a job as the ledger has it; `end` is None while it is open.

    `unwanted`: it is open, and the user has asked to end it.
    """

    attempt: Attempt
    run: int
    began: float
    ended: float | None
    end: End | None
    unwanted: bool = False


class RunRow(Struct, frozen=True):
    """One life of a controller. `ended` and `result` are None if it lives or was killed."""

    epoch: int
    mode: str
    note: str
    pid: int
    host: str
    began: float
    ended: float | None
    result: str | None


def spec_of(job: Job) -> tuple[str | None, str | None, str] | None:
    """The shared part of a job (template, options, file), or None for a plain command of `queue.yaml`."""
    task = job.task
    template = None if task.command == job.command else task.command
    options = None if task.options == JobOptions() else _dump(_options(task.options))
    if template is None and options is None and task.place.file == "queue.yaml":
        return None
    return template, options, task.place.file


def params_of(task: Task) -> str | None:
    """Parameters as a flat JSON list: name, value, name, value."""
    return _dump([text for pair in task.params for text in pair]) if task.params else None


def job_from_row(row: Sequence[Any]) -> Job:
    """The job of one row of `JOB_COLUMNS`."""
    id_, command, subnode, params, line, cancel, round_, template, options, file = row
    flat: list[str] = json.loads(params) if params else []
    pairs: Params = tuple(zip(flat[::2], flat[1::2], strict=True))
    task = Task(
        command=command if template is None else template,
        params=pairs,
        options=_options_back(options) if options else JobOptions(),
        place=Place("queue.yaml" if file is None else file, line),
    )
    return Job(id=id_, task=task, command=command, subnode=subnode, cancel=cancel, round=round_)


def end_values(end: End) -> tuple[str, int | None, float | None, str | None, str | None]:
    """state, status, duration, reason, survivors as stored."""
    survivors = _dump(end.survivors) if end.survivors else None
    return end.state.value, end.status, end.duration, end.reason or None, survivors


def end_from_row(
    state: str | None, status: int | None, duration: float | None, reason: str | None, survivors: str | None
) -> End | None:
    if state is None:
        return None
    return End(
        JobState(state), status, reason or "", duration, tuple(json.loads(survivors)) if survivors else ()
    )


def _options(options: JobOptions) -> dict[str, object]:
    return {name: value for name, value in asdict(options).items() if value is not None}


def _options_back(text: str) -> JobOptions:
    known = set(JobOptions.__struct_fields__)
    values = {name: value for name, value in json.loads(text).items() if name in known}
    if "retry_on" in values:
        values["retry_on"] = tuple(JobState(state) for state in values["retry_on"])
    return JobOptions(**values)


_dump: Callable[[object], str] = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
